"""Everything that `edge.testing` offers; it loads the engine, which its package puts off."""

from __future__ import annotations

from edge.local.faults import Fault
from edge.local.seen import Call, Seen
from edge.outcome import Ending, Outcome
from edge.testing.backend import PythonBackend, Reply, Request
from edge.testing.records import LogLine
from edge.testing.service import Edge, Response, ServiceUnderTest
from edge.upstream.fetch import Cause

__all__ = [
    "Call",
    "Cause",
    "Edge",
    "Ending",
    "Fault",
    "LogLine",
    "Outcome",
    "PythonBackend",
    "Reply",
    "Request",
    "Response",
    "Seen",
    "ServiceUnderTest",
]

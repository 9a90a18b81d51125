"""Runs services in a test: real sandboxes, backends that are Python functions, stores with seeds.

    def test_greets(edge: Edge) -> None:
        service = edge.service("app.wasm", backends={"origin": lambda request: "hello"})
        response = service.get("/")
        assert response.status == 200
        assert response.wait().outcome.ending is Ending.OK

The fixture `edge` comes with a pytest plugin that is found by itself; without pytest, `Edge` is a
context manager.
"""

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

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

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.local.faults import Fault
    from edge.local.seen import Call, Seen
    from edge.outcome import Ending, Outcome
    from edge.testing.backend import PythonBackend, Reply, Request
    from edge.testing.records import LogLine
    from edge.testing.service import Edge, Response, ServiceUnderTest
    from edge.upstream.fetch import Cause

# pytest imports its plugins, and so this package, in every project of an environment; those that
# test no service shall not wait for an engine.
_HOMES = {
    "Call": "edge.local.seen",
    "Cause": "edge.upstream.fetch",
    "Edge": "edge.testing.service",
    "Ending": "edge.outcome",
    "Fault": "edge.local.faults",
    "LogLine": "edge.testing.records",
    "Outcome": "edge.outcome",
    "PythonBackend": "edge.testing.backend",
    "Reply": "edge.testing.backend",
    "Request": "edge.testing.backend",
    "Response": "edge.testing.service",
    "Seen": "edge.local.seen",
    "ServiceUnderTest": "edge.testing.service",
}

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found

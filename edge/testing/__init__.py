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

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.testing.names import (
        Call,
        Cause,
        Edge,
        Ending,
        Fault,
        LogLine,
        Outcome,
        PythonBackend,
        Reply,
        Request,
        Response,
        Seen,
        ServiceUnderTest,
    )

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
    """Offer a name when it is asked for.

    pytest imports its plugins, and so this package, in every project of an environment; those that
    test no service do not wait for an engine.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edge.testing import names

    found: object = getattr(names, name)
    return found

"""The control API's application: which path gets which answer.  It owns no socket and no state.

Handed by composition to the same connection class that serves the public side.  What it tells is
given to it as functions, so it imports neither the supervisor nor the runtime.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import Enum
from typing import Final, Protocol

from edge.admin import health
from edge.admin.metrics import MetricsPage, Render
from edge.admin.status import Status
from edge.http.message import Headers

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
_NO_STORE: Final[Headers] = [(b"cache-control", b"no-store")]


class Request(Protocol):
    """What the app needs of an exchange."""

    @property
    def method(self) -> bytes: ...

    @property
    def path(self) -> bytes:
        """Raw, without the query."""
        ...

    def request_header(self, name: bytes) -> bytes | None: ...

    def reply(
        self, status: int, content_type: str, body: bytes, headers: Headers | None = None
    ) -> None: ...


Handler = Callable[[Request], None]


class AdminApp:
    """Routes requests of the control API; `handle` and `handle_metrics` never raise for a client's

    fault.  Every path here is open to whoever reaches the listener: none changes anything.
    """

    def __init__(
        self, report: Callable[[], Status], render: Render, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`report` makes the status of this instant; `render` the metrics, in a thread."""
        self._report = report
        self._metrics = MetricsPage(render, loop)
        self._public: Mapping[bytes, Handler] = {
            b"/metrics": self._answer_metrics,
            b"/livez": self._answer_livez,
            b"/readyz": self._answer_readyz,
        }
        self._all: Mapping[bytes, Handler] = {**self._public, b"/v1/status": self._answer_status}

    def handle(self, request: Request) -> None:
        """Answer on the control API's own address."""
        self._route(self._all, request)

    def handle_metrics(self, request: Request) -> None:
        """Answer on the address for scrapers and probes only."""
        self._route(self._public, request)

    def close(self) -> None:
        """End what runs in the background."""
        self._metrics.close()

    def _route(self, paths: Mapping[bytes, Handler], request: Request) -> None:
        handler = paths.get(request.path)
        if handler is None:
            known = ", ".join(path.decode() for path in paths)
            request.reply(404, TEXT, f"no such path; there are {known}\n".encode(), _NO_STORE)
        elif request.method not in (b"GET", b"HEAD"):
            request.reply(405, TEXT, b"only GET and HEAD\n", [(b"allow", b"GET, HEAD"), *_NO_STORE])
        else:
            handler(request)

    def _answer_livez(self, request: Request) -> None:
        status, text = health.live()
        request.reply(status, TEXT, text.encode(), _NO_STORE)

    def _answer_readyz(self, request: Request) -> None:
        status, text = health.ready(self._report())
        request.reply(status, TEXT, text.encode(), _NO_STORE)

    def _answer_status(self, request: Request) -> None:
        body = json.dumps(asdict(self._report()), default=_plain, indent=2) + "\n"
        request.reply(200, JSON, body.encode(), _NO_STORE)

    def _answer_metrics(self, request: Request) -> None:
        accept = (request.request_header(b"accept") or b"").decode("latin-1")
        self._metrics.answer(
            accept,
            lambda status, kind, body: request.reply(status, kind, body, _NO_STORE),
        )


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} in a status")

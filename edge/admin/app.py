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
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from edge.admin import health
from edge.admin.api import JSON, TEXT
from edge.admin.metrics import MetricsPage, Render
from edge.admin.status import Status
from edge.http.message import Headers

if TYPE_CHECKING:
    from edge.admin.calls import Calls, Exchange

_NO_STORE: Final[Headers] = [(b"cache-control", b"no-store")]


class Request(Protocol):
    """What the open pages need of an exchange."""

    @property
    def method(self) -> bytes: ...

    @property
    def host(self) -> bytes:
        """In lower case, without a port; IPv6 addresses in brackets."""
        ...

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
    """Answers what needs no token (`handle_metrics`), and hands on what does (`handle`).

    Neither raises for a client's fault.
    """

    def __init__(
        self, report: Callable[[], Status], render: Render, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`report` makes the status of this instant; `render` the metrics, in a thread."""
        self._report = report
        self._metrics = MetricsPage(render, loop)
        self._calls: Calls | None = None
        self._hosts: frozenset[bytes] = frozenset()
        self._open: Mapping[bytes, Handler] = {
            b"/metrics": self._answer_metrics,
            b"/livez": self._answer_livez,
            b"/readyz": self._answer_readyz,
        }

    def serve(self, calls: Calls, hosts: tuple[str, ...]) -> None:
        """From now on there is more than probes; `hosts`: see `admin.hosts`."""
        self._calls = calls
        self._hosts = frozenset(host.lower().encode() for host in hosts)

    def handle(self, exchange: Exchange) -> None:
        """Answer on the control API's own address."""
        if not self._is_ours(exchange.host):
            # A page of another site may make a browser resolve its name to our address, and would
            # then be let read what we answer (DNS rebinding): its Host gives it away.
            text = "this name is not one of admin.hosts; use the IP address, or add the name\n"
            exchange.reply(421, TEXT, text.encode(), _NO_STORE)
        elif self._calls is not None and exchange.path not in self._open:
            self._calls.handle(exchange)
        elif exchange.path == b"/v1/status":
            body = json.dumps(status_document(self._report()), indent=2) + "\n"
            exchange.reply(200, JSON, body.encode(), _NO_STORE)
        else:
            self.handle_metrics(exchange)

    def handle_metrics(self, exchange: Request) -> None:
        """Answer on the address for scrapers and probes only."""
        handler = self._open.get(exchange.path)
        if handler is None:
            known = ", ".join(path.decode() for path in self._open)
            exchange.reply(404, TEXT, f"no such path; there are {known}\n".encode(), _NO_STORE)
        elif exchange.method not in (b"GET", b"HEAD"):
            allow = [(b"allow", b"GET, HEAD"), *_NO_STORE]
            exchange.reply(405, TEXT, b"only GET and HEAD\n", allow)
        else:
            handler(exchange)

    async def aclose(self) -> None:
        """End every call and what runs in the background."""
        if self._calls is not None:
            await self._calls.aclose()
        self.close()

    def close(self) -> None:
        """End what runs in the background."""
        self._metrics.close()

    def _is_ours(self, host: bytes) -> bool:
        """Whether a Host is one under which we are to be reached; none at all is (HTTP/1.0)."""
        if not host or host in self._hosts or self._calls is None:
            return True
        try:
            ip_address(host.decode("ascii", "replace").removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _answer_livez(self, exchange: Request) -> None:
        status, text = health.live()
        exchange.reply(status, TEXT, text.encode(), _NO_STORE)

    def _answer_readyz(self, exchange: Request) -> None:
        status, text = health.ready(self._report())
        exchange.reply(status, TEXT, text.encode(), _NO_STORE)

    def _answer_metrics(self, exchange: Request) -> None:
        accept = (exchange.request_header(b"accept") or b"").decode("latin-1")
        self._metrics.answer(
            accept,
            lambda status, kind, body: exchange.reply(status, kind, body, _NO_STORE),
        )


def status_document(status: Status) -> object:
    """The status as plain values."""
    return json.loads(json.dumps(asdict(status), default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} in a status")

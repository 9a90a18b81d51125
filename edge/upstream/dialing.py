"""The seam between making connections and using them: what a dialer gives, what a link is.

`edge.upstream.client` asks a `Dialer` for a connection, and the dialer asks back which protocol to
put on it once it knows what TLS agreed on.  That protocol is a `Link`: HTTP/1.1 carries one fetch
at a time (`edge.upstream.connection`), HTTP/2 many.  Neither sockets nor HTTP here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge.model.backend import Backend

if TYPE_CHECKING:
    from edge.upstream.pending import Fetch
    from edge.upstream.timers import Deadlines

# Called by the dialer when the connection is ready for bytes of ours (TLS is done, the certificate
# has been checked) with the agreed ALPN protocol or None.  It only makes the protocol object; the
# dialer sets it on the transport and calls its `connection_made`, both before any byte is read.
ProtocolFactory = Callable[[str | None], asyncio.BaseProtocol]


@dataclass(slots=True)
class Dialed:
    """An established connection; `protocol` came from the factory and has had `connection_made`."""

    transport: asyncio.Transport
    protocol: asyncio.BaseProtocol
    address: bytes  # 4 or 16 octets of the peer
    port: int
    alpn: str | None


class Dialer(Protocol):
    """Makes connections: names, addresses, egress policy, TCP, TLS."""

    def dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
    ) -> Awaitable[Dialed]:
        """Connect before the monotonic instant `deadline`.  Raises UpstreamFailed.

        Awaited in a task of the client, which cancels it when nobody wants the connection any more;
        whatever was opened until then must be closed by the dialer.
        """
        ...


class Owner(Protocol):
    """Whom a link tells what becomes of it; given to it when it is made.

    A link adds itself to `deadlines` in `connection_made` and removes itself when lost.
    """

    @property
    def deadlines(self) -> Deadlines:
        """Where links keep their timeouts."""
        ...

    def freed(self, link: Link) -> None:
        """`link` has room again, or carries nothing any more."""
        ...

    def broken(self) -> None:
        """A body broke off after its head had been given out: to be counted."""
        ...

    def lost(self, link: Link) -> None:
        """The connection is gone (`connection_lost`).  Called exactly once."""
        ...


class Link(Protocol):
    """An established connection that carries fetches; an asyncio protocol as well.

    It answers for each fetch that it carries: `fetch.respond` once its final head is here, or
    `fetch.fail`, and never both.  The response's body is its own business from then on: filled with
    backpressure, finished, or failed when the connection breaks.
    """

    address: bytes  # set by the client before the first fetch, from `Dialed`
    deadline: float  # monotonic: when `deadlines` calls `on_due`
    port: int
    pooled: bool  # False at first; the pool's own mark: it is among those that may be chosen

    @property
    def room(self) -> int:
        """How many more fetches it would take now; 0 as well when it is closing."""
        ...

    @property
    def idle(self) -> bool:
        """True when it carries nothing: no fetch, no body either way."""
        ...

    def carry(self, fetch: Fetch) -> None:
        """Send this request.  Called only while `room`; never raises."""
        ...

    def drop(self, fetch: Fetch) -> None:
        """Nobody waits for this fetch any more: stop it, without a word to it."""
        ...

    def close(self) -> None:
        """Close a connection that carries nothing, politely."""
        ...

    def abort(self) -> None:
        """Close at once; what it carries fails."""
        ...

    def on_due(self) -> None:
        """The deadline has passed."""
        ...


LinkFactory = Callable[[Backend, Owner], Link]

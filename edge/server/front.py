"""What all connections of one process share: limits, counters, callbacks.  No behaviour of its own.

`Front` is given by composition; connections and listeners only read it and count in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from edge.http.addresses import TrustedProxies
from edge.http.refusal import BadRequest
from edge.server.timers import Sweeper

if TYPE_CHECKING:
    from edge.server.exchange import Exchange

UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Ceilings and timeouts of downstream HTTP.  Sizes in bytes, times in seconds."""

    max_head: int = 69_000  # request line and fields, before parsing: 431 above
    max_target: int = 8192  # 414 above
    max_fields: int = 512  # 431 above
    max_request_body: int = UNLIMITED  # 413 above; an exchange may lower its own
    max_response_bytes: int = UNLIMITED  # of body; an exchange may lower its own
    head_timeout: float = 10.0  # from the first byte of a head to its end, and for a silent start
    body_idle: float = 30.0  # no byte of a body that we are ready to take
    tunnel_idle: float = 60.0  # no byte either way after a 101; ends after once to twice that
    write_stall: float = 30.0  # the client takes no byte of what waits for it
    keep_alive: float = 75.0  # between requests
    pipeline_depth: int = 16  # requests begun from one read before others have their turn
    drain_bytes: int = 64 * 1024  # unread request body read away to keep the connection
    drain_seconds: float = 1.0
    linger_bytes: int = 1024 * 1024  # read away after the last response, so that it arrives
    linger_seconds: float = 1.0
    max_connections: int = 10_000
    max_per_client: int = 0  # connections of one untrusted address; 0: no such cap


class ConnectionRefusal(Enum):
    """Why an accepted connection was closed unread."""

    PER_CLIENT = "per_client"
    UNTRUSTED_PROXY = "untrusted_proxy"  # spoke to a PROXY protocol listener
    PROXY_HEADER = "proxy_header"


class Timeout(Enum):
    """Which wait was too long."""

    HEAD = "head"
    BODY = "body"
    WRITE = "write"
    KEEP_ALIVE = "keep_alive"


@dataclass(slots=True)
class ServerStatistics:
    """Counts since the process began; composition copies them into metrics."""

    connections_open: int = 0
    connections_accepted: int = 0
    connections_refused: dict[ConnectionRefusal, int] = field(
        default_factory=lambda: dict.fromkeys(ConnectionRefusal, 0)
    )
    bad_requests: dict[BadRequest, int] = field(
        default_factory=lambda: dict.fromkeys(BadRequest, 0)
    )
    timeouts: dict[Timeout, int] = field(default_factory=lambda: dict.fromkeys(Timeout, 0))
    accept_pauses_full: int = 0  # the total cap was reached
    accept_pauses_descriptors: int = 0  # EMFILE, ENFILE and their kin
    requests: int = 0  # handed to the handler
    clients_gone: int = 0
    aborted: int = 0  # connections ended in the middle of a message
    faults: int = 0  # exceptions out of the handler


@dataclass(frozen=True, slots=True)
class BadRequestInfo:
    """A request that never became an exchange, for the access log."""

    kind: BadRequest
    status: int
    reason: str
    client: bytes  # octets
    started_ns: int  # perf_counter_ns
    first_line: bytes  # what was received of it, at most 256 bytes


class LoopCalls(Protocol):
    """The part of an event loop that a connection needs; tests turn it by hand."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...


class Member(Protocol):
    """A connection as its front knows it."""

    def begin_drain(self) -> None: ...

    def abort(self) -> None: ...


class Held(Protocol):
    """A connection that keeps a response for the end of the turn."""

    def send_held(self) -> None: ...


def _never() -> bool:
    return False


@dataclass(slots=True)
class Front:
    """One listener's side of everything a connection needs."""

    handler: Callable[[Exchange], None]
    loop: LoopCalls
    sweeper: Sweeper
    limits: HttpLimits = field(default_factory=HttpLimits)
    statistics: ServerStatistics = field(default_factory=ServerStatistics)
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    scheme: bytes = b"http"
    proxy_protocol: bool = False
    on_bad_request: Callable[[BadRequestInfo], None] | None = None
    hurried: Callable[[], bool] = _never  # whether what is put off would wait for something long
    draining: bool = False
    members: set[Member] = field(default_factory=set)
    on_closed: list[Callable[[], None]] = field(default_factory=list)  # a descriptor came free
    outbox: list[Held] = field(default_factory=list)  # connections with something to send
    clients: dict[bytes, int] = field(default_factory=dict)  # connections per untrusted address

    def send_outbox(self) -> None:
        """Send what connections kept for the end of the turn."""
        outbox = self.outbox
        if outbox:
            self.outbox = []
            for connection in outbox:
                connection.send_held()

    def count(self, client: bytes) -> bool:
        """Count one more connection of this address; False, counting nothing, above its cap.

        IPv6 clients are counted by /64, the smallest network anybody is given.
        """
        client = _network(client)
        present = self.clients.get(client, 0)
        if 0 < self.limits.max_per_client <= present:
            return False
        self.clients[client] = present + 1
        return True

    def uncount(self, client: bytes) -> None:
        """One connection of this address has closed."""
        client = _network(client)
        left = self.clients.get(client, 1) - 1
        if left:
            self.clients[client] = left
        else:
            self.clients.pop(client, None)


def _network(client: bytes) -> bytes:
    return client[:8] if len(client) == 16 else client

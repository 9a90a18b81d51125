"""A transport, an event loop and a client made of lists, to drive a connection by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edge.http.addresses import TrustedProxies
from edge.http.request_view import peer_of
from edge.server.connection import Connection
from edge.server.exchange import Exchange
from edge.server.front import BadRequestInfo, Front, HttpLimits
from edge.server.timers import TICK, Sweeper
from tests.support.clock import SteppedClock


class HandLoop:
    """`call_soon` and `call_later`, run only when a test says so."""

    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self._soon: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> None:
        self._later.append((self._clock.monotonic() + delay, callback))

    def turn(self) -> int:
        """One turn: what was scheduled before it.  Returns how much that was."""
        count = len(self._soon)
        for _ in range(count):
            self._soon.popleft()()
        return count

    def settle(self) -> None:
        """Turns until nothing is left to do."""
        for _ in range(10_000):
            if not self.turn():
                return
        raise AssertionError("the loop never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass in steps of a quarter of a second, running what falls due."""
        steps = max(1, round(seconds / TICK))
        for _ in range(steps):
            self._clock.advance(TICK)
            now = self._clock.monotonic()
            due = [callback for at, callback in self._later if at <= now]
            self._later = [entry for entry in self._later if entry[0] > now]
            for callback in due:
                callback()
            self.settle()


class FakeTransport(asyncio.Transport):
    """Keeps what is written; `take` plays the client that reads it."""

    def __init__(self, loop: HandLoop, protocol: Connection, high_water: int = 65536) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._high_water = high_water
        self.written = bytearray()  # everything the client has read
        self.waiting = bytearray()  # written, not yet taken by a slow client
        self.reads = True  # a client that takes everything at once
        self.paused = False
        self.closed = False
        self.aborted = False
        self.eof_written = False
        self.writes = 0
        self.max_waiting = 0
        self._over = False
        self._lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.eof_written
        self.writes += 1
        if self.reads:
            self.written += data
            return
        self.waiting += data
        self.max_waiting = max(self.max_waiting, len(self.waiting))
        if not self._over and len(self.waiting) > self._high_water:
            self._over = True
            self._protocol.pause_writing()

    def take(self, count: int) -> None:
        """The client reads `count` bytes of what waits."""
        self.written += self.waiting[:count]
        del self.waiting[:count]
        if self._over and not self.waiting:
            self._over = False
            self._protocol.resume_writing()
        if self.closed and not self.waiting:
            self._lose()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        """As uvloop does: what waits is sent first, however long that takes."""
        if not self.closed:
            self.closed = True
            if not self.waiting:
                self._lose()

    def abort(self) -> None:
        self.aborted = True
        self.closed = True
        self._lose()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(lambda: self._protocol.connection_lost(None))


class Driven:
    """A connection with a client, a handler and a clock in a test's hands."""

    def __init__(
        self,
        handler: Callable[[Exchange], None] | None = None,
        *,
        limits: HttpLimits | None = None,
        trusted: tuple[str, ...] = (),
        remote: str = "192.0.2.7",
        proxy_protocol: bool = False,
        draining: bool = False,
    ) -> None:
        self.clock = SteppedClock()
        self.loop = HandLoop(self.clock)
        self.exchanges: list[Exchange] = []
        self.refused: list[BadRequestInfo] = []
        self._handler = handler
        proxies = TrustedProxies(trusted)
        self.front = Front(
            handler=self._handle,
            loop=self.loop,
            sweeper=Sweeper(self.loop, self.clock),
            limits=limits or HttpLimits(),
            proxies=proxies,
            proxy_protocol=proxy_protocol,
            on_bad_request=self.refused.append,
            draining=draining,
        )
        self.connection = Connection(self.front, peer_of(remote, "192.0.2.1", proxies))
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(self.transport)

    def _handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self._handler is not None:
            self._handler(exchange)

    def send(self, data: bytes, *, step: int = 0) -> None:
        """The client sends `data`, in pieces of `step` bytes if that is given."""
        pieces = [data] if not step else [data[at : at + step] for at in range(0, len(data), step)]
        for piece in pieces:
            if self.transport.closed:
                return
            assert not self.transport.paused
            self.connection.data_received(piece)
            self.loop.settle()

    @property
    def received(self) -> bytes:
        """All that the client has read once this turn of the loop is over."""
        self.front.send_outbox()
        return bytes(self.transport.written)

    @property
    def ended(self) -> bool:
        """True when the server will answer nothing more on this connection."""
        return self.transport.closed or self.transport.eof_written


def hello(exchange: Exchange) -> None:
    """The smallest handler."""
    exchange.reply(200, "text/plain", b"hello")

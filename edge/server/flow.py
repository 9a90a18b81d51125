"""Bytes in motion: a request body coming in, a response body going out.  Not the message heads.

Both directions are driven by callbacks and bounded: a body that is full stops the socket, a socket
that is full stops the body.  No task is made for either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import HostcallError
from edge.http.body import Body
from edge.http.chunked import ChunkedDecoder, LengthDecoder
from edge.http.framing import CHUNKED, Mode, ResponseFraming
from edge.http.headers import clean_trailers
from edge.http.message import Headers
from edge.http.response_head import encode_trailers

if TYPE_CHECKING:
    from edge.server.connection import Connection
    from edge.server.exchange import Exchange

CHUNK = 64 * 1024
# After this much in one go the other connections have their turn (a fast local reader could keep
# us busy with a 64 MiB body for tens of milliseconds).
BYTES_PER_TURN = 1024 * 1024
PIECE_COST = 256  # what a piece costs besides its bytes: small ones must not make a long turn


class AwaitedBody(Body):
    """A request body whose client waits for `100 Continue` before it sends.

    `on_wanted` is called once, when somebody first asks for bytes: looking whether there are any
    is asking, because that is what every way of waiting begins with.
    """

    __slots__ = ("on_wanted",)

    def __init__(self, on_wanted: Callable[[], None]) -> None:
        super().__init__(live=True)
        self.on_wanted: Callable[[], None] | None = on_wanted

    @property
    def is_readable(self) -> bool:
        self.want()
        return bool(Body.is_readable.__get__(self))

    def read(self, limit: int) -> bytes:
        self.want()
        return super().read(limit)

    def want(self) -> None:
        """Ask the client to send, unless that has been done."""
        wanted, self.on_wanted = self.on_wanted, None
        if wanted is not None:
            wanted()


class Intake:
    """One request body on its way in: the decoder, where its bytes go, and for whom."""

    __slots__ = ("body", "decoder", "exchange", "spare")

    decoder: ChunkedDecoder | LengthDecoder | EndlessDecoder

    def __init__(self, length: int, body: Body) -> None:
        self.decoder = ChunkedDecoder() if length == CHUNKED else LengthDecoder(length)
        self.body = body
        self.exchange: Exchange | None = None
        self.spare = 0  # after the exchange: bytes we are still willing to read away
        if length != CHUNKED:
            body.expected = length

    @property
    def uninvited(self) -> bool:
        """True while the client waits for a `100 Continue` that nobody has asked for."""
        body = self.body
        return isinstance(body, AwaitedBody) and body.on_wanted is not None

    def take(self, data: bytes) -> tuple[bytes, int]:
        """Put the body bytes in `data` into the body; what was not looked at, and their number.

        Raises Refused for a broken coding, LimitExceeded when the sandbox may hold no more.
        """
        piece, rest = self.decoder.feed(data)
        count = len(piece)
        exchange = self.exchange
        if type(self.body) is AwaitedBody:
            self.body.on_wanted = None  # it sends without being asked: no need to ask
        if count and exchange is not None:
            exchange.bytes_in += count
            if exchange.bytes_in > exchange.max_request_body:
                return rest, count  # the caller sees that, and ends it
            body = self.body
            if body.expected is not None:
                body.expected -= count
            body.write(piece)
        if self.decoder.done and exchange is not None:
            self.body.finish(self.decoder.trailers)
        return rest, count


class EndlessDecoder:
    """Bytes in no coding, until one of the two ends closes: a tunnel."""

    __slots__ = ()

    done = False
    remaining: int | None = None
    trailers: Headers = []  # noqa: RUF012  never any

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of it."""
        return data, b""


class TunnelIntake(Intake):
    """What a client sends after a 101; `moved`: bytes either way when that was last looked at."""

    __slots__ = ("moved",)

    def __init__(self, exchange: Exchange, body: Body) -> None:
        self.decoder = EndlessDecoder()
        self.body = body
        self.exchange = exchange
        self.spare = 0
        self.moved = -1

    def has_moved(self) -> bool:
        """True if anything has since this was last asked."""
        exchange = self.exchange
        before = self.moved
        self.moved = exchange.bytes_in + exchange.bytes_out if exchange is not None else before
        return self.moved != before


class ResponseFlow:
    """Moves one response body to the transport, as fast as the slower of the two."""

    __slots__ = (
        "_body",
        "_connection",
        "_exchange",
        "_mode",
        "_remaining",
        "_scheduled",
        "_watching",
        "done",
    )

    def __init__(
        self, exchange: Exchange, connection: Connection, body: Body, framing: ResponseFraming
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._body = body
        self._mode = framing.mode
        self._remaining = framing.length or 0
        self._scheduled = False
        self._watching = False
        self.done = False

    def run(self) -> None:
        """Write what is here and may go; then wait for a change on either side."""
        self._scheduled = False
        body, budget = self._body, BYTES_PER_TURN
        while not self.done and not self._connection.write_paused:
            if budget <= 0:
                self.schedule()
                return
            if not body.is_readable:
                self._watch()
                return
            try:
                data = body.read(CHUNK)
            except HostcallError:
                self._exchange.break_off()  # an unfinished message, and the client must see that
                return
            if data:
                budget -= len(data) + PIECE_COST
                self._send(data)
            elif body.at_eof:
                self._finish()

    def schedule(self) -> None:
        """Run soon: many small writes of a guest's slice then go out together."""
        if not self._scheduled and not self.done:
            self._scheduled = True
            self._connection.front.loop.call_soon(self.run)

    def stop(self) -> None:
        """No more: the exchange is over."""
        self.done = True
        if self._watching:
            self._watching = False
            self._body.unwatch(self._changed)

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._body.watch(self._changed)

    def _changed(self) -> None:
        self._watching = False
        self.schedule()

    def _send(self, data: bytes) -> None:
        exchange, connection = self._exchange, self._connection
        if exchange.bytes_out + len(data) > exchange.max_response_bytes:
            exchange.exceed_output()
            return
        if self._mode is Mode.CHUNKED:
            exchange.bytes_out += len(data)
            if len(data) < 4096:
                connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:  # no copy of what is large
                connection.write_all((b"%x\r\n" % len(data), data, b"\r\n"))
            return
        if self._mode is Mode.LENGTH and len(data) > self._remaining:
            # More than the guest itself announced: what was announced goes out, then the end.
            data = data[: self._remaining]
            connection.close_after = True
            exchange.bytes_out += len(data)
            self._remaining = 0
            connection.write(data)
            exchange.end_response()
            return
        self._remaining -= len(data)
        exchange.bytes_out += len(data)
        connection.write(data)

    def _finish(self) -> None:
        if self._mode is Mode.LENGTH and self._remaining:
            self._exchange.break_off()  # less than announced
            return
        if self._mode is Mode.CHUNKED:
            trailers = encode_trailers(clean_trailers(self._body.trailers))
            self._connection.write(b"0\r\n%b\r\n" % trailers)
        self._exchange.end_response()

"""Request bodies on their way to a backend, as fast as the slower side allows.  Not the heads.

Driven by callbacks: a body that has nothing waits for its writer, a transport that is full stops
the body.  An HTTP/1.1 connection has one of these for each body that is not sent with its head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.errors import HostcallError
from edge.http.body import Body
from edge.http.framing import Mode
from edge.http.headers import clean_trailers
from edge.http.response_head import encode_trailers

CHUNK = 64 * 1024
# After this much in one go others have their turn, as in the server.
BYTES_PER_TURN = 1024 * 1024
PIECE_COST = 256  # what a piece costs besides its bytes


class Writer(Protocol):
    """The connection, as its sender sees it."""

    write_paused: bool

    def write_pieces(self, pieces: tuple[bytes, ...]) -> None: ...

    def call_soon(self, callback: Callable[[], None]) -> None: ...

    def body_sent(self, *, whole: bool) -> None:
        """All is with the transport; not `whole`: the body had more than was announced."""
        ...

    def body_broken(self, reason: str) -> None:
        """The body ended early: the backend must see an unfinished message."""
        ...


class BodySender:
    """Moves one body to the transport.  `mode` CLOSE sends the bytes as they are (after a 101)."""

    __slots__ = ("_body", "_mode", "_remaining", "_scheduled", "_watching", "_writer", "done")

    def __init__(self, writer: Writer, body: Body, mode: Mode, length: int) -> None:
        self._writer = writer
        self._body = body
        self._mode = mode
        self._remaining = length
        self._scheduled = False
        self._watching = False
        self.done = False

    def run(self) -> None:
        """Write what is here and may go; then wait for a change on either side."""
        self._scheduled = False
        body, writer, budget = self._body, self._writer, BYTES_PER_TURN
        while not self.done and not writer.write_paused:
            if budget <= 0:
                self.schedule()
                return
            if not body.is_readable:
                if not self._watching:
                    self._watching = True
                    body.watch(self._changed)
                return
            try:
                data = body.read(CHUNK)
            except HostcallError as error:
                self.stop()
                writer.body_broken(str(error))
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
            self._writer.call_soon(self.run)

    def stop(self) -> None:
        """No more: whoever still writes to the body writes into nothing."""
        if self.done:
            return
        self.done = True
        if self._watching:
            self._watching = False
            self._body.unwatch(self._changed)
        self._body.discard()

    def _changed(self) -> None:
        self._watching = False
        self.schedule()

    def _send(self, data: bytes) -> None:
        writer = self._writer
        if self._mode is Mode.CHUNKED:
            writer.write_pieces((b"%x\r\n" % len(data), data, b"\r\n"))
        elif self._mode is Mode.LENGTH:
            over = len(data) > self._remaining
            data = data[: self._remaining]
            self._remaining -= len(data)
            if data:
                writer.write_pieces((data,))
            if over:  # what was announced has gone out, the rest goes nowhere
                self.stop()
                writer.body_sent(whole=False)
        else:
            writer.write_pieces((data,))

    def _finish(self) -> None:
        writer = self._writer
        if self._mode is Mode.LENGTH and self._remaining:
            self.stop()
            writer.body_broken("the request body is shorter than was announced")
            return
        if self._mode is Mode.CHUNKED:
            trailers = encode_trailers(clean_trailers(self._body.trailers))
            writer.write_pieces((b"0\r\n%b\r\n" % trailers,))
        self.done = True
        writer.body_sent(whole=True)

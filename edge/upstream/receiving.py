"""Bodies of responses as they arrive: decoded, bounded, and no faster than their readers.

The part of a connection that knows how a body ends and who waits for it.  Heads, requests and the
use of the connection for the next one are in `edge.upstream.connection`.
"""

from __future__ import annotations

import asyncio
from functools import partial

from edge.errors import Failed, HostcallError, LimitExceeded
from edge.http.addresses import format_address
from edge.http.body import Account, Body
from edge.http.chunked import ChunkedDecoder, LengthDecoder
from edge.http.framing import CHUNKED
from edge.http.message import Headers
from edge.http.refusal import Refused
from edge.http.upstream_head import UNTIL_CLOSE
from edge.model.backend import Backend
from edge.upstream.decompress import Inflater, Sink
from edge.upstream.dialing import Owner
from edge.upstream.fetch import Cause, OnBroken, UpstreamFailed
from edge.upstream.timers import NEVER


class CloseDecoder:
    """A body that ends with the connection."""

    done = False
    remaining = None
    trailers: Headers = []  # noqa: RUF012  # never has any

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of it."""
        return data, b""


class Receiving(asyncio.Protocol):
    """A connection with at most one response body on its way in."""

    __slots__ = (
        "_backend",
        "_body",
        "_deadlines",
        "_decoder",
        "_keep",
        "_loop",
        "_on_broken",
        "_owner",
        "_reading",
        "_rest",
        "_sink",
        "_transport",
        "_tunnel",
        "address",
        "deadline",
        "port",
    )

    def __init__(self, backend: Backend, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._owner = owner
        self._loop = loop
        self._deadlines = owner.deadlines
        self._transport: asyncio.Transport | None = None
        self.address = b""
        self.port = 0
        self.deadline = NEVER
        self._reading = True
        # The body of the present response, until all of it is here.
        self._body: Body | None = None
        self._sink: Sink | None = None
        self._decoder: LengthDecoder | ChunkedDecoder | CloseDecoder | None = None
        self._rest = b""  # read, but too much work for one turn
        self._on_broken: OnBroken | None = None  # who asked for it
        self._keep = False  # the connection may be used again after this response
        self._tunnel = False  # bytes without end, both ways: others watch the time

    def abort(self) -> None:
        """Close at once."""
        raise NotImplementedError

    def _message_over(self) -> None:
        """The response is complete."""
        raise NotImplementedError

    def _begin_body(
        self, body: Body, account: Account, length: int, data: bytes, *, inflate: bool = False
    ) -> None:
        if length == CHUNKED:
            self._decoder = ChunkedDecoder()
        elif length == UNTIL_CLOSE:
            self._decoder = CloseDecoder()
        else:
            self._decoder = LengthDecoder(length)
            if not inflate:
                body.expected = length
        self._body = body
        body.on_discard = self._discarded
        self._sink = body
        if inflate:
            inflater = Inflater(body, account, self._loop.call_soon)
            inflater.on_broken = self._discarded
            inflater.on_invalid = partial(_invalid, self._owner, self._on_broken, self._name())
            self._sink = inflater
        self._sink.on_drain = self._read_on
        if data:
            self._take(data)
        else:
            self._wait_for_bytes()

    def _take(self, data: bytes) -> None:
        """Put bytes of a body where they belong, and look whether it is over or full."""
        decoder, sink, body = self._decoder, self._sink, self._body
        assert decoder is not None
        assert sink is not None
        assert body is not None
        if self._rest:
            self._rest += data  # a turn's work is still to do; reading has been paused
            return
        try:
            piece, rest = decoder.feed(data)
            if piece:
                if body.expected is not None:
                    body.expected -= len(piece)
                sink.write(piece)
        except Refused as error:
            text = f"{self._name()} sent {error.reason}"
            self._fail_body(Failed(text), Cause.HTTP_PROTOCOL_ERROR)
            self.abort()
            return
        except LimitExceeded as error:
            self._fail_body(error)
            self.abort()
            return
        if self._sink is not sink:
            return  # given up meanwhile
        if decoder.done:
            if rest:
                self._keep = False
            self._finish_body()
            self._message_over()
        elif rest:
            self._rest = rest
            self._pause_reading()
            self._loop.call_soon(self._go_on)
        elif sink.is_full:
            self._pause_reading()
        else:
            self._wait_for_bytes()

    def _finish_body(self) -> None:
        """All of the body has been read; a sink that inflates may need a while yet."""
        decoder, sink = self._decoder, self._detach()
        assert decoder is not None
        if sink is not None:
            sink.finish(decoder.trailers)

    def _fail_body(
        self, error: HostcallError, cause: Cause = Cause.HTTP_INCOMPLETE_RESPONSE
    ) -> None:
        told, sink = self._on_broken, self._detach()
        if sink is not None:
            if not isinstance(error, LimitExceeded):  # that one is for the guest's account
                self._owner.broken()
                if told is not None:
                    told(UpstreamFailed(cause, str(error)))
            sink.fail(error)

    def _detach(self) -> Sink | None:
        """The body goes on without the connection; where its bytes went, if there was one."""
        sink, body = self._sink, self._body
        self._sink = self._body = self._decoder = self._on_broken = None
        self._rest = b""
        if body is None or sink is None:
            return None
        sink.on_drain = None
        body.on_discard = None
        if isinstance(sink, Inflater):
            sink.on_broken = None
            body.on_discard = sink.stop
        return sink

    def _discarded(self) -> None:
        """Nobody wants the rest of the body."""
        sink = self._detach()
        if isinstance(sink, Inflater):
            sink.stop()
        if sink is not None:
            self.abort()

    def _go_on(self) -> None:
        """Another turn's worth of what has been read."""
        sink, rest = self._sink, self._rest
        if sink is None or not rest or sink.is_full:
            return
        self._rest = b""
        self._take(rest)

    def _read_on(self) -> None:
        """There is room: first for bytes that were read already, then for more."""
        if self._rest:
            self._loop.call_soon(self._go_on)
        elif self._decoder is not None:
            self._wait_for_bytes()

    def _wait_for_bytes(self) -> None:
        self._resume_reading()
        if not self._tunnel:
            self._expect_within(self._backend.between_bytes_timeout)

    def _name(self) -> str:
        """The backend and who answers for it, for operators."""
        return f"backend {self._backend.name} ({format_address(self.address)}:{self.port})"

    def _expect_within(self, seconds: float) -> None:
        deadlines = self._deadlines
        self.deadline = deadline = deadlines.now() + seconds
        if deadline < deadlines.next:
            deadlines.soon(deadline)

    def _pause_reading(self) -> None:
        self.deadline = NEVER
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()


def _invalid(owner: Owner, told: OnBroken | None, name: str, error: HostcallError) -> None:
    """The bytes came as announced, and are not what their Content-Encoding says."""
    owner.broken()
    if told is not None:
        told(UpstreamFailed(Cause.HTTP_PROTOCOL_ERROR, f"{name}: {error}"))

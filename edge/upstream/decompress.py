"""gzip on its way from a backend to a guest: bounded in, bounded out, whatever the ratio.

Stands between a connection and a body and looks to the connection like a body.  A few KiB can
inflate to gigabytes: output is made in steps, no more than the body takes, and the compressed bytes
that wait meanwhile (one read of the socket) are charged like any others.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Protocol

from edge.errors import Failed, HostcallError, Incomplete, LimitExceeded
from edge.http.body import Account, Body
from edge.http.message import Headers

STEP = 32 * 1024  # of output
STEPS_PER_TURN = 16  # half a MiB, about a millisecond; an empty gzip member is a step as well
_GZIP = 31  # zlib.decompressobj: a gzip header, the largest window


class Sink(Protocol):
    """Where a connection puts what it reads: a Body or an Inflater."""

    on_drain: Callable[[], None] | None

    @property
    def is_full(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def finish(self, trailers: Headers) -> None: ...

    def fail(self, error: HostcallError) -> None: ...


def take_encoding(headers: Headers) -> Headers | None:
    """The headers of the decompressed response, if this one is gzip and nothing else."""
    encodings = [value for name, value in headers if name == b"content-encoding"]
    if len(encodings) != 1 or encodings[0].lower() not in (b"gzip", b"x-gzip"):
        return None
    dropped = (b"content-encoding", b"content-length")
    return [field for field in headers if field[0] not in dropped]


class Inflater:
    """Inflates what is written to it into `body`: any number of gzip members (RFC 1952)."""

    def __init__(
        self, body: Body, account: Account, call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """`account` pays for compressed bytes that wait."""
        self.on_drain: Callable[[], None] | None = None
        self.on_broken: Callable[[], None] | None = None  # what still comes is of no use
        self.on_invalid: Callable[[HostcallError], None] | None = None  # all came; it is no gzip
        self._body = body
        self._account = account
        self._call_soon = call_soon
        self._stream = zlib.decompressobj(_GZIP)
        self._members = 0  # complete ones
        self._inside = False  # a member has begun
        self._input = b""
        self._charged = 0
        self._pending = False  # zlib has output that needs no more input
        self._scheduled = False
        self._ended = False
        self._error: HostcallError | None = None
        self._trailers: Headers = []
        self._stopped = False
        body.on_drain = self._run

    @property
    def is_full(self) -> bool:
        """True while what was written has not all been inflated."""
        return bool(self._input) or self._pending

    def write(self, data: bytes) -> None:
        """Inflate as much as the body takes and keep the rest.  Raises LimitExceeded."""
        if self._stopped or not data:
            return
        self._account.charge(len(data))
        self._charged += len(data)
        self._input = self._input + data if self._input else data
        self._run()

    def finish(self, trailers: Headers) -> None:
        """All input has been written."""
        self._ended = True
        self._trailers = trailers
        self._run()

    def fail(self, error: HostcallError) -> None:
        """The input broke off; what came before it is still given out."""
        self._ended = True
        self._error = error
        self._run()

    def stop(self) -> None:
        """Nobody reads the body any more."""
        self._stopped = True
        self._body.on_drain = None
        self._input = b""
        self._pending = False
        self._settle()

    def _run(self) -> None:
        steps = STEPS_PER_TURN
        try:
            while (self._input or self._pending) and not self._body.is_full:
                if self._scheduled or not steps:
                    self._schedule()
                    return
                steps -= 1
                self._step()
        except zlib.error:
            self._break(Failed("the response is not the gzip that it says it is"))
            return
        except LimitExceeded as error:
            self._break(error)
            return
        self._settle()
        if self._input or self._pending or self._stopped:
            return  # on_drain of the body
        if self._ended:
            self._end()
        elif self.on_drain is not None:
            self.on_drain()

    def _step(self) -> None:
        data = self._input
        if not self._inside:
            if self._members:
                data = data.lstrip(b"\0")  # padding between and after members, as gzip itself does
                if not data:
                    self._input = b""
                    return
                self._stream = zlib.decompressobj(_GZIP)
            self._inside = True
        stream = self._stream
        output = stream.decompress(data, STEP)
        if stream.eof:
            self._input = stream.unused_data
            self._pending = self._inside = False
            self._members += 1
        else:
            self._input = stream.unconsumed_tail
            self._pending = len(output) == STEP
        self._body.write(output)

    def _end(self) -> None:
        error = self._error
        if error is None and self._inside:
            error = Incomplete("the gzip response ends in the middle")
            self._tell_invalid(error)
        body = self._body
        self.stop()
        body.on_discard = None
        if error is not None:
            body.fail(error)
        else:
            body.finish(self._trailers)

    def _tell_invalid(self, error: HostcallError) -> None:
        told, self.on_invalid = self.on_invalid, None
        if told is not None:
            told(error)

    def _break(self, error: HostcallError) -> None:
        if not isinstance(error, LimitExceeded):  # that one is for the guest's account
            self._tell_invalid(error)
        self.stop()
        self._body.fail(error)
        broken, self.on_broken = self.on_broken, None
        if broken is not None:
            broken()

    def _schedule(self) -> None:
        self._settle()
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._resume)

    def _resume(self) -> None:
        self._scheduled = False
        if not self._stopped:
            self._run()

    def _settle(self) -> None:
        """Give back what was charged for input that has been used."""
        used = self._charged - len(self._input)
        if used:
            self._charged -= used
            self._account.release(used)

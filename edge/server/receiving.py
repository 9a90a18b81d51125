"""Request bodies as they arrive: into the body that the guest reads, and no further than it takes.

The part of `Connection` that knows what a body may be.  Heads and answers are not here.
"""

from __future__ import annotations

import socket

from edge.errors import Incomplete, LimitExceeded
from edge.http.body import Body
from edge.http.refusal import BadRequest, Refused
from edge.http.request_head import RawHead
from edge.http.request_view import Peer
from edge.server.exchange import Exchange
from edge.server.flow import AwaitedBody, Intake, TunnelIntake
from edge.server.front import Front, Timeout
from edge.server.timers import NEVER
from edge.server.wire import Wire


class Receiving(Wire):
    """A wire with at most one request in flight, whose body may still be on its way."""

    __slots__ = ("_buffer", "_exchange", "_intake", "_scanned")

    def __init__(
        self, front: Front, peer: Peer, sock: socket.socket | None = None, *, counted: bool = False
    ) -> None:
        """See `Wire`."""
        super().__init__(front, peer, sock, counted=counted)
        self._exchange: Exchange | None = None
        self._intake: Intake | None = None
        # An unfinished head, or what came behind a request in flight: two reads (512 KiB) at most.
        self._buffer = bytearray()
        self._scanned = 0  # bytes of an unfinished head in which its end has been looked for

    def exchange_ended(self) -> None:
        """The response is with the transport."""
        raise NotImplementedError

    def _schedule(self) -> None:
        """Go on with what is in the buffer, in a turn of its own."""
        raise NotImplementedError

    # Request bodies ---------------------------------------------------------------------------

    def _begin_body(self, raw: RawHead, exchange: Exchange, rest: bytes) -> bytes:
        """Set up the body and put into it what is here already; what follows the request."""
        body: Body
        if raw.expects_continue and not rest:
            body = AwaitedBody(self._invite)
        else:
            body = Body(live=True)
        body.on_drain = self._read_on
        exchange.attach_body(body)
        intake = self._intake = Intake(raw.length, body)
        intake.exchange = exchange
        if not rest:
            if not intake.uninvited:  # else its wait begins when it is asked to send
                self._wait(Timeout.BODY, self.front.limits.body_idle)
            return b""
        try:
            rest, _ = intake.take(rest)
        except Refused:
            self._exchange = self._intake = None
            raise
        if exchange.bytes_in > exchange.max_request_body:
            self._exchange = self._intake = None
            raise Refused(BadRequest.BODY_TOO_LARGE, 413, "a body larger than is taken here")
        self._after_body_bytes(intake, rest)
        return b"" if self._intake is not None else rest

    def _take_body(self, data: bytes) -> None:
        intake = self._intake
        assert intake is not None
        if self._buffer:  # a turn's work is still to do: order first
            self._buffer += data
            self._pause_reading()
            return
        exchange = intake.exchange
        try:
            rest, count = intake.take(data)
        except Refused as error:
            self._body_refused(error)
            return
        except LimitExceeded as error:
            self._intake_failed(error)
            return
        if exchange is None:
            intake.spare -= count
            if intake.spare < 0:
                self._close()  # reads on for a little, then is gone
                return
        elif exchange.bytes_in > exchange.max_request_body:
            self._body_refused(
                Refused(BadRequest.BODY_TOO_LARGE, 413, "a body larger than is taken here")
            )
            return
        self._after_body_bytes(intake, rest)
        if self._intake is None and rest and not self._deaf:
            self._buffer += rest
            self._scanned = 0
            self._pause_reading()
            if self._exchange is None:
                self._schedule()

    def tunnel(self, exchange: Exchange, body: Body) -> None:
        """Take all that still arrives as bytes for `body`: the connection speaks HTTP no more."""
        body.on_drain = self._read_on
        self._intake = TunnelIntake(exchange, body)
        self._await_body(self._intake)
        self._read_on()

    def _await_body(self, intake: Intake) -> None:
        """The client may be silent for so long; in a tunnel, both ends together."""
        if type(intake) is not TunnelIntake:
            self._wait(Timeout.BODY, self.front.limits.body_idle)
        elif self.deadline == NEVER:
            self._wait(Timeout.BODY, self.front.limits.tunnel_idle)

    def _after_body_bytes(self, intake: Intake, rest: bytes) -> None:
        if intake.decoder.done:
            self._intake = None
            self.deadline = NEVER
            intake.body.on_drain = None
            self._read_on()
            if intake.exchange is None:
                self.exchange_ended()
        elif rest:  # enough chunks for one turn
            self._buffer += rest
            self._pause_reading()
            self._schedule()
        elif intake.body.is_full:
            if type(intake) is not TunnelIntake:
                self.deadline = NEVER  # the guest is slow, not the client
            self._pause_reading()
        elif intake.exchange is not None:
            self._await_body(intake)

    def _body_refused(self, error: Refused) -> None:
        """The body broke the coding or is too large: the request has already been handed over."""
        self.front.statistics.bad_requests[error.kind] += 1
        exchange = self._exchange
        self._intake_failed(Incomplete(f"the request body is {error.reason}"))
        if exchange is None:
            self._close()
            return
        exchange.refusal = error
        if error.status == 413 and exchange.on_body_limit is not None:
            exchange.on_body_limit()
        elif not exchange.responded:
            outcome = "body_limit" if error.status == 413 else "bad_request"
            exchange.respond_error(error.status, f"The request has {error.reason}.", outcome)

    def _intake_failed(self, error: Incomplete | LimitExceeded) -> None:
        """No more of this body will be read, and nothing can follow it."""
        intake, self._intake = self._intake, None
        self.close_after = True
        self._go_deaf()
        if intake is not None:
            intake.body.on_drain = None
            intake.body.fail(error)

    def _invite(self) -> None:
        """The guest wants the body that the client holds back."""
        exchange = self._exchange
        if self._intake is None or self._deaf:
            return  # it has sent everything already
        if exchange is not None and not exchange.responded:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wait(Timeout.BODY, self.front.limits.body_idle)

    def _read_on(self) -> None:
        """There is room: first for bytes that were read already, then for more."""
        if self._deaf or not self._buffer:
            if not self._reading and self._intake is not None and self._exchange is not None:
                self._await_body(self._intake)
            self._resume_reading()
        elif self._intake is not None:
            self._schedule()

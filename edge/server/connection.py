"""One client connection: heads in, exchanges one after the other, bodies both ways.  No listener.

At most one exchange is in flight; bytes of the next request wait unread (or in one bounded buffer)
until it has ended.  Whatever breaks HTTP is answered once and ends the connection, so that no byte
after it is ever taken for a request.
"""

from __future__ import annotations

import logging
import socket
from time import perf_counter_ns

from edge.errors import Incomplete
from edge.http.addresses import parse_authority
from edge.http.refusal import BadRequest, Refused
from edge.http.request_head import METHODS, NEVER_IN_HEAD, RawHead, read_head, refuse_partial
from edge.http.request_view import Peer, forwarded_scheme
from edge.server.exchange import Exchange
from edge.server.flow import TunnelIntake
from edge.server.front import BadRequestInfo, Front, Timeout
from edge.server.opinion import SecondOpinion
from edge.server.pages import refusal_message
from edge.server.receiving import Receiving
from edge.server.timers import NEVER, TICK

log = logging.getLogger(__name__)

_ALLOW = b", ".join(sorted(METHODS))
_FAULT = "The server made a mistake."
_KEEP_ALIVE = Timeout.KEEP_ALIVE
MAX_SEEN = 2048  # bytes of a head that a connection keeps, to know it again


class Connection(Receiving):
    """The protocol object of one accepted socket."""

    __slots__ = (
        "_advancing",
        "_minor",
        "_opinion",
        "_scheduled",
        "_seen",
        "_seen_head",
        "_served",
        "_started_ns",
    )

    def __init__(
        self, front: Front, peer: Peer, sock: socket.socket | None = None, *, counted: bool = False
    ) -> None:
        """See `Wire`."""
        super().__init__(front, peer, sock, counted=counted)
        self._started_ns = 0  # when the first byte of that head came
        self._minor = 1
        self._opinion = SecondOpinion()
        self._advancing = False
        self._scheduled = False
        self._served = False  # at least one request has been
        self._seen_head = b""  # the last head, if one like it can be taken without reading it again
        self._seen: RawHead | None = None

    # asyncio.Protocol -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if (
            data == self._seen_head
            and self._exchange is None
            and self._intake is None
            and not self._buffer
            and not self.write_paused
            and not self._deaf
        ):
            self._repeat()
        elif self._deaf:
            self._ignore(len(data), busy=self._exchange is not None)
        elif self._intake is not None:
            self._take_body(data)
        elif self._exchange is None and not self._buffer and not self.write_paused:
            self._advance(data)
        else:
            self._set_aside(data)

    def eof_received(self) -> bool:
        """The client has closed; like nginx we take that for leaving, answered or not."""
        self.send_held()
        if type(self._intake) is TunnelIntake:
            self._leave_tunnel()
        elif self._exchange is not None:
            self.close_after = True
            self._client_left()
            self.abort()
        return False  # the transport sends what it still holds, then closes

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._exchange is not None:
            self._exchange.resume()
        elif self._buffer:
            self._schedule()

    # For the exchange and its flow ------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """True while the request's body is not all here."""
        return self._intake is not None

    def tail(self) -> bytes:
        """The end of a response head: Date, Connection, empty line."""
        if self.close_after:
            return self.front.sweeper.tail_close
        if self._minor == 0:
            return b"connection: keep-alive\r\n" + self.front.sweeper.tail_keep
        return self.front.sweeper.tail_keep

    def settle_unread(self, *, complete: bool) -> None:
        """Before a head goes out: will the connection be of use after it?  Then say so in it."""
        intake = self._intake
        if intake is None:
            return
        remaining = intake.decoder.remaining
        large = remaining is not None and remaining > self.front.limits.drain_bytes
        if intake.uninvited or (complete and large):
            self.close_after = True

    def exchange_ended(self) -> None:
        """The response is with the transport: read the rest of the request away, or go on."""
        self._exchange = None
        intake = self._intake
        limits = self.front.limits
        if intake is None:
            if self.close_after:
                self._close()
                return
            # `_wait`, spelt out: every response ends here.
            self._waiting_for = _KEEP_ALIVE
            self.deadline = self.front.sweeper.now + limits.keep_alive + TICK
            if self._buffer and not self._advancing:
                self._schedule()
            return
        remaining = intake.decoder.remaining
        if (
            self.close_after
            or intake.uninvited
            or (remaining is not None and remaining > limits.drain_bytes)
        ):
            self._close()
            return
        intake.exchange = None
        intake.spare = limits.drain_bytes
        self._wait(Timeout.BODY, limits.drain_seconds)
        self._read_on()

    def abort(self) -> None:
        self._exchange = None
        super().abort()

    def begin_drain(self) -> None:
        """Close when idle; otherwise the response in flight is the last."""
        self.close_after = True
        if self._exchange is None and not self._buffer and not self._deaf:
            if self._served:
                self._close()
            else:  # accepted a moment ago: its request is on the way
                grace = self.front.sweeper.after(self.front.limits.linger_seconds)
                self.deadline = min(self.deadline, grace)

    # Heads ------------------------------------------------------------------------------------

    def _advance(self, data: bytes) -> None:
        """Begin the requests in `data`, one after the other, until one is in flight."""
        self._advancing = True
        try:
            if self._proxy_pending:
                size = self._read_proxy_header(data)
                if not size:
                    if not self._deaf:
                        self._buffer += data
                    return
                data = data[size:]
            begun = 0
            while data and not self._deaf:
                if begun >= self.front.limits.pipeline_depth:
                    self._set_aside(data)
                    self._schedule()
                    return
                begun += 1
                if (
                    data[0] == 0x0D
                    and self._served
                    and data[:2] == b"\r\n"
                    and data[:4] != b"\r\n\r\n"
                ):
                    data = data[2:]  # RFC 9112 section 2.2: old clients end a body with one
                    continue
                end = data.find(b"\r\n\r\n") + 4
                if end < 4:
                    self._keep_partial(data)
                    return
                if end == len(data):
                    self._begin(data, b"")
                    return
                data = self._begin(data[:end], data[end:])
                if data and (self._exchange is not None or self._intake is not None):
                    self._set_aside(data)
                    return
                if data and self.write_paused:  # answers pile up unread: no more of them
                    self._set_aside(data)
                    return
        except Refused as error:
            self._refuse(error, data)
        finally:
            self._advancing = False

    def _begin(self, head: bytes, rest: bytes) -> bytes:
        """Read one complete head and hand its exchange over; what follows the request."""
        front = self.front
        limits = front.limits
        if len(head) > limits.max_head:
            refuse_partial(head, max_head=limits.max_head, max_target=limits.max_target)
        peer = self._peer
        raw = read_head(
            head, max_target=limits.max_target, max_fields=limits.max_fields, scheme=peer.scheme
        )
        self._opinion.check(head, raw)
        scheme = peer.scheme
        if peer.trusted:
            scheme = forwarded_scheme(raw, peer)
            if scheme != peer.scheme:
                raw.authority = parse_authority(raw.authority.text, scheme)
        elif raw.scheme and raw.scheme != scheme:
            # RFC 9110 section 7.4: an https resource only over a secured connection.
            raise Refused(BadRequest.SCHEME, 421, "a target of another scheme than the connection")
        if not raw.keep_alive or raw.upgrade:
            self.close_after = True
        elif (
            not rest
            and not raw.length
            and len(head) <= MAX_SEEN
            and not peer.trusted
            and raw.target != b"*"
        ):
            self._seen_head, self._seen = head, raw
        self._minor = raw.minor
        exchange = Exchange(self, raw, peer, scheme)
        self._exchange = exchange
        self._served = True
        self._started_ns = 0
        self.deadline = NEVER
        if raw.length:
            if raw.length > limits.max_request_body:
                self._exchange = None
                raise Refused(BadRequest.BODY_TOO_LARGE, 413, "a body larger than is taken here")
            rest = self._begin_body(raw, exchange, rest)
        if raw.target == b"*":  # for the server as a whole (RFC 9110 section 9.3.7): no service's
            exchange.reply(204, "text/plain", b"", [(b"allow", _ALLOW)])
            return rest
        self._handle(exchange)
        if raw.upgrade:
            return b""  # bytes after an upgrade are in no protocol that we agreed to
        return rest

    def _repeat(self) -> None:
        """The same head as before, byte for byte, and nothing else: it means the same.

        Clients that poll, health checks and other servers send such runs; reading a head anew
        costs 4 us, comparing it 0.1.
        """
        raw = self._seen
        assert raw is not None
        self._minor = raw.minor
        exchange = self._exchange = Exchange(self, raw, self._peer, self._peer.scheme)
        self.deadline = NEVER
        self._advancing = True  # what follows is begun by the loop, not inside this
        try:
            self._handle(exchange)
        finally:
            self._advancing = False

    def _handle(self, exchange: Exchange) -> None:
        front = self.front
        front.statistics.requests += 1
        try:
            front.handler(exchange)
        except Exception:
            front.statistics.faults += 1
            log.exception("handler failed", extra={"request_id": exchange.request_id})
            if not exchange.ended:
                exchange.respond_error(500, _FAULT, "fault")

    def _keep_partial(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it already cannot become one."""
        if not self._buffer:
            self._started_ns = perf_counter_ns()
            self._wait(Timeout.HEAD, self.front.limits.head_timeout)
            self._scanned = 0
            self._buffer += data
            self._resume_reading()
        limits = self.front.limits
        if NEVER_IN_HEAD.search(self._buffer, max(0, self._scanned - 1)):
            raise Refused(BadRequest.SYNTAX, 400, "a bare CR or LF, or NUL, in the head")
        refuse_partial(self._buffer, max_head=limits.max_head, max_target=limits.max_target)
        self._scanned = max(0, len(self._buffer) - 3)

    def _set_aside(self, data: bytes) -> None:
        """More bytes of a head; or bytes behind a request in flight, and then no more of them."""
        if self._exchange is None and not self._scheduled and not self._advancing and self._buffer:
            self._buffer += data
            if self.write_paused:
                self._pause_reading()
            elif self._proxy_pending or self._buffer.find(b"\r\n\r\n", self._scanned) >= 0:
                self._continue()
            else:
                try:
                    self._keep_partial(b"")
                except Refused as error:
                    self._refuse(error, bytes(self._buffer))
            return
        if not self._buffer:
            self._scanned = 0
        self._buffer += data
        self._pause_reading()  # so the buffer holds two reads (512 KiB) at the very most

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.front.loop.call_soon(self._continue)

    def _continue(self) -> None:
        """Go on with what was set aside, unless it must wait for something that calls us again."""
        self._scheduled = False
        intake = self._intake
        if self._deaf or self._transport is None or not self._buffer:
            return
        if intake is not None:
            if intake.exchange is not None and intake.body.is_full:
                return  # on_drain
        elif self.write_paused or self._exchange is not None:
            return  # resume_writing, exchange_ended
        data = bytes(self._buffer)
        self._buffer.clear()
        if intake is not None:
            self._take_body(data)
        else:
            self._advance(data)
        if not self._buffer and (self._intake is None or not self._intake.body.is_full):
            self._read_on()

    # Endings ----------------------------------------------------------------------------------

    def _refuse(self, error: Refused, data: bytes) -> None:
        """Answer a request that never became an exchange, and end the connection."""
        front = self.front
        front.statistics.bad_requests[error.kind] += 1
        self._exchange = None
        self.close_after = True
        to_head = data[:5] == b"HEAD "
        self.write(refusal_message(error, front.sweeper.tail_close, to_head=to_head))
        if front.on_bad_request is not None:
            front.on_bad_request(
                BadRequestInfo(
                    error.kind,
                    error.status,
                    error.reason,
                    self._peer.address,
                    self._started_ns or perf_counter_ns(),
                    data.partition(b"\r\n")[0][:256],
                )
            )
        self._close(unread=True)

    def _close(self, *, unread: bool = False) -> None:
        left = self._intake is not None or bool(self._buffer) or self._deaf
        super()._close(unread=unread or left)

    def _go_deaf(self) -> None:
        super()._go_deaf()
        self._intake = None
        self._buffer.clear()

    def _leave_tunnel(self) -> None:
        """One end has closed, or both are silent: no fault of anybody's."""
        exchange, self._exchange = self._exchange, None
        self._go_deaf()
        if exchange is not None:
            exchange.leave()
        self._close()

    def _client_left(self) -> None:
        exchange, self._exchange = self._exchange, None
        self._go_deaf()
        if exchange is not None and not exchange.ended:
            self.front.statistics.clients_gone += 1
            exchange.leave()

    def _timed_out(self) -> None:
        transport = self._transport
        assert transport is not None
        timeouts = self.front.statistics.timeouts
        if self._deaf and self._exchange is None:
            transport.close()  # has lingered long enough
        elif type(self._intake) is TunnelIntake and self._intake.has_moved():
            self._await_body(self._intake)
        elif self._intake is not None:
            timeouts[Timeout.BODY] += 1
            if type(self._intake) is TunnelIntake:
                self._leave_tunnel()
            elif self._exchange is None:
                self._close()
            else:
                self._intake_failed(Incomplete("the client stopped sending the request body"))
        elif self._buffer:
            timeouts[Timeout.HEAD] += 1
            error = Refused(BadRequest.TIMEOUT, 408, "a head that did not arrive in time")
            self._refuse(error, bytes(self._buffer))
        elif self.wrote and transport.get_write_buffer_size():
            self._wait(Timeout.KEEP_ALIVE, self.front.limits.keep_alive)  # still reading an answer
        else:
            timeouts[self._waiting_for] += 1
            self._close()

"""One HTTP/1.1 connection to a backend: a request out, a response in, then perhaps the next.

Driven by callbacks alone: with an idle connection at hand, a request is one `write`, and its
response one `data_received`.  What breaks HTTP ends the connection, and whenever it is not certain
that a response is over and nothing follows it, the connection is not used again: bytes of one
response must never be taken for those of another.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from edge.errors import Incomplete, LimitExceeded
from edge.http.body import Body
from edge.http.framing import Mode
from edge.http.message import Headers
from edge.http.upstream_head import (
    MAX_HEAD,
    UNTIL_CLOSE,
    BadResponse,
    Fault,
    RawResponse,
    read_response,
    refuse_partial,
)
from edge.model.backend import Backend
from edge.upstream.decompress import take_encoding
from edge.upstream.dialing import Owner
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamResponse
from edge.upstream.pending import Fetch
from edge.upstream.receiving import CloseDecoder, Receiving
from edge.upstream.request_head import encode_request
from edge.upstream.sending import BodySender
from edge.upstream.timers import NEVER

# A body up to this size goes out with its head and is kept until the response begins, to be sent
# again should the connection turn out to have been closed.
WHOLE_BODY = 16 * 1024
MAX_HINTS = 8
# Far above what says every few seconds that it is still at work (102); reading as many takes 2 ms.
MAX_INTERIM = 256
# Of the idle time that a server promises (Keep-Alive: timeout=N) this much is relied on: a request
# must arrive before the promise ends.
TRUSTED_IDLE = 0.8
LAST_WORDS = 64 * 1024  # read at a time when a connection has broken

_CAUSES = {
    Fault.SYNTAX: Cause.HTTP_PROTOCOL_ERROR,
    Fault.STATUS: Cause.HTTP_RESPONSE_STATUS_INVALID,
    Fault.TOO_LARGE: Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE,
}


class Http1Connection(Receiving):
    """The protocol object of one connection; a `Link`."""

    __slots__ = (
        "_begun",
        "_born",
        "_buffer",
        "_fetch",
        "_free",
        "_hints",
        "_interim_bytes",
        "_interim_heads",
        "_promised",
        "_scanned",
        "_sender",
        "_spoilt",
        "_uses",
        "pooled",
        "write_paused",
    )

    def __init__(self, backend: Backend, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(backend, owner, loop)
        self._born = 0.0
        self._uses = 0
        self.pooled = False
        self._free = False  # nothing is in flight, and there may be something
        self.write_paused = False
        # The request in flight, until the head of its response is here.
        self._fetch: Fetch | None = None
        self._sender: BodySender | None = None
        self._spoilt = False  # more was to be sent than had been announced
        self._buffer = b""  # an unfinished head
        self._scanned = 0  # bytes of it in which its end has been looked for
        self._begun = False  # the time that a head which has begun gets was given
        self._hints: list[tuple[int, Headers]] | None = None
        self._interim_heads = self._interim_bytes = 0
        self._promised: int | None = None  # seconds that the server says it waits for a request

    # asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # loops need not derive from it
        self._born = self._deadlines.now()
        self._free = True
        self._deadlines.add(self)

    def data_received(self, data: bytes) -> None:
        if self._fetch is not None:
            self._read_heads(data)
        elif self._decoder is not None:
            self._take(data)
        else:  # nobody asked: whatever it is, the next response might begin in the middle of it
            self.abort()

    def eof_received(self) -> bool:
        self._free = False
        if isinstance(self._decoder, CloseDecoder):
            self._finish_body()
        return False  # the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_last_words()
        self._transport = None
        self._free = False
        self._deadlines.remove(self)
        self._owner.lost(self)
        self._stop_sending()
        how = "closed" if exc is None else f"broke ({type(exc).__name__})"
        fetch, self._fetch = self._fetch, None
        if fetch is None:
            self._fail_body(Incomplete(f"the connection to {self._name()} {how} within a response"))
        elif self._buffer:
            fetch.fail(
                self._failed(Cause.HTTP_INCOMPLETE_RESPONSE, f"the connection {how} within a head")
            )
        else:
            fetch.fail(
                self._failed(
                    Cause.CONNECTION_TERMINATED, f"the connection {how} before any response"
                ),
                stale=self._uses > 1 and not self._interim_bytes,
            )

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._sender is not None and self._fetch is not None:
            self._expect_within(self._backend.first_byte_timeout)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._sender is not None:
            if self._fetch is not None:
                self.deadline = NEVER  # what is missing now is for the guest to write
            self._sender.run()

    # Link -------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        transport = self._transport
        return int(self._free and transport is not None and not transport.is_closing())

    @property
    def idle(self) -> bool:
        return self._free

    def carry(self, fetch: Fetch) -> None:
        transport = self._transport
        assert transport is not None
        request = fetch.request
        body = request.body
        self._free = False
        self._uses += 1
        self._backend = request.backend
        self._hints = None
        self._interim_heads = self._interim_bytes = 0
        self._begun = False
        if request.upgrade:
            known: int | None = 0
        else:
            if fetch.whole is None:
                fetch.whole = body.take_whole(0 if request.manual_framing else WHOLE_BODY)
            if fetch.whole is not None:
                known = len(fetch.whole)
            else:
                known = None if body.trailers else body.known_length
        try:
            outgoing = encode_request(request, known)
        except UpstreamFailed as error:
            self._rest_now()
            fetch.fail(error)
            return
        self._fetch = fetch
        fetch.carrier = self
        whole = fetch.whole
        if outgoing.mode is Mode.NONE or (whole and outgoing.mode is Mode.LENGTH):
            if whole is None and not request.upgrade:
                body.discard()  # announced as empty by its guest: what is in it goes nowhere
            transport.write(outgoing.head + whole if whole else outgoing.head)
            deadlines = self._deadlines
            self.deadline = deadline = deadlines.now() + self._backend.first_byte_timeout
            if deadline < deadlines.next:
                deadlines.soon(deadline)
            return
        transport.write(outgoing.head)
        self.deadline = NEVER
        self._sender = BodySender(self, body, outgoing.mode, outgoing.length)
        self._sender.run()

    def drop(self, fetch: Fetch) -> None:
        if self._fetch is fetch:
            self._fetch = None
            self.abort()

    def close(self) -> None:
        self._free = False
        self.deadline = NEVER
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._free = False
        self.deadline = NEVER
        self._stop_sending()
        if self._transport is not None:
            self._transport.abort()

    def on_due(self) -> None:
        """A deadline has passed: of an idle connection, of a head, or within a body."""
        if self._fetch is not None:
            seconds = self._backend.first_byte_timeout
            what = "took no more of the request" if self._sender else "sent no response head"
            self._refuse(Cause.HTTP_RESPONSE_TIMEOUT, f"{what} within {seconds:g} s")
        elif self._decoder is not None:
            seconds = self._backend.between_bytes_timeout
            text = f"{self._name()} sent no byte of a body for {seconds:g} s"
            self._fail_body(Incomplete(text), Cause.HTTP_RESPONSE_TIMEOUT)
            self.abort()
        else:
            self.close()

    # Heads ------------------------------------------------------------------------------------

    def _read_last_words(self) -> None:
        """Take a response that came before the connection broke under what we were sending.

        A server that will not have an upload answers and closes; the rest of the upload resets the
        connection, and our transport ends with the write that failed, before it has read.  The
        kernel still has what arrived (Linux keeps it), and the socket closes after this call.
        """
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        fd = transport.get_extra_info("socket").fileno()
        with suppress(OSError):  # nothing there, or the reset itself
            while self._fetch is not None or (
                self._sink is not None and not self._sink.is_full and not self._rest
            ):
                data = os.read(fd, LAST_WORDS)
                if not data:
                    return
                self.data_received(data)

    def _read_heads(self, data: bytes) -> None:
        """Take interim responses and the head of the final one."""
        fetch = self._fetch
        assert fetch is not None
        start = 0
        if self._buffer:
            data = self._buffer + data
            start, self._buffer = self._scanned, b""
        to_head = fetch.request.method == b"HEAD"
        begin = 0  # of the next head: cutting off each one before it would copy what follows again
        while True:
            end = data.find(b"\r\n\r\n", start) + 4
            if end < 4:
                break
            try:
                raw = read_response(
                    data if not begin and end == len(data) else data[begin:end], to_head=to_head
                )
            except BadResponse as error:
                self._refuse(_CAUSES[error.fault], f"it sent {error}")
                return
            if raw.status >= 200:
                self._begin_response(fetch, raw, data[end:])
                return
            if raw.status == 101:
                self._switch(fetch, raw, data[end:])
                return
            self._interim_heads += 1
            self._interim_bytes += end - begin
            if self._interim_bytes > MAX_HEAD or self._interim_heads > MAX_INTERIM:
                self._refuse(_CAUSES[Fault.TOO_LARGE], "it sent too many interim responses")
                return
            start = begin = end
            self._keep_hint(raw)
        if begin < len(data):
            self._keep_partial(data[begin:], start - begin)

    def _keep_hint(self, raw: RawResponse) -> None:
        if raw.status == 100:
            return  # nobody waits for it
        hints = self._hints
        if hints is None:
            hints = self._hints = []
        if len(hints) < MAX_HINTS:
            hints.append((raw.status, raw.headers))

    def _keep_partial(self, data: bytes, scanned: int) -> None:
        """Keep the beginning of a head, unless it already cannot become one."""
        try:
            refuse_partial(data, scanned)
        except BadResponse as error:
            self._refuse(_CAUSES[error.fault], f"it sent {error}")
            return
        if not self._begun:
            # The first byte is here: time for the rest, once.  A head that drips has no more, nor
            # has one of many that begin behind an interim response.
            self._begun = True
            until = self._deadlines.now() + self._backend.between_bytes_timeout
            if until > self.deadline:
                self.deadline = until
        self._buffer = data
        self._scanned = max(0, len(data) - 3)

    def _begin_response(self, fetch: Fetch, raw: RawResponse, data: bytes) -> None:
        """The final head is here, and perhaps some or all of the body."""
        self._fetch = None
        request = fetch.request
        length, headers = raw.length, raw.headers
        self._keep = raw.keep_alive
        self._promised = raw.idle_timeout
        gunzipped = take_encoding(headers) if request.auto_decompress and length else None
        if gunzipped is None and length == len(data):
            body = Body(request.account)
            if length:
                try:
                    body.write(data)
                except LimitExceeded as error:
                    body = Body(request.account, live=True)
                    body.fail(error)
            self._message_over()
        else:
            body = Body(request.account, live=True)
            if gunzipped is not None:
                headers = gunzipped
            self._on_broken = request.on_broken
            self._begin_body(body, request.account, length, data, inflate=gunzipped is not None)
        version = 10 + raw.minor
        hints = self._hints or []
        self._hints = None
        fetch.respond(
            UpstreamResponse(raw.status, headers, body, version, self.address, self.port, hints)
        )

    def _switch(self, fetch: Fetch, raw: RawResponse, data: bytes) -> None:
        """101: from here on bytes go both ways, and whoever has them watches the time."""
        request = fetch.request
        if not request.upgrade:
            self._refuse(Cause.HTTP_PROTOCOL_ERROR, "it switched protocols without being asked")
            return
        self._fetch = None
        self._keep = False
        self._tunnel = True
        self.deadline = NEVER
        body = Body(request.account, live=True)
        self._on_broken = request.on_broken
        self._begin_body(body, request.account, UNTIL_CLOSE, data)
        if self._transport is not None and not self._transport.is_closing():
            self._sender = BodySender(self, request.body, Mode.CLOSE, 0)
            self._sender.schedule()
        fetch.respond(
            UpstreamResponse(101, raw.headers, body, 11, self.address, self.port, self._hints or [])
        )

    def _message_over(self) -> None:
        """The response is complete: rest, or close."""
        if self._sender is not None or self._spoilt:
            self.abort()  # the backend answered early and must not wait for the rest
        elif not self._keep:
            self.close()
        else:
            self._resume_reading()
            self._rest_now()

    def _rest_now(self) -> None:
        """Nothing is in flight: wait for the next request, unless this connection has had its."""
        backend, now = self._backend, self._deadlines.now()
        keep = backend.keep_alive
        if self._promised is not None:
            keep = min(keep, self._promised * TRUSTED_IDLE)
        deadline = now + keep
        if backend.max_lifetime:
            deadline = min(deadline, self._born + backend.max_lifetime)
        if deadline <= now or (backend.max_use and self._uses >= backend.max_use):
            self.close()
            return
        self.deadline = deadline
        if deadline < self._deadlines.next:
            self._deadlines.soon(deadline)
        self._free = True
        self._owner.freed(self)

    # For the sender ---------------------------------------------------------------------------

    def write_pieces(self, pieces: tuple[bytes, ...]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if len(pieces) == 1:
            transport.write(pieces[0])
        elif len(pieces[1]) < 4096:
            transport.write(b"".join(pieces))
        else:  # no copy of what is large
            transport.writelines(pieces)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    def body_sent(self, *, whole: bool) -> None:
        self._sender = None
        self._spoilt = not whole
        transport = self._transport
        if self._tunnel:
            if transport is not None and not transport.is_closing():
                # TLS has no half of an end: there the first end is that of both.
                if transport.can_write_eof():
                    transport.write_eof()
                else:
                    transport.close()
        elif self._fetch is not None:
            self._expect_within(self._backend.first_byte_timeout)

    def body_broken(self, reason: str) -> None:
        self._sender = None
        text = f"the request body broke off: {reason}"
        if self._fetch is not None:
            self._refuse(Cause.CONNECTION_TERMINATED, text)
        else:
            self._fail_body(Incomplete(f"{self._name()}: {text}"), Cause.CONNECTION_TERMINATED)
            self.abort()

    # Common -----------------------------------------------------------------------------------

    def _stop_sending(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.stop()

    def _refuse(self, cause: Cause, text: str) -> None:
        """No response: the fetch fails, and the connection is of no more use."""
        fetch, self._fetch = self._fetch, None
        self._buffer = b""
        self.abort()
        if fetch is not None:
            fetch.fail(self._failed(cause, text))

    def _failed(self, cause: Cause, text: str) -> UpstreamFailed:
        return UpstreamFailed(cause, f"{self._name()}: {text}")

"""One request and its response on an HTTP/2 connection: bodies both ways, and their deadlines.

Flow control is the bound on what waits here: the peer gets its window back for bytes that a reader
has room for, and never for others.  Frames and the connection are in `edge.upstream.h2`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from edge.errors import HostcallError, Incomplete, LimitExceeded, UpstreamError
from edge.http.body import Body
from edge.http.framing import Mode
from edge.http.headers import HOP_BY_HOP, clean_trailers, is_token, is_value
from edge.http.message import Headers
from edge.http.upstream_head import MAX_FIELDS, MAX_HEAD
from edge.upstream.decompress import Inflater, Sink, take_encoding
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamResponse
from edge.upstream.h2_frames import CANCEL, REFUSED_STREAM, RST_STREAM
from edge.upstream.pending import Fetch
from edge.upstream.request_head import Outgoing
from edge.upstream.timers import NEVER

PIECE = 16_384  # of a request body at a time: the frame size that every peer takes
MAX_HINTS = 8
_status = re.compile(rb"[1-5][0-9][0-9]")
_digits = re.compile(rb"[0-9]{1,19}")


class BadHead(UpstreamError):
    """A response head that cannot be passed on."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Frames(Protocol):
    """The connection, as one of its streams sees it."""

    address: bytes
    port: int

    def now(self) -> float: ...

    def due(self, deadline: float) -> None:
        """A stream's deadline was set; look at it in time."""
        ...

    def window(self, stream_id: int) -> int:
        """How many bytes of body may be sent now."""
        ...

    def send_data(self, stream_id: int, data: bytes) -> None: ...

    def send_end(self, stream_id: int, trailers: Headers) -> None: ...

    def give_back(self, stream_id: int, count: int) -> None:
        """Let the peer send so many bytes more."""
        ...

    def over(self, stream: Stream, code: int | None) -> None:
        """The stream has ended; `code`: by a reset that is still to be sent."""
        ...

    def wants_to_send(self, stream: Stream) -> None: ...

    def later(self, callback: Callable[[], None]) -> object:
        """The loop's `call_soon`."""
        ...

    def silent_since(self, instant: float) -> None:
        """A stream waited in vain from `instant` on."""
        ...

    def name(self) -> str: ...


class Stream:
    """A fetch being carried; `Timed`."""

    def __init__(self, frames: Frames, number: int, fetch: Fetch, outgoing: Outgoing) -> None:
        self.number = number
        self.fetch: Fetch | None = fetch  # until the head of the response is here
        self.deadline = NEVER
        self.started = frames.now()
        self.queued = False  # among those that want to send
        self.closed = False
        self._frames = frames
        self._request = fetch.request
        self._whole: bytes | None = fetch.whole
        self._mode = outgoing.mode
        self._remaining = outgoing.length
        self._sent = outgoing.mode is Mode.NONE  # all of the request
        self._watching = False
        self._hints: list[tuple[int, Headers]] = []
        self._interim = 0
        self._body: Body | None = None
        self._sink: Sink | None = None
        self._unacknowledged = 0

    # The request ------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head has been sent."""
        if self._sent:
            self._expect(self._request.backend.first_byte_timeout)
        else:
            self._frames.wants_to_send(self)

    @property
    def sending(self) -> bool:
        """There may be more of the request to send."""
        return not self._sent and not self.closed

    @property
    def untouched(self) -> bool:
        """Nothing has come in answer."""
        return self.fetch is not None and not self._interim

    def send_piece(self) -> int:
        """Send what may go now, one frame at most; how much.  At 0 somebody else must move."""
        if not self.sending:
            return 0
        body = self._request.body
        if self._whole is None and not body.is_readable:
            if self.fetch is not None:
                self.deadline = NEVER  # what is missing is for the guest to write
            self._watch(body)
            return 0
        window = min(self._frames.window(self.number), PIECE)
        if window <= 0 and not self._at_end:
            self.held_up()
            return 0
        try:
            data = self._next_piece(body, window)
        except HostcallError as error:
            self._break_off(f"the request body broke off: {error}")
            return 0
        if data:
            self._frames.send_data(self.number, data)
        if self._at_end:
            self._finish_request()
        return len(data)

    @property
    def _at_end(self) -> bool:
        """Nothing of the body is left to send, but its end."""
        if self._whole is not None:
            return not self._whole
        if self._mode is Mode.LENGTH and not self._remaining:
            return True  # what was announced has gone out
        return self._request.body.at_eof

    def held_up(self) -> None:
        """There is something to send, and the peer takes nothing."""
        if self.fetch is not None and self.deadline == NEVER:
            self._expect(self._request.backend.first_byte_timeout)

    def _next_piece(self, body: Body, window: int) -> bytes:
        if self._whole is not None:
            data, self._whole = self._whole[:window], self._whole[window:]
            return data
        data = body.read(window) if window > 0 else b""
        if self._mode is Mode.LENGTH:
            data = data[: self._remaining]
            self._remaining -= len(data)
        if data and self.fetch is not None:
            self.deadline = NEVER  # it takes bytes
        return data

    def _finish_request(self) -> None:
        body = self._request.body
        if self._whole is None and self._mode is Mode.LENGTH and self._remaining:
            self._break_off("the request body is shorter than was announced")
            return
        self._sent = True
        if self._whole is None and not body.at_eof:
            body.discard()  # more than was announced: it goes nowhere
        trailers = clean_trailers(body.trailers) if self._mode is Mode.CHUNKED else []
        self._frames.send_end(self.number, trailers)
        if self.fetch is not None:
            self._expect(self._request.backend.first_byte_timeout)

    def _watch(self, body: Body) -> None:
        if not self._watching:
            self._watching = True
            body.watch(self._body_changed)

    def _body_changed(self) -> None:
        self._watching = False
        if not self.closed:
            self._frames.wants_to_send(self)

    def _break_off(self, reason: str) -> None:
        self.fail(Cause.CONNECTION_TERMINATED, reason, code=CANCEL)

    # The response -----------------------------------------------------------------------------

    def interim(self, headers: Headers) -> None:
        """1xx.  100 is what nobody waits for."""
        status, fields = self._read_head(headers)
        self._interim += sum(len(name) + len(value) + 32 for name, value in headers)
        if self._interim > MAX_HEAD:
            raise BadHead(
                Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE, "too many interim responses"
            )
        if status != 100 and len(self._hints) < MAX_HINTS:
            self._hints.append((status, fields))

    def respond(self, headers: Headers) -> None:
        """The final head."""
        fetch, request = self.fetch, self._request
        assert fetch is not None
        status, fields = self._read_head(headers)
        if status < 200:
            raise BadHead(
                Cause.HTTP_RESPONSE_STATUS_INVALID, f"status {status} as a final response"
            )
        self.fetch = None
        body = self._body = Body(request.account, live=True)
        self._sink = body
        bodiless = request.method == b"HEAD" or status in (204, 304)
        gunzipped = take_encoding(fields) if request.auto_decompress and not bodiless else None
        body.on_discard = self._discarded
        if gunzipped is not None:
            fields = gunzipped
            inflater = Inflater(body, request.account, self._frames.later)
            inflater.on_broken = self._discarded
            self._sink = inflater
        elif not bodiless:
            body.expected = _length(fields)
        self._sink.on_drain = self._drained
        self._expect(request.backend.between_bytes_timeout)
        frames = self._frames
        fetch.respond(
            UpstreamResponse(status, fields, body, 20, frames.address, frames.port, self._hints)
        )

    def data(self, data: bytes, flow: int) -> None:
        """Bytes of the body; `flow` counts for the window, with padding."""
        sink, body = self._sink, self._body
        self._unacknowledged += flow
        if sink is None or body is None:
            self._give_back()
            return
        if data:
            if body.expected is not None:
                body.expected = max(0, body.expected - len(data))
            try:
                sink.write(data)
            except LimitExceeded as error:
                self._fail_body(error)
                self._end(CANCEL)
                return
        if self.closed:
            return  # given up meanwhile
        if sink.is_full:
            self.deadline = NEVER
        else:
            self._give_back()
            self._expect(self._request.backend.between_bytes_timeout)

    def end(self, trailers: Headers) -> None:
        """The response is complete.  A request that is not has no one left to read it."""
        if self.closed:
            return
        if self.fetch is not None:
            self.fail(Cause.HTTP_INCOMPLETE_RESPONSE, "it ended a response without a head")
            return
        sink = self._detach()
        if sink is not None:
            sink.finish(clean_trailers(trailers))
        self._end(None if self._sent else CANCEL)

    def reset(self, code: int) -> None:
        """The peer gave the stream up."""
        text = f"it reset the stream with error {code}"
        self.fail(
            Cause.H2_ERROR,
            text,
            h2_error=(RST_STREAM, code),
            unprocessed=code == REFUSED_STREAM,
            code=None,
        )

    def fail(
        self,
        cause: Cause,
        text: str,
        *,
        h2_error: tuple[int, int] | None = None,
        tls_alert: int | None = None,
        stale: bool = False,
        unprocessed: bool = False,
        code: int | None = CANCEL,
    ) -> None:
        """No response, or no more of it.  `code`: what the stream is reset with, if it is."""
        if self.closed:
            return
        full = f"{self._frames.name()}: {text}"
        fetch, self.fetch = self.fetch, None
        self._fail_body(Incomplete(full), cause)
        self._end(code)
        if fetch is not None:
            error = UpstreamFailed(cause, full, h2_error=h2_error, tls_alert=tls_alert)
            fetch.fail(error, stale=stale, unprocessed=unprocessed)

    def drop(self) -> None:
        """Nobody waits for the response any more."""
        self.fetch = None
        self._end(CANCEL)

    def on_due(self) -> None:
        backend = self._request.backend
        if self.fetch is not None:
            seconds, sent = backend.first_byte_timeout, self._sent
            what = "sent no response head" if sent else "took no more of the request"
            self._frames.silent_since(self.started)
            self.fail(Cause.HTTP_RESPONSE_TIMEOUT, f"it {what} within {seconds:g} s")
        else:
            seconds = backend.between_bytes_timeout
            text = f"{self._frames.name()} sent no byte of a body for {seconds:g} s"
            self._fail_body(Incomplete(text), Cause.HTTP_RESPONSE_TIMEOUT)
            self._end(CANCEL)

    # Inside -----------------------------------------------------------------------------------

    def _read_head(self, headers: Headers) -> tuple[int, Headers]:
        """Status and fields, checked once more.  Raises BadHead."""
        if len(headers) > MAX_FIELDS:
            text = f"a response with more than {MAX_FIELDS} fields"
            raise BadHead(Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE, text)
        status, fields = 0, []
        for name, value in headers:
            if name == b":status" and _status.fullmatch(value):
                status = int(value)
            elif name not in HOP_BY_HOP:
                if not is_token(name) or not is_value(value):
                    raise BadHead(Cause.HTTP_PROTOCOL_ERROR, "a field that is none")
                fields.append((name, value))
        if not status:
            raise BadHead(Cause.HTTP_RESPONSE_STATUS_INVALID, "a response without a valid status")
        return status, fields

    def _drained(self) -> None:
        """There is room again for the body."""
        if not self.closed:
            self._give_back()
            self._expect(self._request.backend.between_bytes_timeout)

    def _discarded(self) -> None:
        """Nobody wants the rest of the body."""
        sink = self._detach()
        if isinstance(sink, Inflater):
            sink.stop()
        if sink is not None:
            self._end(CANCEL)

    def _give_back(self) -> None:
        count, self._unacknowledged = self._unacknowledged, 0
        if count:
            self._frames.give_back(self.number, count)

    def _fail_body(
        self, error: HostcallError, cause: Cause = Cause.HTTP_INCOMPLETE_RESPONSE
    ) -> None:
        sink, told = self._detach(), self._request.on_broken
        if sink is not None:
            if told is not None and not isinstance(error, LimitExceeded):
                told(UpstreamFailed(cause, str(error)))
            sink.fail(error)

    def _detach(self) -> Sink | None:
        """The body goes on without the stream; where its bytes went, if there was one."""
        sink, body = self._sink, self._body
        self._sink = self._body = None
        if sink is None or body is None:
            return None
        sink.on_drain = None
        body.on_discard = None
        if isinstance(sink, Inflater):
            sink.on_broken = None
            body.on_discard = sink.stop
        return sink

    def _end(self, code: int | None) -> None:
        if self.closed:
            return
        self.closed = True
        self.deadline = NEVER
        self._give_back()  # the connection's window must not shrink by what nobody read
        if not self._sent:
            body = self._request.body
            if self._watching:
                self._watching = False
                body.unwatch(self._body_changed)
            body.discard()
        self._frames.over(self, code)

    def _expect(self, seconds: float) -> None:
        self.deadline = self._frames.now() + seconds
        self._frames.due(self.deadline)


def _length(fields: Headers) -> int | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    return int(lengths[0]) if len(lengths) == 1 and _digits.fullmatch(lengths[0]) else None

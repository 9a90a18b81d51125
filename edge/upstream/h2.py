"""HTTP/2 to a backend: many requests on one connection.  A `Link`; frames are hyper-h2's business.

Driven by callbacks alone, as HTTP/1.1 is.  What a hostile peer can make us do is bounded: frames
per turn, frames that carry nothing, header blocks (`edge.upstream.h2_frames`), bytes that wait for
a reader (`edge.upstream.h2_stream`), and replies that the peer does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLError
from typing import cast

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes

from edge.http.addresses import format_address
from edge.http.framing import Mode
from edge.http.message import Headers
from edge.model.backend import Backend
from edge.upstream.connection import WHOLE_BODY
from edge.upstream.dialing import Owner
from edge.upstream.failures import failure
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.h2_frames import (
    ENHANCE_YOUR_CALM,
    GOAWAY,
    NO_ERROR,
    BadFrames,
    Cut,
    FrameCutter,
)
from edge.upstream.h2_protocol import MAX_STREAMS, WINDOW, new_protocol, request_headers
from edge.upstream.h2_stream import BadHead, Stream
from edge.upstream.pending import Fetch
from edge.upstream.request_head import encode_request
from edge.upstream.timers import NEVER

log = logging.getLogger("edge.upstream")

FRAMES_PER_TURN = 32  # about a millisecond
BYTES_PER_TURN = 1024 * 1024
HPACK_TABLE = 4096  # RFC 9113's default; a peer may not make ours larger
# Frames that carry nothing (PING, SETTINGS, empty DATA, what is for streams that were given up):
# so many in so long are a flood, less what each frame that does carry something makes up for.
# 5000 take a tenth of a second.
MAX_NOISE = 5000
NOISE_PERIOD = 10.0
CREDIT = 4
MAX_UNSENT = 1024 * 1024  # replies that wait for a peer that reads nothing
# How long a peer that is told goodbye has to take the last bytes.
LINGER = 2.0


def make_h2(backend: Backend, owner: Owner) -> Http2Connection:
    """A `LinkFactory`."""
    return Http2Connection(backend, owner, asyncio.get_running_loop())


class Http2Connection(asyncio.Protocol):
    """The protocol object of one connection; a `Link`, and `Frames` for its streams."""

    def __init__(self, backend: Backend, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.address = b""
        self.port = 0
        self.pooled = False
        self.deadline = NEVER  # of an idle connection
        self._backend = backend
        self._owner = owner
        self._deadlines = owner.deadlines
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._protocol = new_protocol()
        self._cutter = FrameCutter()
        self._scheduled = False  # another turn is to come for frames that are here already
        self._paused = False  # reading
        self._in_turn = False  # whoever writes now need not flush
        self._streams: dict[int, Stream] = {}
        self._senders: deque[Stream] = deque()
        self._sending = False
        self._write_paused = False
        self._born = 0.0
        self._uses = 0
        self._draining = False  # no new streams
        self._last_heard = 0.0
        self._noise = 0
        self._noise_until = 0.0

    # asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._born = self._last_heard = self.now()
        self._deadlines.add(self)
        self._protocol.initiate_connection()
        # One slow reader must not stop the others: there is a window for all of them.
        spare = MAX_STREAMS * WINDOW - self._protocol.inbound_flow_control_window
        self._protocol.increment_flow_control_window(spare)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._last_heard = self.now()
        self._cutter.feed(data)
        if not self._scheduled:
            self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._draining = True
        self._deadlines.remove(self)
        self._owner.lost(self)
        text, cause, alert = "the connection closed", Cause.CONNECTION_TERMINATED, None
        if isinstance(exc, SSLError):  # with TLS 1.3 a server refuses our certificate only now
            failed = failure(self._backend, format_address(self.address), exc)
            text, cause, alert = f"TLS broke: {failed}", failed.cause, failed.tls_alert
        elif exc is not None:
            text = f"the connection broke ({type(exc).__name__})"
        again = self._uses > 1
        for stream in tuple(self._streams.values()):
            stale = again and stream.untouched
            stream.fail(cause, text, stale=stale, tls_alert=alert, code=None)

    def pause_writing(self) -> None:
        self._write_paused = True
        for stream in self._senders:
            stream.held_up()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._send()

    # Link -------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        transport, backend = self._transport, self._backend
        if self._draining or transport is None or transport.is_closing():
            return 0
        used_up = backend.max_use and self._uses >= backend.max_use
        too_old = backend.max_lifetime and self.now() >= self._born + backend.max_lifetime
        if used_up or too_old or (self._uses and not backend.keep_alive):
            return 0
        allowed = min(MAX_STREAMS, self._protocol.remote_settings.max_concurrent_streams)
        if backend.max_use:
            allowed = min(allowed, len(self._streams) + backend.max_use - self._uses)
        return max(0, allowed - len(self._streams))

    @property
    def idle(self) -> bool:
        return not self._streams

    def carry(self, fetch: Fetch) -> None:
        request = fetch.request
        body = request.body
        if fetch.whole is None:
            fetch.whole = body.take_whole(0 if request.manual_framing else WHOLE_BODY)
        if fetch.whole is not None:
            known: int | None = len(fetch.whole)
        else:
            known = None if body.trailers else body.known_length
        try:
            if request.upgrade:
                text = f"backend {request.backend.name}: HTTP/2 knows no upgrade"
                raise UpstreamFailed(Cause.HTTP_UPGRADE_FAILED, text)
            outgoing = encode_request(request, known)
            headers = request_headers(outgoing.head, request.backend)
        except UpstreamFailed as error:
            self._rest()
            fetch.fail(error)
            return
        self._backend = request.backend
        self._uses += 1
        self._noise = max(0, self._noise - CREDIT)
        self.deadline = NEVER
        try:
            number = self._protocol.get_next_available_stream_id()
            self._protocol.send_headers(number, headers, end_stream=outgoing.mode is Mode.NONE)
        except ProtocolError as error:
            # Not what a guest can cause: our checks come first.  Whatever it is, no more of it.
            self._draining = True
            text = f"{self.name()}: the request cannot be said in HTTP/2 ({error})"
            self._rest()
            fetch.fail(UpstreamFailed(Cause.INTERNAL_ERROR, text))
            return
        fetch.carrier = self
        stream = self._streams[number] = Stream(self, number, fetch, outgoing)
        self._deadlines.add(stream)
        stream.begin()
        self._flush()

    def drop(self, fetch: Fetch) -> None:
        for stream in self._streams.values():
            if stream.fetch is fetch:
                stream.drop()
                return

    def close(self) -> None:
        self._leave(NO_ERROR)

    def abort(self) -> None:
        self._draining = True
        self.deadline = NEVER
        if self._transport is not None:
            self._transport.abort()

    def on_due(self) -> None:
        """Idle for too long, or not gone in time."""
        if self._transport is not None and self._transport.is_closing():
            self.abort()
        elif not self._streams:
            self.close()

    def _leave(self, code: int) -> None:
        """Say why, and go: at once, or as soon as the peer has taken that."""
        self._draining = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        with suppress(ProtocolError):  # the library has said it already
            self._protocol.close_connection(code)
        transport.write(self._protocol.data_to_send())
        transport.close()
        self.deadline = self.now() + LINGER
        self.due(self.deadline)

    # What comes in ----------------------------------------------------------------------------

    def _work(self) -> None:
        """A turn's worth of frames."""
        self._scheduled = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._in_turn = True
        try:
            cut = self._cutter.cut(FRAMES_PER_TURN, self._streams)
            self._count(cut)
            events = self._protocol.receive_data(cut.data) if cut.data else []
            for event in events:
                self._take(event)
            if cut.goaway is not None:
                self._go_away(*cut.goaway)
        except BadFrames as error:
            is_http2 = error.code != NO_ERROR
            cause = Cause.H2_ERROR if is_http2 else Cause.HTTP_PROTOCOL_ERROR
            self._break(str(error), error.code, cause)
            return
        except ProtocolError as error:
            is_large = isinstance(error, DenialOfServiceError)
            cause = Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE if is_large else Cause.H2_ERROR
            self._break(f"it broke HTTP/2: {error}", int(error.error_code), cause)
            return
        except Exception:  # a fault of the library or ours: this connection's alone
            log.exception("http2 connection failed", extra={"backend": self._backend.name})
            self._break("a mistake of the server's", ErrorCodes.INTERNAL_ERROR)
            return
        finally:
            self._in_turn = False
        self._flush()
        if transport.is_closing():
            return
        if cut.more:
            self._scheduled = True
            self._loop.call_soon(self._work)
        if cut.more is not self._paused:
            self._paused = cut.more
            if cut.more:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _count(self, cut: Cut) -> None:
        now = self.now()
        if now >= self._noise_until:
            self._noise_until = now + NOISE_PERIOD
            self._noise = 0
        self._noise = max(0, self._noise + cut.noise - CREDIT * cut.carrying)
        if self._noise > MAX_NOISE:
            raise BadFrames("it sends nothing but frames without content", ENHANCE_YOUR_CALM)

    def _take(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._settings_changed(event)
            return
        if isinstance(event, WindowUpdated):
            self._wake(event.stream_id)
            return
        number = getattr(event, "stream_id", None)
        stream = self._streams.get(number) if number is not None else None
        if stream is None:
            if isinstance(event, DataReceived):  # of a stream that was given up: its window goes on
                self.give_back(event.stream_id, event.flow_controlled_length)
            return
        try:
            match event:
                case ResponseReceived():
                    stream.respond(event.headers)
                case InformationalResponseReceived():
                    stream.interim(event.headers)
                case DataReceived():
                    stream.data(event.data, event.flow_controlled_length)
                case TrailersReceived():
                    stream.end(event.headers)
                case StreamEnded():
                    stream.end([])
                case StreamReset():
                    stream.reset(int(event.error_code))
                case _:
                    pass
        except BadHead as error:
            stream.fail(error.cause, f"it sent {error}", code=ErrorCodes.PROTOCOL_ERROR)

    def _settings_changed(self, event: RemoteSettingsChanged) -> None:
        table = event.changed_settings.get(SettingCodes.HEADER_TABLE_SIZE)
        if table is not None and table.new_value > HPACK_TABLE:
            self._protocol.encoder.header_table_size = HPACK_TABLE
        self._wake(0)
        # Before its first request the connection is still its maker's.
        if self._uses and self.room > 0 and not self.pooled:
            self._owner.freed(self)

    def _go_away(self, last: int, code: int) -> None:
        """RFC 9113 section 6.8: streams up to `last` may still end well; later ones never began."""
        self._draining = True
        for number, stream in tuple(self._streams.items()):
            if number > last:
                stream.fail(
                    Cause.H2_ERROR if code else Cause.CONNECTION_TERMINATED,
                    f"it went away with error {code}",
                    h2_error=(GOAWAY, code),
                    unprocessed=True,
                    code=None,
                )
        self._rest()

    def _break(self, text: str, code: int, cause: Cause = Cause.H2_ERROR) -> None:
        """The peer broke the protocol: everything on the connection fails."""
        self._leave(code)
        h2_error = (GOAWAY, code) if cause is Cause.H2_ERROR else None
        for stream in tuple(self._streams.values()):
            stream.fail(cause, text, h2_error=h2_error, code=None)

    # What goes out ----------------------------------------------------------------------------

    def wants_to_send(self, stream: Stream) -> None:
        if not stream.queued:
            stream.queued = True
            self._senders.append(stream)
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send)

    def _wake(self, number: int) -> None:
        """A window has opened, of one stream or of the connection (0)."""
        streams = self._streams
        woken = tuple(streams.values()) if not number else (streams.get(number),)
        for stream in woken:
            if stream is not None and stream.sending:
                self.wants_to_send(stream)

    def _send(self) -> None:
        """Streams take turns, a frame each, until all have to wait for something."""
        self._sending = False
        budget, senders = BYTES_PER_TURN, self._senders
        while senders and not self._write_paused and budget > 0:
            stream = senders.popleft()
            stream.queued = False
            sent = stream.send_piece()
            if sent:
                self._noise = max(0, self._noise - CREDIT)
                budget -= sent
                stream.queued = True
                senders.append(stream)
            self._flush()
        if self._write_paused:
            for stream in senders:
                stream.held_up()
        elif senders:
            self._sending = True
            self._loop.call_soon(self._send)

    def window(self, stream_id: int) -> int:
        return min(
            self._protocol.local_flow_control_window(stream_id),
            self._protocol.max_outbound_frame_size,
        )

    def send_data(self, stream_id: int, data: bytes) -> None:
        self._protocol.send_data(stream_id, data)

    def send_end(self, stream_id: int, trailers: Headers) -> None:
        if trailers:
            self._protocol.send_headers(stream_id, trailers, end_stream=True)
        else:
            self._protocol.end_stream(stream_id)

    def give_back(self, stream_id: int, count: int) -> None:
        if count and self._transport is not None:
            self._protocol.acknowledge_received_data(count, stream_id)
            if not self._in_turn:
                self._flush()

    def _flush(self) -> None:
        transport = self._transport
        data = self._protocol.data_to_send()
        if not data or transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > MAX_UNSENT:
            self._break("it reads nothing of what it asks for", ENHANCE_YOUR_CALM)
            self.abort()

    # For streams ------------------------------------------------------------------------------

    def now(self) -> float:
        return self._deadlines.now()

    def due(self, deadline: float) -> None:
        if deadline < self._deadlines.next:
            self._deadlines.soon(deadline)

    def later(self, callback: Callable[[], None]) -> object:
        return self._loop.call_soon(callback)

    def silent_since(self, instant: float) -> None:
        """A stream waited in vain from `instant` on.  A peer that says nothing gets no more."""
        if self._last_heard < instant:
            self._draining = True

    def name(self) -> str:
        """The backend and who answers for it, for operators."""
        return f"backend {self._backend.name} ({format_address(self.address)}:{self.port})"

    def over(self, stream: Stream, code: int | None) -> None:
        if self._streams.pop(stream.number, None) is None:
            return
        self._deadlines.remove(stream)
        if self._transport is None:
            return
        if code is not None:
            with suppress(ProtocolError):  # it ended on its own
                self._protocol.reset_stream(stream.number, code)
            if not self._in_turn:
                self._flush()
        self._rest()

    def _rest(self) -> None:
        """A stream less: wait for the next, or go."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.room > 0:
            if not self._streams:
                self.deadline = self.now() + self._backend.keep_alive
                if self._backend.max_lifetime:
                    self.deadline = min(self.deadline, self._born + self._backend.max_lifetime)
                self.due(self.deadline)
            self._owner.freed(self)
        elif not self._streams:
            self.close()

"""One request and its one response: `Downstream` for the guest's side.  Not the connection.

Callbacks (`on_end`, `on_gone`, `on_body_limit`, `on_output_limit`) run at once, inside whatever
call brought them about: a response that is complete when it is given ends inside `respond`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from edge.errors import Failed, HostcallError, Incomplete, InvalidHead
from edge.http.body import Body
from edge.http.framing import Mode, ResponseFraming, response_framing
from edge.http.headers import connection_options
from edge.http.message import Answer, Headers, RequestHead, ResponseHead
from edge.http.refusal import Refused
from edge.http.request_head import RawHead, split_fields
from edge.http.request_view import Peer, believed_request_id, client_of, view_request
from edge.http.response_head import encode_head
from edge.server.flow import CHUNK, AwaitedBody, ResponseFlow
from edge.server.front import UNLIMITED
from edge.server.pages import error_page

if TYPE_CHECKING:
    from edge.server.connection import Connection

_BODILESS = frozenset((204, 205, 304))
_SWITCHED = b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"


class _Identifiers:
    """Unguessable 128-bit request ids, cut from one large read of the system's randomness."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def take(self) -> str:
        """32 lower-case hexadecimal characters."""
        at = self._at
        if at >= len(self._pool):
            self._pool, at = os.urandom(16 * 256).hex(), 0
        self._at = at + 32
        return self._pool[at : at + 32]


_identifiers = _Identifiers()


class Exchange:
    """See `edge.http.message.Downstream`; the attributes below are for the host alone.

    Not slotted: class-level defaults make an exchange in 0.5 us, a dozen slots in 1.2.
    """

    # Set by the host before or during the handler ---------------------------------------------
    on_end: Callable[[], None] | None = None  # once: response handed over whole, or failed
    on_gone: Callable[[], None] | None = None  # the client left early; `on_end` follows
    on_body_limit: Callable[[], None] | None = None  # too large a body; default: answer 413
    on_output_limit: Callable[[], None] | None = None  # told; the response ends by itself
    add_headers: Headers | None = None  # the host's own response fields, already well formed

    # Facts ------------------------------------------------------------------------------------
    responded = False
    ended = False  # `on_end` has been or is being called
    gone = False  # the client left before the response was complete
    failed = False  # the response was cut short
    broken = False  # because its body was left unfinished
    over_output = False  # because it was larger than allowed
    status = 0  # of the final response; 0: none
    response_start_ns = 0  # perf_counter_ns when the final head was written; 0: never
    bytes_in = 0  # of body, decoded
    bytes_out = 0  # of body, without framing
    refusal: Refused | None = None  # the body broke HTTP or a limit after the handler began

    _connection: Connection | None
    _body: Body | None = None
    _head: RequestHead | None = None
    _request_id = ""
    _client: bytes | None = None
    _flow: ResponseFlow | None = None
    _response_body: Body | None = None
    _answer: Answer | None = None  # who answers in the guest's place
    _tunnelled = False  # two streams of bytes by now: either end may close them

    def __init__(self, connection: Connection, raw: RawHead, peer: Peer, scheme: bytes) -> None:
        self._connection = connection
        self._raw = raw
        self._scheme = scheme
        self.peer = peer
        self.method = raw.method
        self.host = raw.authority.host  # canonical, without a port
        self.path = raw.path  # raw, without the query
        self.cdn_loop = raw.cdn_loop  # values of that field: where the request has been
        self.announced = raw.length  # bytes of body; 0 for none, negative if the client may not say
        self.started_ns = perf_counter_ns()
        limits = connection.front.limits
        self.max_request_body = limits.max_request_body
        self.max_response_bytes = limits.max_response_bytes

    # Downstream -------------------------------------------------------------------------------

    @property
    def head(self) -> RequestHead:
        """The request as a guest may see it; made when first asked for."""
        head = self._head
        if head is None:
            head = view_request(self._raw, self.peer, self._scheme, self.request_id)
            self._head = head
        return head

    @property
    def body(self) -> Body:
        body = self._body
        if body is None:
            body = self._body = Body()
        return body

    @property
    def client_address(self) -> bytes:
        client = self._client
        if client is None:
            client = self._client = client_of(self._raw, self.peer)
        return client

    @property
    def server_address(self) -> bytes:
        return self.peer.local

    @property
    def request_id(self) -> str:
        if not self._request_id:
            self._request_id = believed_request_id(self._raw, self.peer) or _identifiers.take()
        return self._request_id

    def inform(self, status: int, headers: Headers) -> None:
        """Send an interim response.  Raises InvalidHead (status or field), Failed (too late)."""
        if not 102 <= status <= 199:  # 100 is ours to send, 101 is an upgrade
            raise InvalidHead(f"{status} is not an interim status that may be sent")
        if self.responded:
            raise Failed("an interim response after the final one")
        connection = self._connection
        if connection is not None and self._raw.minor and not connection.write_paused:
            connection.write(encode_head(status, headers, None, b"\r\n"))

    def respond(self, head: ResponseHead, body: Body) -> None:
        """Take the final response.

        Raises Failed for a second one; InvalidHead, with nothing sent, for a bad status or field.
        """
        if self.responded:
            raise Failed("a response has already been sent")
        status = head.status
        if not 200 <= status <= 999:
            raise InvalidHead(f"{status} is not a final status")
        connection = self._connection
        if connection is None:  # the client has left: the guest need not know
            self.responded = True
            body.discard()
            return
        length = self.announced
        if (
            head.manual_framing
            or head.close
            or status in _BODILESS
            or self.method == b"HEAD"
            or (length and connection.receiving)
        ):
            self._respond_at_length(connection, head, body)
            return
        limit = self.max_response_bytes
        data = body.take_whole(min(limit, CHUNK))
        if data is None:
            self._respond_at_length(connection, head, body)
            return
        size = len(data)
        rest = b"content-length: %d\r\n%b%b" % (size, connection.tail(), data)
        message = encode_head(status, head.headers, self.add_headers, rest)
        self.responded = True
        self.status = status
        self.bytes_out = size
        self.response_start_ns = perf_counter_ns()
        connection.write_soon(message)
        if length or self.ended:
            self.end_response()
            return
        # `end_response`, for a request that had no body and a response that needed no flow.
        self.ended = True
        self._connection = None
        self.on_gone = None
        end = self.on_end
        if end is not None:
            self.on_end = None
            end()
        connection.exchange_ended()

    @property
    def wants_websocket(self) -> bool:
        raw = self._raw
        if not raw.upgrade or not raw.minor or raw.length or self.method != b"GET":
            return False
        options = connection_options((self.request_header(b"connection") or b"",))
        upgrade = self.request_header(b"upgrade") or b""
        return b"upgrade" in options and upgrade.lower() == b"websocket"

    def hand_over(self, answer: Answer) -> None:
        """Raises Failed when there is a response already."""
        if self.responded:
            raise Failed("a response has already been sent")
        self.responded = True
        if self._connection is None:  # the client has left
            answer.abandon()
        else:
            self._answer = answer

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        """Raises InvalidHead, with nothing sent and the answer still owed, for a bad field."""
        answer, self._answer = self._answer, None
        connection = self._connection
        if answer is None or connection is None:
            body.discard()
            return
        self.responded = False
        try:
            if incoming is None:
                self.respond(head, body)
            else:
                self._switch(connection, head, body, incoming)
        except HostcallError:
            self.responded, self._answer = True, answer
            raise

    def abort(self) -> None:
        """End the connection with a reset: no client can take what it has for the whole."""
        connection = self._connection
        if connection is not None:
            self.failed = True
            connection.front.statistics.aborted += 1
            connection.abort()
            self._end()

    def break_off(self) -> None:
        """The body will not come to its end: whoever made it left it unfinished."""
        self.broken = True
        self.abort()

    # For the host -----------------------------------------------------------------------------

    @property
    def content_length(self) -> int | None:
        """Bytes of body the client announced: 0 for none, None for a chunked body."""
        return self._raw.length if self._raw.length >= 0 else None

    @property
    def target(self) -> bytes:
        """The target in origin form, as received, for logs."""
        return self._raw.target

    @property
    def version(self) -> int:
        """10 or 11."""
        return 10 + self._raw.minor

    def request_header(self, name: bytes) -> bytes | None:
        """The first field of this lower-case name as the client sent it, or None."""
        for field, value in split_fields(self._raw.block):
            if field.lower() == name:
                return value
        return None

    def reply(
        self, status: int, content_type: str, body: bytes, headers: Headers | None = None
    ) -> None:
        """Answer with a complete body: a page of the host or of its API.  Too late is no error."""
        if self.responded:
            return
        fields = [(b"content-type", content_type.encode()), *(headers or ())]
        page = Body()
        page.write(body)
        self.respond(ResponseHead(status=status, headers=fields), page)

    def respond_error(
        self,
        status: int,
        title: str,
        outcome: str | None = None,
        retry_after: int | None = None,
        extra: Headers | None = None,
        *,
        close: bool = False,
    ) -> None:
        """Answer with a short page of the host, plain text or (by Accept) JSON.

        `retry_after` in seconds.  If a response has begun, the connection is aborted instead: its
        end must not look like a good one.  Nothing about the guest's inside is ever in the page.
        """
        if self.responded:
            if not self.ended:
                self.abort()
            return
        if close and self._connection is not None:
            self._connection.close_after = True
        self.max_response_bytes = UNLIMITED  # this page is the host's, not the guest's
        headers: Headers = [(b"cache-control", b"no-store")]
        if retry_after is not None:
            headers.append((b"retry-after", b"%d" % retry_after))
        headers += extra or ()
        if outcome is not None:
            mark = (b"x-edge-outcome", outcome.encode())
            self.add_headers = [
                *(field for field in self.add_headers or () if field[0] != mark[0]), mark,
            ]  # fmt: skip
        accept = self.request_header(b"accept") or b""
        kind, page = error_page(status, title, self.request_id, outcome, accept)
        self.reply(status, kind, page, headers)

    def limit_request_body(self, maximum: int) -> bool:
        """Lower the bytes of request body to `maximum`; False if more is already known to come."""
        self.max_request_body = min(self.max_request_body, maximum)
        return max(self.content_length or 0, self.bytes_in) <= self.max_request_body

    # For the connection and the flows ---------------------------------------------------------

    def attach_body(self, body: Body) -> None:
        self._body = body

    def resume(self) -> None:
        """The socket has room again."""
        if self._flow is not None:
            self._flow.run()

    def exceed_output(self) -> None:
        """The response is larger than allowed: say so, and end it visibly."""
        self.over_output = True
        if self.on_output_limit is not None:
            self.on_output_limit()
        if not self.responded:
            self.respond_error(500, "The response was larger than allowed.", "output_limit")
        elif not self.ended:
            self.abort()

    def end_response(self) -> None:
        """Everything is with the transport."""
        connection = self._connection
        self._end()
        if connection is not None:
            connection.exchange_ended()

    def leave(self) -> None:
        """The client has gone (the connection says so)."""
        if self.ended:
            return
        if self._tunnelled:
            incoming, self._body = self._body, None
            assert incoming is not None
            incoming.on_drain = None
            incoming.finish()  # the backend still gets what is in it
            self._end()
            return
        self.gone = True
        body = self._body
        if body is not None:
            body.fail(Incomplete("the client left"))
        if self.on_gone is not None:
            gone, self.on_gone = self.on_gone, None
            gone()
        self._end()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._connection = None
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.abandon()
        if self._flow is not None:
            self._flow.stop()
            self._flow = None
        if self._response_body is not None:
            self._response_body.discard()
            self._response_body = None
        if self._body is not None:
            self._body.on_drain = None
            self._body.discard()
        self.on_gone = None
        if self.on_end is not None:
            end, self.on_end = self.on_end, None
            end()

    def _switch(
        self, connection: Connection, head: ResponseHead, body: Body, incoming: Body
    ) -> None:
        """101: from now on the two bodies are all there is."""
        message = encode_head(head.status, head.headers, self.add_headers, _SWITCHED)
        self.responded = self._tunnelled = True
        self.status = head.status
        self.response_start_ns = perf_counter_ns()
        self._body = incoming
        connection.close_after = True
        connection.write(message)
        self._response_body = body
        self._flow = ResponseFlow(self, connection, body, ResponseFraming(Mode.CLOSE))
        connection.tunnel(self, incoming)
        self._flow.run()

    def _respond_at_length(self, connection: Connection, head: ResponseHead, body: Body) -> None:
        """Any response that is not small, complete and ordinary."""
        to_head, minor = self.method == b"HEAD", self._raw.minor
        known = body.known_length if body.error is None else None
        if body.trailers and minor and not to_head:
            known = None  # only a chunked message can end with trailers
        framing = response_framing(head, to_head=to_head, minor=minor, known=known)
        claimed = framing.length if framing.mode is Mode.LENGTH else None
        if claimed is not None and claimed > self.max_response_bytes:
            body.discard()
            self.exceed_output()
            return
        own = self._body
        if isinstance(own, AwaitedBody) and own.feeds(body) and framing.mode is not Mode.NONE:
            own.want()  # the response is made of the request body: ask for it before the head
        if head.close or framing.mode is Mode.CLOSE:
            connection.close_after = True
        connection.settle_unread(complete=body.ended)
        message = encode_head(
            head.status, head.headers, self.add_headers, _framing_field(framing) + connection.tail()
        )
        self.responded = True
        self.status = head.status
        self.response_start_ns = perf_counter_ns()
        connection.write(message)
        if framing.mode is Mode.NONE or (framing.length == 0 and body.ended):
            body.discard()
            self.end_response()
            return
        self._response_body = body
        self._flow = ResponseFlow(self, connection, body, framing)
        self._flow.run()


def _framing_field(framing: ResponseFraming) -> bytes:
    if framing.mode is Mode.CHUNKED:
        return b"transfer-encoding: chunked\r\n"
    if framing.length is not None:
        return b"content-length: %d\r\n" % framing.length
    return b""

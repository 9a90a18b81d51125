"""A client connection that is not there: a `Downstream` that keeps what it is given."""

from __future__ import annotations

from edge.http.body import Body
from edge.http.message import Answer, Headers, RequestHead, ResponseHead


class FakeDownstream:
    """One request, whole in advance unless `body` says otherwise; what was answered is kept."""

    def __init__(
        self,
        *,
        method: bytes = b"GET",
        target: bytes = b"/",
        authority: bytes = b"example.com",
        version: int = 11,
        headers: Headers | None = None,
        original_names: list[bytes] | None = None,
        body: Body | None = None,
        wants_websocket: bool = False,
    ) -> None:
        headers = [(b"host", authority)] if headers is None else headers
        self.head = RequestHead(
            method=method,
            target=target,
            authority=authority,
            version=version,
            headers=headers,
            original_names=original_names or [name.title() for name, _ in headers],
        )
        self.body = Body() if body is None else body
        self.client_address = bytes([192, 0, 2, 7])
        self.server_address = bytes(15) + b"\x01"
        self.request_id = "0123456789abcdef" * 2
        self.response: ResponseHead | None = None
        self.response_body: Body | None = None
        self.interim: list[tuple[int, Headers]] = []
        self.aborted = False
        self.wants_websocket = wants_websocket
        self.answer: Answer | None = None  # who was to answer in the guest's place
        self.incoming: Body | None = None  # what takes the client's bytes after a 101

    @property
    def responded(self) -> bool:
        return self.response is not None or self.answer is not None

    def inform(self, status: int, headers: Headers) -> None:
        self.interim.append((status, headers))

    def respond(self, head: ResponseHead, body: Body) -> None:
        assert self.response is None, "answered twice"
        self.response, self.response_body = head, body

    def hand_over(self, answer: Answer) -> None:
        assert not self.responded, "answered twice"
        self.answer = answer

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        assert self.answer is not None, "nobody was to answer"
        assert (head.status == 101) == (incoming is not None)
        self.respond(head, body)
        self.incoming = incoming

    def abort(self) -> None:
        self.aborted = True

    @property
    def sent(self) -> bytes:
        """What can be read of the response body now, taken out of it."""
        assert self.response_body is not None
        pieces = []
        while piece := self.response_body.read(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

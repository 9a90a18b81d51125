"""A client connection that is not there: a `Downstream` that keeps what it is given."""

from __future__ import annotations

from edge.http.body import Body
from edge.http.message import Headers, RequestHead, ResponseHead


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

    @property
    def responded(self) -> bool:
        return self.response is not None

    def inform(self, status: int, headers: Headers) -> None:
        self.interim.append((status, headers))

    def respond(self, head: ResponseHead, body: Body) -> None:
        assert self.response is None, "answered twice"
        self.response, self.response_body = head, body

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

"""A backend's response that goes to the client without passing through the guest.  No hostcalls."""

from __future__ import annotations

from edge.abi.fastly.pending import PendingRequest, Target, report
from edge.abi.sandbox import Sandbox
from edge.errors import Failed, HostcallError
from edge.http.body import Body
from edge.http.message import Headers, ResponseHead
from edge.upstream.fetch import UpstreamFailed

SWITCHED = 101


class Forward:
    """An `edge.http.message.Answer`: it lives as long as the exchange, not as long as the guest.

    `incoming` is the body that takes what the client sends after a 101.
    """

    __slots__ = ("_box", "_downstream", "_incoming", "_request")

    def __init__(self, box: Sandbox, request: PendingRequest, incoming: Body | None = None) -> None:
        self._box = box
        self._downstream = box.downstream
        self._request = request
        self._incoming = incoming

    def start(self) -> None:
        """Take the answering over from the guest, and answer as soon as there is something."""
        pending = self._request.pending
        self._request.settle(self._box)  # the guest may end before the response comes
        self._downstream.hand_over(self)
        if pending.is_ready:
            self._deliver()
        else:
            pending.watch(self._deliver)

    def abandon(self) -> None:
        """The client has left."""
        self._request.pending.unwatch(self._deliver)
        self._request.abandon()

    def _deliver(self) -> None:
        request, incoming = self._request, self._incoming
        try:
            response = request.pending.result()
        except UpstreamFailed as failure:
            report(self._box, request.backend, failure)
            self._refuse(failure)
            return
        head = ResponseHead(response.status, request.edited(response.headers, Target.RESPONSE))
        if response.status != SWITCHED and incoming is not None:
            incoming.discard()
            incoming = None
        try:
            self._downstream.deliver(head, response.body, incoming)
        except HostcallError:  # a head that must not go out
            response.body.discard()
            self._page(502, b"The backend's response could not be passed on.\n", [])

    def _refuse(self, failure: UpstreamFailed) -> None:
        if self._incoming is not None:
            self._incoming.discard()
        text = b"The backend did not answer: %b\n" % failure.cause.value.encode()
        self._page(failure.status_hint, text, self._request.edited([], Target.ERROR))

    def _page(self, status: int, text: bytes, headers: Headers) -> None:
        if not any(name == b"content-type" for name, _ in headers):
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
        page = Body()
        page.write(text)
        self._downstream.deliver(ResponseHead(status, headers), page)


def forward(box: Sandbox, request: PendingRequest, incoming: Body | None = None) -> None:
    """Let the client have what comes of `request`.  Raises Failed when it has been answered."""
    if box.downstream.responded:
        request.settle(box)
        request.abandon()
        raise Failed("the client has been answered already")
    Forward(box, request, incoming).start()

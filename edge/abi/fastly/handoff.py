"""`fastly_http_req`, handing the client's connection to a backend: websockets.

The guest has done with the client then: the response, or the two streams of bytes after a 101, go
between client and backend without it.  A client that asked for no websocket gets what the backend
answers to an ordinary request.
"""

from __future__ import annotations

from edge.abi.codec import Str
from edge.abi.fastly.forward import forward
from edge.abi.fastly.heads import GuestRequest, Request
from edge.abi.fastly.http_req import abi, body_downstream_get
from edge.abi.fastly.sending import dispatch
from edge.abi.sandbox import Sandbox
from edge.errors import Failed, HostcallError
from edge.http.body import Body

_UPGRADE = (b"upgrade", b"websocket")


@abi.hostcall
def redirect_to_websocket_proxy(box: Sandbox, backend: Str) -> None:
    """Hand the client's connection and its request, as it came, to a backend.

    Counts as the response: ERROR when there is one already.
    """
    _hand_over(box, GuestRequest(box, from_client=True), backend)


@abi.hostcall
def upgrade_websocket(box: Sandbox, backend: Str) -> None:
    """Older name of `redirect_to_websocket_proxy`."""
    _hand_over(box, GuestRequest(box, from_client=True), backend)


@abi.hostcall
def redirect_to_websocket_proxy_v2(box: Sandbox, request: Request, backend: Str) -> None:
    """The same with the head of a given request, which is not consumed."""
    _hand_over(box, request, backend)


def _hand_over(box: Sandbox, request: GuestRequest, backend: str) -> None:
    if box.downstream.responded:
        raise Failed("the client has been answered already")
    websocket = box.downstream.wants_websocket
    head = _copy(box, request, websocket=websocket)
    body = box.new_body() if websocket else _client_body(box)
    if websocket:
        body.live, body.ended = True, False
    try:
        sent = dispatch(box, head, body, backend, upgrade=websocket)
    except HostcallError:
        body.discard()
        raise
    forward(box, sent, body if websocket else None)


def _copy(box: Sandbox, request: GuestRequest, *, websocket: bool) -> GuestRequest:
    """The head to send: a new one, for the guest's own stays valid and may change.

    Not charged: there is one for each client request, for as long as its backend takes.
    """
    head = GuestRequest(box)
    headers = list(request.fields())
    if websocket:
        headers = [field for field in headers if field[0] != _UPGRADE[0]]
        headers.append(_UPGRADE)
    head.method, head.uri, head.headers = request.method, request.uri, headers
    head.manual_framing = request.manual_framing
    if not websocket:  # which HTTP/2 does in a way of its own
        head.version = request.version
    head.auto_decompress = request.auto_decompress
    return head


def _client_body(box: Sandbox) -> Body:
    """What the guest has not read of the client's request, unless it has let go of it."""
    _, handle = body_downstream_get(box)
    body = box.items.get(handle)
    if not isinstance(body, Body):
        return box.new_body()
    del box.items[handle]
    return body

"""`fastly_http_downstream`: what is known of the client, and asking for its next request.

A guest that has answered may serve on in the same sandbox: `next_request` gives a promise, and
waiting for it gives the next client's request, or NONE when there will be none.  Every question
about a client names the request it is about; one that the guest made itself has no client (ERROR).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from edge.abi.codec import U32, Bits, Handle, Out, OutList, OutOctets
from edge.abi.fastly import facts
from edge.abi.fastly.heads import Request
from edge.abi.fastly.http_req import body_downstream_get
from edge.abi.fastly.ready import RequestPromise
from edge.abi.fastly.status import FASTLY
from edge.abi.further import Further
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import BadHandle, Failed, LimitExceeded, Missing, Unsupported
from edge.http import cdn_loop

abi = HostModule("fastly_http_downstream", FASTLY)

_TIMEOUT = 0b10
NextOptions = Annotated[int, Bits(known=_TIMEOUT)]
Promise = Annotated[RequestPromise, Handle(RequestPromise)]
LONGEST_WAIT = 10.0  # seconds; what Viceroy grants, whatever is asked


@abi.hostcall
def next_request(box: Sandbox, mask: NextOptions, options: U32) -> Promise:
    """Ask for another request in this sandbox; LIMITEXCEEDED while a promise is open."""
    seconds = LONGEST_WAIT
    if mask & _TIMEOUT:
        # A u64, but one SDK passes a u32 with whatever it has behind that: the lower half is it.
        seconds = min(seconds, box.memory.u32(options) / 1000)
    if box.further is not None:
        raise LimitExceeded("one request promise is open already", limit="")
    if len(box.items) >= box.items.ceiling:
        box.make_room()  # before anything is promised
    further = Further(None) if box.requests is None else box.requests.ask(seconds)
    box.further = further
    return RequestPromise(further)


@abi.hostcall
async def next_request_wait(box: Sandbox, promise: U32) -> tuple[U32, U32]:
    """Wait for it: its request and body, or NONE.  UNSUPPORTED before this one has been answered.

    The promise is consumed, and the handles of the last request and its body are invalid then.
    """
    further = _take_promise(box, promise)
    try:
        if not box.downstream.responded:
            raise Unsupported("the current request has not been answered")
        if len(box.items) + 2 > box.items.ceiling:
            box.make_room()  # a request that cannot be named would be lost
        await Pause()  # the last request's record is made up, which is no work for a guest's stack
        if not await further.wait():
            raise Missing("there will be no further request in this sandbox")
    finally:
        further.drop()
    return body_downstream_get(box)


@abi.hostcall
def next_request_abandon(box: Sandbox, promise: U32) -> None:
    """Drop the promise."""
    _take_promise(box, promise).drop()


def _take_promise(box: Sandbox, handle: int) -> Further:
    item = box.items[handle]
    if type(item) is not RequestPromise:
        raise BadHandle(f"handle {handle} is not a request promise")
    del box.items[handle]
    box.further = None
    return item.further


@abi.hostcall
def downstream_visits_this_service(box: Sandbox) -> U32:
    """How often the client's request has passed this service before, by its CDN-Loop field."""
    return _visits(box).service


@abi.hostcall
def downstream_visits_this_pop(box: Sandbox) -> U32:
    """How often it has passed any service of a server of this kind, by the same field."""
    return _visits(box).server


def _visits(box: Sandbox) -> cdn_loop.Visits:
    return cdn_loop.visits(cdn_loop.received(box.downstream.head), box.service.name.encode())


@abi.hostcall
def downstream_original_header_names(box: Sandbox, request: Request, names: OutList) -> None:
    """The client's field names as it spelt them."""
    _need_client(request)
    names.fill(facts.original_names(request))


@abi.hostcall
def downstream_original_header_count(box: Sandbox, request: Request) -> U32:
    """How many fields the client sent."""
    _need_client(request)
    return facts.original_count(request)


@abi.hostcall
def downstream_client_ip_addr(box: Sandbox, request: Request, octets: OutOctets) -> U32:
    """The client's address in 4 or 16 octets."""
    _need_client(request)
    return octets.fill(facts.client_address(request))


@abi.hostcall
def downstream_server_ip_addr(box: Sandbox, request: Request, octets: OutOctets) -> U32:
    """The address the client connected to, in 4 or 16 octets."""
    _need_client(request)
    return octets.fill(facts.server_address(request))


@abi.hostcall
def downstream_client_request_id(box: Sandbox, request: Request, request_id: Out) -> None:
    """The request id: 32 hexadecimal digits."""
    _need_client(request)
    request_id.fill(facts.request_id(request))


@abi.hostcall
def downstream_compliance_region(box: Sandbox, request: Request, region: Out) -> None:
    """The compliance region; always `none`."""
    _need_client(request)
    region.fill(facts.COMPLIANCE_REGION)


@abi.hostcall
def downstream_tls_ja3_md5(box: Sandbox, request: Request, digest: U32) -> U32:
    """NONE: the connection is not TLS."""
    _need_client(request)
    raise facts.nothing_known("downstream_tls_ja3_md5")


def _need_client(request: Request) -> None:
    if not request.from_client:
        raise Failed("the guest made this request itself: it has no client")


def _constant(answer: int) -> Callable[[Sandbox, Request], int]:
    def constant(box: Sandbox, request: Request) -> U32:
        _need_client(request)
        return answer

    return constant


def _absent_number(name: str) -> Callable[[Sandbox, Request], int]:
    def absent(box: Sandbox, request: Request) -> U32:
        _need_client(request)
        raise facts.nothing_known(name)

    return absent


def _absent_text(name: str) -> Callable[[Sandbox, Request, Out], None]:
    def absent(box: Sandbox, request: Request, text: Out) -> None:
        _need_client(request)
        raise facts.nothing_known(name)

    return absent


_BOT_DOC = "NONE: we do not analyse bots."
_NETWORK_DOC = "NONE: we have no data about proxies and VPNs."

# name -> what the reference says of it
_CONSTANTS = {
    "downstream_client_ddos_detected": "Whether it is part of an attack; we never say so.",
    "fastly_key_is_valid": "Whether it carries a key that may purge; there are none yet.",
    "downstream_bot_analyzed": "Whether bots were looked for: no.",
    "downstream_bot_detected": "Whether a bot was found: no.",
}
_NUMBERS = {
    "downstream_tls_client_cert_verify_result": facts.TLS_DOC,
    "downstream_bot_category_kind": _BOT_DOC,
    "downstream_bot_verified": _BOT_DOC,
    **{
        f"downstream_resvpnproxy_is_{kind}": _NETWORK_DOC
        for kind in (
            "anonymous",
            "anonymous_vpn",
            "hosting_provider",
            "proxy_over_vpn",
            "public_proxy",
            "relay_proxy",
            "residential_proxy",
            "smart_dns_proxy",
            "tor_exit_node",
            "vpn_datacenter",
        )
    },
}
_TEXTS = {
    **dict.fromkeys(facts.TLS_TEXTS, facts.TLS_DOC),
    **dict.fromkeys(facts.FINGERPRINT_TEXTS, facts.FINGERPRINT_DOC),
    "downstream_tls_client_servername": facts.TLS_DOC,
    "downstream_bot_name": _BOT_DOC,
    "downstream_bot_category": _BOT_DOC,
    "downstream_resvpnproxy_vpn_service_name": _NETWORK_DOC,
}


def _declare() -> None:
    for name, doc in _CONSTANTS.items():
        zero = _constant(0)
        zero.__doc__ = doc
        abi.named(name)(zero)
    for name, doc in _NUMBERS.items():
        number = _absent_number(name)
        number.__doc__ = doc
        abi.named(name)(number)
    for name, doc in _TEXTS.items():
        text = _absent_text(name)
        text.__doc__ = doc
        abi.named(name)(text)


_declare()

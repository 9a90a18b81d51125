"""`fastly_http_downstream`: what is known of the client, and asking for its next request.

A sandbox serves one request: `next_request` gives a promise that is ready at once, and waiting for
it says NONE, which every SDK takes as "no more".  Every other question names the request it is
about; one that the guest made itself has no client (ERROR).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from edge.abi.codec import U32, Bits, Handle, Out, OutList, OutOctets
from edge.abi.fastly import facts
from edge.abi.fastly.heads import Request
from edge.abi.fastly.ready import RequestPromise
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, Failed, LimitExceeded, Missing, Unsupported

abi = HostModule("fastly_http_downstream", FASTLY)

_TIMEOUT = 0b10
NextOptions = Annotated[int, Bits(known=_TIMEOUT)]
Promise = Annotated[RequestPromise, Handle(RequestPromise)]


@abi.hostcall
def next_request(box: Sandbox, mask: NextOptions, options: U32) -> Promise:
    """Ask for another request in this sandbox; LIMITEXCEEDED while a promise is open."""
    if mask & _TIMEOUT:
        box.memory.require(options, 4)  # one SDK passes four of the struct's eight bytes
    if any(type(item) is RequestPromise for item in box.items.values()):
        raise LimitExceeded("one request promise is open already", limit="")
    return RequestPromise()


@abi.hostcall
def next_request_wait(box: Sandbox, promise: U32) -> tuple[U32, U32]:
    """NONE: there will be no further request; UNSUPPORTED before this one has been answered."""
    _take_promise(box, promise)
    if not box.downstream.responded:
        raise Unsupported("the current request has not been answered")
    raise Missing("a sandbox serves one request")


@abi.hostcall
def next_request_abandon(box: Sandbox, promise: U32) -> None:
    """Drop the promise."""
    _take_promise(box, promise)


def _take_promise(box: Sandbox, handle: int) -> None:
    if type(box.items[handle]) is not RequestPromise:
        raise BadHandle(f"handle {handle} is not a request promise")
    del box.items[handle]


@abi.hostcall
def downstream_original_header_names(box: Sandbox, request: Request, names: OutList) -> None:
    """The client's field names as it spelt them."""
    _need_client(request)
    names.fill(facts.original_names(box))


@abi.hostcall
def downstream_original_header_count(box: Sandbox, request: Request) -> U32:
    """How many fields the client sent."""
    _need_client(request)
    return facts.original_count(box)


@abi.hostcall
def downstream_client_ip_addr(box: Sandbox, request: Request, octets: OutOctets) -> U32:
    """The client's address in 4 or 16 octets."""
    _need_client(request)
    return octets.fill(facts.client_address(box))


@abi.hostcall
def downstream_server_ip_addr(box: Sandbox, request: Request, octets: OutOctets) -> U32:
    """The address the client connected to, in 4 or 16 octets."""
    _need_client(request)
    return octets.fill(facts.server_address(box))


@abi.hostcall
def downstream_client_request_id(box: Sandbox, request: Request, request_id: Out) -> None:
    """The request id: 32 hexadecimal digits."""
    _need_client(request)
    request_id.fill(facts.request_id(box))


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

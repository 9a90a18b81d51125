"""`fastly_http_req`: request heads.  What sends them is in `sending`, `dynamic` and `handoff`."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import U32, Bits, Choice, Out, OutBytes, OutList, OutOctets, Span
from edge.abi.codec import Handle as HandleCodec
from edge.abi.fastly import facts
from edge.abi.fastly.fields import declare_field_calls
from edge.abi.fastly.heads import (
    CacheOverride,
    FramingMode,
    GuestRequest,
    HttpVersion,
    Request,
)
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, InvalidArgument, Unsupported
from edge.http.body import Body

abi = HostModule("fastly_http_req", FASTLY)

Version = Annotated[HttpVersion, Choice(HttpVersion)]
Framing = Annotated[FramingMode, Choice(FramingMode)]
PASS = 0b0001
_OVERRIDES = 0b1111  # pass, ttl, stale_while_revalidate, pci
_LOOKUP_TIMEOUT = 0b10000
OverrideTag = Annotated[int, Bits(known=_OVERRIDES)]
OverrideTagV3 = Annotated[int, Bits(known=_OVERRIDES | _LOOKUP_TIMEOUT)]
Encodings = Annotated[int, Bits(known=0b1)]  # gzip
# RFC 9110 has no longest method; the SDKs read them into 1,024 bytes.
Method = Annotated[bytes, Span(limit=1024)]
Uri = Annotated[bytes, Span()]
_MAX_SURROGATE_KEY = 16 * 1024
SurrogateKey = Annotated[bytes, Span(limit=_MAX_SURROGATE_KEY)]
NewRequest = Annotated[GuestRequest, HandleCodec(GuestRequest)]
ClosedRequest = Annotated[GuestRequest, HandleCodec(GuestRequest, consumed=True)]


@abi.hostcall
def body_downstream_get(box: Sandbox) -> tuple[U32, U32]:
    """Handles of the client's request and its body; the same ones at each call."""
    handles = box.client_handles
    if handles is None:
        items = box.items
        first = items.next
        if len(items) + 2 > items.ceiling:
            box.make_room()
        items[first] = GuestRequest(box, from_client=True)
        items[first + 1] = box.downstream.body
        items.next = first + 2
        handles = box.client_handles = (first, first + 1)
    return handles


@abi.hostcall
def new(box: Sandbox) -> NewRequest:
    """A new request head: GET / HTTP/1.1."""
    return GuestRequest(box)


@abi.hostcall
def close(box: Sandbox, request: ClosedRequest) -> None:
    """Drop a head; its handle is consumed."""
    request.release(box)


declare_field_calls(abi, Request)


@abi.hostcall
def method_get(box: Sandbox, request: Request, method: Out) -> None:
    """The method."""
    method.fill(request.method)


@abi.hostcall
def method_set(box: Sandbox, request: Request, method: Method) -> None:
    """Set the method: a token, whose case is kept; ERROR otherwise."""
    request.set_method(method)


@abi.hostcall
def uri_get(box: Sandbox, request: Request, uri: Out) -> None:
    """The URI; the client's is absolute."""
    uri.fill(request.uri)


@abi.hostcall
def uri_set(box: Sandbox, request: Request, uri: Uri) -> None:
    """Set the URI; ERROR when it is none."""
    request.set_uri(uri)


@abi.hostcall
def version_get(box: Sandbox, request: Request) -> U32:
    """The HTTP version, as `http_version`."""
    return request.version


@abi.hostcall
def version_set(box: Sandbox, request: Request, version: Version) -> None:
    """Set the HTTP version that a backend is asked for."""
    request.version = version


@abi.hostcall
def framing_headers_mode_set(box: Sandbox, request: Request, mode: Framing) -> None:
    """Whether the guest's own Content-Length and Transfer-Encoding are used when they are valid."""
    request.manual_framing = mode is FramingMode.MANUALLY_FROM_HEADERS


@abi.hostcall
def cache_override_set(
    box: Sandbox, request: Request, tag: OverrideTag, ttl: U32, stale_while_revalidate: U32
) -> None:
    """Keep what the guest asks of the cache until the request is sent."""
    request.set_cache_override(CacheOverride(tag, ttl, stale_while_revalidate))


@abi.hostcall
def cache_override_v2_set(
    box: Sandbox,
    request: Request,
    tag: OverrideTag,
    ttl: U32,
    stale_while_revalidate: U32,
    surrogate_key: SurrogateKey,
) -> None:
    """The same with a surrogate key to add."""
    override = CacheOverride(tag, ttl, stale_while_revalidate, surrogate_key)
    request.set_cache_override(override)


@abi.hostcall
def cache_override_v3_set(
    box: Sandbox, request: Request, tag: OverrideTagV3, override: U32
) -> None:
    """The same in a struct, with how long a lookup in the cache may take."""
    ttl, stale, start, length, timeout = box.memory.u32_list(override, 5)
    if length > _MAX_SURROGATE_KEY:
        raise InvalidArgument(f"a surrogate key of {length} bytes, {_MAX_SURROGATE_KEY} allowed")
    key = box.memory.read(start, length)
    request.set_cache_override(
        CacheOverride(tag, ttl, stale, key, timeout if tag & _LOOKUP_TIMEOUT else None)
    )


@abi.hostcall
def auto_decompress_response_set(box: Sandbox, request: Request, encodings: Encodings) -> None:
    """Keep which encodings we should undo on the response."""
    request.auto_decompress = encodings


# Older spellings of `fastly_http_downstream`, which asks the same of a given request ----------


@abi.hostcall
def original_header_names_get(box: Sandbox, names: OutList) -> None:
    """The client's field names as it spelt them."""
    names.fill(facts.original_names(box))


@abi.hostcall
def original_header_count(box: Sandbox) -> U32:
    """How many fields the client sent."""
    return facts.original_count(box)


@abi.hostcall
def downstream_client_ip_addr(box: Sandbox, octets: OutOctets) -> U32:
    """The client's address in 4 or 16 octets."""
    return octets.fill(facts.client_address(box))


@abi.hostcall
def downstream_server_ip_addr(box: Sandbox, octets: OutOctets) -> U32:
    """The address the client connected to, in 4 or 16 octets."""
    return octets.fill(facts.server_address(box))


@abi.hostcall
def downstream_client_request_id(box: Sandbox, request_id: Out) -> None:
    """The request id: 32 hexadecimal digits."""
    request_id.fill(facts.request_id(box))


@abi.hostcall
def downstream_compliance_region(box: Sandbox, region: Out) -> None:
    """The compliance region; always `none`."""
    region.fill(facts.COMPLIANCE_REGION)


@abi.hostcall
def downstream_client_ddos_detected(box: Sandbox) -> U32:
    """Whether the request is part of an attack; we never say so."""
    return 0


@abi.hostcall
def fastly_key_is_valid(box: Sandbox) -> U32:
    """Whether the request carries a key that may purge; there are none yet."""
    return 0


def _absent_text(name: str, doc: str) -> None:
    def answer(box: Sandbox, text: Out) -> None:
        raise facts.nothing_known(name)

    answer.__doc__ = doc
    abi.named(name)(answer)


for _name in facts.TLS_TEXTS + facts.FINGERPRINT_TEXTS:
    _absent_text(_name, facts.TLS_DOC if "tls" in _name else facts.FINGERPRINT_DOC)


@abi.hostcall
def downstream_tls_client_cert_verify_result(box: Sandbox) -> U32:
    """NONE: the connection is not TLS."""
    raise facts.nothing_known("downstream_tls_client_cert_verify_result")


@abi.hostcall
def downstream_tls_ja3_md5(box: Sandbox, digest: U32) -> U32:
    """NONE: the connection is not TLS."""
    raise facts.nothing_known("downstream_tls_ja3_md5")


NO_FIREWALL = "there is no web application firewall to ask"
_CORP, _WORKSPACE, _CLIENT = 0b0010, 0b0100, 0b1000
InspectMask = Annotated[int, Bits(known=_CORP | _WORKSPACE | _CLIENT)]


@abi.named("inspect", unsupported=NO_FIREWALL)
def inspect_(
    box: Sandbox, request: Request, body: U32, mask: InspectMask, info: U32, verdict: OutBytes
) -> U32:
    """Look at the arguments; then there is nobody to ask."""
    memory = box.memory
    if not isinstance(box.items[body], Body):
        raise BadHandle(f"handle {body} is not a body")
    if not mask & _CORP or not mask & _WORKSPACE:
        raise InvalidArgument("an inspection names its corp and its workspace")
    for offset in (0, 8):
        memory.require(memory.u32(info + offset), memory.u32(info + offset + 4))
    if mask & _CLIENT and memory.u32(info + 20) not in (0, 4, 16):
        raise InvalidArgument("a client address is 4 or 16 octets")
    raise Unsupported(NO_FIREWALL)

"""The request as a guest may see it: what a hop removes, adds and replaces.  Not the parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.http.addresses import TrustedProxies, format_address, pack_address
from edge.http.headers import HOP_BY_HOP, RESERVED_PREFIX, connection_options
from edge.http.message import Headers, RequestHead
from edge.http.request_head import RawHead, split_fields

_request_id = re.compile(rb"[0-9a-f]{32}")

# Forwarding fields say who the client is: anybody's but a trusted proxy's are lies.
_FORWARDED = frozenset((b"forwarded", b"x-real-ip", b"x-request-id"))
# Ours to answer or to set, so never passed on as they came.
_OURS = HOP_BY_HOP | {b"expect", b"x-forwarded-for", b"x-request-id"}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection: octets of both addresses, and whether it is trusted.

    An empty address is one that could not be told.  `scheme` is the connection's own.
    """

    address: bytes
    local: bytes
    trusted: bool = False
    scheme: bytes = b"http"
    proxies: TrustedProxies = TrustedProxies()  # noqa: RUF009 - immutable


@dataclass(slots=True)
class RequestView:
    """A head for the guest and who sent it."""

    head: RequestHead
    client: bytes
    request_id: str


def believed_request_id(raw: RawHead, peer: Peer) -> str | None:
    """The id that a trusted proxy gave this request, if it is 32 hexadecimal characters."""
    if not peer.trusted or b"\n" not in raw.block:
        return None
    given = [value for name, value in split_fields(raw.block) if name.lower() == b"x-request-id"]
    if len(given) == 1 and _request_id.fullmatch(given[0].lower()):
        return given[0].lower().decode()
    return None


def forwarded_scheme(raw: RawHead, peer: Peer) -> bytes:
    """The scheme the client used: the connection's, unless a trusted proxy says otherwise."""
    if not peer.trusted:
        return peer.scheme
    given = [
        value.lower() for name, value in split_fields(raw.block)
        if name.lower() == b"x-forwarded-proto"
    ]
    if len(given) == 1 and given[0] in (b"http", b"https"):
        return given[0]
    return raw.scheme or peer.scheme


def client_of(raw: RawHead, peer: Peer) -> bytes:
    """The client's octets: the peer's, or what trusted proxies say."""
    if not peer.trusted:
        return peer.address
    values = [
        value for name, value in split_fields(raw.block) if name.lower() == b"x-forwarded-for"
    ]
    return peer.proxies.client_of(peer.address, values) if values else peer.address


def view_request(raw: RawHead, peer: Peer, scheme: bytes, request_id: str) -> RequestHead:
    """The head that a guest sees (RFC 9110 section 7.6 and the forwarding conventions)."""
    fields = [(name.lower(), name, value) for name, value in split_fields(raw.block)]
    named = connection_options(value for name, _, value in fields if name == b"connection")
    trusted = peer.trusted
    headers: Headers = []
    chain: list[bytes] = []
    for name, _, value in fields:
        if name == b"host":
            headers.append((name, raw.authority.text))
            continue
        if name == b"x-forwarded-for":
            if trusted:
                chain.append(value)
            continue
        if name in _OURS or name in named or name.startswith(RESERVED_PREFIX):
            continue
        if not trusted and (name in _FORWARDED or name.startswith(b"x-forwarded-")):
            continue
        headers.append((name, value))
    if peer.address:
        chain.append(format_address(peer.address).encode())
    if chain:
        headers.append((b"x-forwarded-for", b", ".join(chain)))
    headers.append((b"x-request-id", request_id.encode()))
    return RequestHead(
        method=raw.method,
        target=raw.target,
        authority=raw.authority.text,
        scheme=scheme,
        version=10 + raw.minor,
        headers=headers,
        original_names=[name for _, name, _ in fields],
    )


def peer_of(
    remote: str, local: str, proxies: TrustedProxies, scheme: bytes = b"http"
) -> Peer:
    """The peer of a connection between two textual IP addresses ("" for unknown)."""
    address = _octets(remote)
    return Peer(address, _octets(local), address in proxies, scheme, proxies)


def _octets(text: str) -> bytes:
    try:
        return pack_address(text)
    except ValueError:
        return b""

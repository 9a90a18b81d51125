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
_FORWARDED = frozenset((b"forwarded", b"x-real-ip"))
# Ours to answer or to set, so never passed on as they came.
_PREFIXES = (RESERVED_PREFIX, b"x-forwarded-")
_OURS = HOP_BY_HOP | {b"expect", b"x-forwarded-for", b"x-request-id"}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection: octets of both addresses, and whether it is trusted.

    An empty address is one that could not be told.  `scheme` is the connection's own.
    """

    address: bytes
    local: bytes
    proxies: TrustedProxies
    scheme: bytes
    trusted: bool
    text: bytes  # the address as X-Forwarded-For shows it


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
        value.lower()
        for name, value in split_fields(raw.block)
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
    fields = split_fields(raw.block)
    trusted = peer.trusted
    named: frozenset[bytes] = frozenset()
    headers: Headers = []
    names: list[bytes] = []
    chain: list[bytes] = []
    for spelt, value in fields:
        names.append(spelt)
        name = spelt.lower()
        if name == b"host":
            headers.append((name, raw.authority.text))
        elif name in _OURS or name.startswith(_PREFIXES):
            if name == b"connection":
                named |= connection_options((value,))
            elif name == b"x-forwarded-for" and trusted:
                chain.append(value)
            elif name.startswith(b"x-forwarded-") and name not in _OURS and trusted:
                headers.append((name, value))
        elif trusted or name not in _FORWARDED:
            headers.append((name, value))
    if named:
        headers = [field for field in headers if field[0] not in named or field[0] == b"host"]
    chain.append(peer.text)
    headers.append((b"x-forwarded-for", b", ".join(chain)))
    headers.append((b"x-request-id", request_id.encode()))
    return RequestHead(
        method=raw.method,
        target=raw.target,
        authority=raw.authority.text,
        scheme=scheme,
        version=10 + raw.minor,
        headers=headers,
        original_names=names,
    )


def peer_of(remote: str, local: str, proxies: TrustedProxies, scheme: bytes = b"http") -> Peer:
    """The peer of a connection between two textual IP addresses ("" for unknown)."""
    return peer_from(_octets(remote), _octets(local), proxies, scheme)


def peer_from(address: bytes, local: bytes, proxies: TrustedProxies, scheme: bytes) -> Peer:
    """The peer of a connection between two addresses in octets."""
    trusted = address in proxies
    return Peer(address, local, proxies, scheme, trusted, format_address(address).encode())


def _octets(text: str) -> bytes:
    try:
        return pack_address(text)
    except ValueError:
        return b""

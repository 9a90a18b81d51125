"""Addresses: authorities (`host:port`) made canonical, and whose word about a client is believed.

Nothing here resolves names or touches sockets.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import InvalidHead

# A registered name as certificates and DNS know it, with the underscore that people really use.
# RFC 3986 allows percent-encoding and sub-delims too: nothing routes on them, so they are refused.
_LABEL = rb"[0-9a-z_](?:[0-9a-z_-]{0,61}[0-9a-z_])?+"
_name = re.compile(rb"(" + _LABEL + rb"(?:\." + _LABEL + rb")*+)\.?(?::([0-9]{0,5}))?")
_literal = re.compile(rb"\[([0-9a-f:.]{2,45})\](?::([0-9]{0,5}))?")

_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


@dataclass(frozen=True, slots=True)
class Authority:
    """Where a request is for.  `text` is canonical: lower-case, no default port, no final dot."""

    text: bytes
    host: bytes  # the same without any port; an IPv6 literal keeps its brackets


def parse_authority(raw: bytes, scheme: bytes = b"http") -> Authority:
    """The canonical form of a Host value or of a target's authority.

    Raises InvalidHead for anything but a name, an IPv4 or a bracketed IPv6 address with an optional
    port from 1 to 65535; user information is refused (RFC 9110 section 4.2.4).
    """
    lowered = raw.lower()
    found = _name.fullmatch(lowered)
    if found is not None:
        host = found[1]
        if len(host) > 253:  # RFC 1035 section 2.3.4, in text form
            raise InvalidHead(f"host of {len(host)} bytes, 253 allowed")
    else:
        found = _literal.fullmatch(lowered)
        if found is None:
            raise InvalidHead("not a host name or address with an optional port")
        try:
            packed = socket.inet_pton(socket.AF_INET6, found[1].decode())
        except OSError:
            raise InvalidHead("not an IPv6 address between the brackets") from None
        host = b"[" + socket.inet_ntop(socket.AF_INET6, packed).encode() + b"]"
    port = found[2]
    if not port:
        return Authority(host, host)
    number = int(port)
    if not 1 <= number <= 65535:
        raise InvalidHead(f"port {number} is not between 1 and 65535")
    port = b"%d" % number  # one spelling of each port: `:0080` is `:80`
    if port == _DEFAULT_PORTS.get(scheme):
        return Authority(host, host)
    return Authority(host + b":" + port, host)


def pack_address(text: str) -> bytes:
    """The 4 or 16 octets of an IP address; an IPv4-mapped IPv6 address gives 4.

    Raises ValueError if `text` is no address.  A zone (`%eth0`) is ignored.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed


def format_address(packed: bytes) -> str:
    """The text of 4 or 16 octets; "unknown" for none (a peer that had gone before we asked)."""
    if not packed:
        return "unknown"
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


class TrustedProxies:
    """The networks whose word about the client (address, scheme, request id) is believed."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """`networks` in CIDR form.  Raises ValueError naming the one that is no network."""
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, packed: bytes) -> bool:
        if not self._networks or not packed:
            return False
        address = ipaddress.ip_address(packed)
        return any(address in network for network in self._networks)

    def client_of(self, peer: bytes, forwarded_for: Sequence[bytes]) -> bytes:
        """The client's octets: the rightmost address in X-Forwarded-For that is not trusted.

        Each trusted hop vouches for the entry it appended, and for no more: entries further left
        were in the client's hands.  An entry that is not an address ends the search there.
        """
        client = peer
        entries = b",".join(forwarded_for).split(b",")
        for entry in reversed(entries[-32:]):  # no real chain is longer; bounds the work
            if client not in self:
                break
            try:
                client = pack_address(_without_port(entry.strip(b" \t").decode("ascii")))
            except ValueError:  # also UnicodeDecodeError
                break
        return client


def _without_port(entry: str) -> str:
    """Some proxies write `1.2.3.4:567` or `[::1]:567`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry

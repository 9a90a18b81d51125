"""Which IP addresses are not the public Internet, however they are spelt.  Values only.

The tables are IANA's special-purpose registries (RFC 6890 and its updates), multicast, reserved
space, and the few public addresses that clouds use for their own machinery.  For IPv6 it is the
other way round: only 2000::/3 has ever been given out (RFC 4291 section 2.4), so all else is
special, including what will be invented later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

IPAddress = IPv4Address | IPv6Address

_V4_SPECIAL = {
    "0.0.0.0/8": "this network, RFC 791",
    "10.0.0.0/8": "private, RFC 1918",
    "100.64.0.0/10": "carrier-grade NAT, RFC 6598",
    "127.0.0.0/8": "loopback, RFC 1122",
    "168.63.129.16/32": "platform address of a cloud",  # Azure's; public, and on every machine
    "169.254.0.0/16": "link-local, where clouds keep metadata, RFC 3927",
    "172.16.0.0/12": "private, RFC 1918",
    "192.0.0.0/24": "IETF protocol assignments, RFC 6890",
    "192.0.2.0/24": "documentation, RFC 5737",
    "192.31.196.0/24": "AS112, RFC 7535",
    "192.52.193.0/24": "AMT, RFC 7450",
    "192.88.99.0/24": "6to4 relays, RFC 7526",
    "192.168.0.0/16": "private, RFC 1918",
    "192.175.48.0/24": "AS112, RFC 7534",
    "198.18.0.0/15": "benchmarking, RFC 2544",
    "198.51.100.0/24": "documentation, RFC 5737",
    "203.0.113.0/24": "documentation, RFC 5737",
    "224.0.0.0/4": "multicast, RFC 5771",
    "240.0.0.0/4": "reserved, RFC 1112",
}
_V6_SPECIAL = {
    "::/128": "unspecified, RFC 4291",
    "::1/128": "loopback, RFC 4291",
    "64:ff9b:1::/48": "local NAT64, RFC 8215",
    "100::/64": "discarded, RFC 6666",
    "2001::/23": "IETF protocol assignments and Teredo, RFC 2928",
    "2001:db8::/32": "documentation, RFC 3849",
    "2002::/16": "6to4, RFC 3056",
    "2620:4f:8000::/48": "AS112, RFC 7534",
    "3fff::/20": "documentation, RFC 9637",
    "5f00::/16": "segment routing, RFC 9602",
    "fc00::/7": "private, RFC 4193",
    "fe80::/10": "link-local, RFC 4291",
    "fec0::/10": "site-local, RFC 3879",
    "ff00::/8": "multicast, RFC 4291",
}
_V4_TABLE: list[tuple[IPv4Network, str]] = [(IPv4Network(n), why) for n, why in _V4_SPECIAL.items()]
_V6_TABLE: list[tuple[IPv6Network, str]] = [(IPv6Network(n), why) for n, why in _V6_SPECIAL.items()]
_V6_GLOBAL = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: stands for an IPv4 address, public or not

_MASK = 0xFFFF_FFFF
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2
_COMPATIBLE = IPv6Network("::/96")  # section 2.5.5.1, deprecated
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # SIIT, RFC 2765
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_ENDS_WITH_IPV4 = (_MAPPED, _COMPATIBLE, _TRANSLATED, _NAT64, _LOCAL_NAT64)
_TEREDO = IPv6Network("2001::/32")
_6TO4 = IPv6Network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214 section 6.1: upper half of the interface identifier

_number = re.compile(r"0x[0-9a-f]{0,16}|[0-9]{1,20}", re.ASCII)


def parse_literal(host: str) -> IPAddress | None:
    """The address that `host` spells, or None if it is a name.

    Takes every form that `inet_aton` takes (`127.1`, `0x7f.0.0.1`, `2130706433`, `0177.0.0.1`), a
    final dot, brackets, and IPv4-mapped and -compatible IPv6, which give IPv4.
    """
    text = host.strip("[]").removesuffix(".").lower()
    if ":" in text:
        try:
            return normal(IPv6Address(text))
        except ValueError:
            return None
    parts = text.split(".")
    if len(parts) > 4 or not all(_number.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [_read_number(part) for part in parts]
    except ValueError:  # 08 is no octal number: then it is a name, if a strange one
        return None
    *leading, last = numbers
    if any(number > 255 for number in leading) or last >= 1 << (8 * (4 - len(leading))):
        return None
    for place, number in enumerate(leading):
        last |= number << (24 - 8 * place)
    return IPv4Address(last)


def _read_number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") else int(text)


def normal(address: IPAddress) -> IPAddress:
    """One spelling per destination: IPv4-mapped and IPv4-compatible addresses become IPv4.

    A zone means nothing to those.
    """
    if isinstance(address, IPv6Address):
        compatible = address in _COMPATIBLE and int(address) > 1
        if compatible or address in _MAPPED:
            return IPv4Address(int(address) & _MASK)
    return address


def special_kind(address: IPAddress) -> str:
    """What makes `address` special, in words; empty for one of the public Internet.

    An address that leads to another one by translation or in a tunnel is as special as that one.
    """
    for each in (address, *embedded(address)):
        if why := _kind(each):
            return why if each == address else f"{why}, inside {address}"
    return ""


def _kind(address: IPAddress) -> str:
    if isinstance(address, IPv4Address):
        return next((why for network, why in _V4_TABLE if address in network), "")
    if address.scope_id:
        return "an address with a zone, RFC 4007"
    if address in _NAT64:
        return ""  # what is inside decides
    for network, why in _V6_TABLE:
        if address in network:
            return why
    return "" if address in _V6_GLOBAL else "outside of global unicast, RFC 4291"


def embedded(address: IPAddress) -> Iterator[IPv4Address]:
    """Every IPv4 address that packets to `address` may end up at."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    if any(address in network for network in _ENDS_WITH_IPV4):
        yield IPv4Address(number & _MASK)
    if address in _6TO4:
        yield IPv4Address(number >> 80 & _MASK)
    if address in _TEREDO:  # RFC 4380 section 4: the server, and the client with its bits flipped
        yield IPv4Address(number >> 64 & _MASK)
        yield IPv4Address(~number & _MASK)
    if number >> 32 & _MASK in _ISATAP:
        yield IPv4Address(number & _MASK)

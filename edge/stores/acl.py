"""Access control lists: the entry with the longest prefix that holds an address.  No ABI, no files.

An IPv4 address is one however it is written: `::ffff:192.0.2.1` is looked up as 192.0.2.1, and a
prefix below `::ffff:0:0/96` is one of IPv4.  Prefixes of IPv6 hold no IPv4 address.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from edge.errors import InvalidArgument
from edge.model.acl import AclEntry

_MAPPED = bytes(10) + b"\xff\xff"


def plain_address(address: bytes) -> bytes:
    """4 or 16 octets, IPv4-mapped ones as 4.  Raises InvalidArgument for any other length."""
    if len(address) == 4:
        return address
    if len(address) != 16:
        raise InvalidArgument(f"an address of {len(address)} octets")
    return address[12:] if address.startswith(_MAPPED) else address


# How far an address is shifted, and the entries by what is left of it; longest prefix first.
_Levels = list[tuple[int, dict[int, AclEntry]]]


class Acl:
    """One list.  A lookup asks one dict for each prefix length that occurs, and never more."""

    __slots__ = ("_levels",)

    def __init__(self, entries: Iterable[AclEntry]) -> None:
        """Of entries with equal prefixes the last counts."""
        found: dict[int, dict[int, dict[int, AclEntry]]] = {32: {}, 128: {}}
        for entry in entries:
            bits, shift, prefix = _prefix(entry)
            found[bits].setdefault(shift, {})[prefix] = entry
        self._levels: dict[int, _Levels] = {
            bits // 8: sorted(levels.items()) for bits, levels in found.items()
        }

    def lookup(self, address: bytes) -> AclEntry | None:
        """4 or 16 octets; anything else raises InvalidArgument."""
        address = plain_address(address)
        number = int.from_bytes(address, "big")
        for shift, entries in self._levels[len(address)]:
            entry = entries.get(number >> shift)
            if entry is not None:
                return entry
        return None


def _prefix(entry: AclEntry) -> tuple[int, int, int]:
    """Bits of an address, how many of them the prefix leaves open, and the prefix itself."""
    network = entry.prefix
    number, length = int(network.network_address), network.prefixlen
    if isinstance(network, IPv4Network):
        bits = 32
    elif length >= 96 and number >> 32 == 0xFFFF:
        bits, length, number = 32, length - 96, number & 0xFFFF_FFFF
    else:
        bits = 128
    return bits, bits - length, number >> (bits - length)

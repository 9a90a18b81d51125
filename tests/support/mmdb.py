"""Writes MaxMind databases, so that tests need none that somebody else has made.

Records of 24 bits, IPv6 tree with IPv4 below ::/96, types as the format's documentation numbers
them.  Independent of the reader under test.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any


class Short(int):
    """To be written as 16 bits."""


class Long(int):
    """To be written as 64 bits."""


Node = list[Any]  # two places: None, another node, or the offset of a record


def mmdb(networks: Mapping[str, Mapping[str, Any]], kind: str = "GeoLite2-City") -> bytes:
    """The bytes of a database that has these records."""
    root: Node = [None, None]
    data = b""
    for text, record in networks.items():
        _place(root, text, len(data))
        data += encoded(record)
    nodes = _numbered(root)
    numbers = {id(node): number for number, node in enumerate(nodes)}
    tree = b"".join(
        _record(place, numbers, len(nodes)).to_bytes(3, "big") for node in nodes for place in node
    )
    metadata = {
        "node_count": len(nodes),
        "record_size": Short(24),
        "ip_version": Short(6),
        "database_type": kind,
        "languages": ["en"],
        "binary_format_major_version": Short(2),
        "binary_format_minor_version": Short(0),
        "build_epoch": Long(1_700_000_000),
        "description": {"en": "made by a test"},
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(metadata)


def encoded(value: Any) -> bytes:
    """One value of the data section."""
    if isinstance(value, str):
        text = value.encode()
        return _control(2, len(text)) + text
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, bool):
        return _control(14, int(value))
    if isinstance(value, int):
        number = value.to_bytes(8, "big").lstrip(b"\0")
        kind = 5 if isinstance(value, Short) else 9 if isinstance(value, Long) else 6
        return _control(kind, len(number)) + number
    if isinstance(value, Mapping):
        pairs = b"".join(encoded(key) + encoded(item) for key, item in value.items())
        return _control(7, len(value)) + pairs
    return _control(11, len(value)) + b"".join(encoded(item) for item in value)


def _control(kind: int, size: int) -> bytes:
    assert size < 285
    head, extended = (kind << 5, b"") if kind < 8 else (0, bytes([kind - 7]))
    if size < 29:
        return bytes([head | size]) + extended
    return bytes([head | 29]) + extended + bytes([size - 29])


def _place(root: Node, text: str, offset: int) -> None:
    network = ip_network(text)
    number, length = int(network.network_address), network.prefixlen
    if isinstance(network, IPv4Network):
        length += 96
    node = root
    for at in range(length):
        bit = number >> (127 - at) & 1
        if at == length - 1:
            node[bit] = offset
        else:
            if node[bit] is None:
                node[bit] = [None, None]
            node = node[bit]


def _numbered(root: Node) -> list[Node]:
    found = [root]
    for node in found:
        found += [place for place in node if isinstance(place, list)]
    return found


def _record(place: Any, numbers: Mapping[int, int], count: int) -> int:
    if place is None:
        return count
    return numbers[id(place)] if isinstance(place, list) else count + 16 + int(place)

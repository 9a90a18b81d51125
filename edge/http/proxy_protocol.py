"""The PROXY protocol, versions 1 and 2: the address a load balancer speaks for.  No I/O.

Read strictly, once, before any HTTP.  Whoever may send it can claim any address, so the caller
asks for it only on listeners made for it and only from trusted addresses.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass

from edge.http.addresses import pack_address
from edge.http.refusal import BadRequest, Refused

V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_MAX = 107  # "worst case", PROXY protocol specification section 2.1
# TLVs (SNI, certificates) may make a v2 header long; 64 KiB are possible, this is what is used.
V2_MAX = 4096

_v1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) "
                 rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n")  # fmt: skip
_v1_unknown = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Proxied:
    """A complete header: its size in bytes, and the addresses (b"" both: use the connection's)."""

    size: int
    source: bytes = b""
    destination: bytes = b""


def read_proxy_header(data: bytes) -> Proxied | None:
    """The header at the start of `data`, or None if it is not complete.  Raises Refused."""
    if data[:1] == b"P":
        return _read_v1(data)
    if data[:12] == V2_SIGNATURE[: len(data[:12])]:
        return _read_v2(data) if len(data) >= 16 else None
    raise _refused("no PROXY header")


def _read_v1(data: bytes) -> Proxied | None:
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        start = data[:V1_MAX]
        if len(data) >= V1_MAX or not b"PROXY ".startswith(start[:6]):
            raise _refused("a malformed PROXY line")
        return None
    line = data[: end + 2]
    if _v1_unknown.fullmatch(line):
        return Proxied(len(line))
    found = _v1.fullmatch(line)
    if found is None or int(found[4]) > 65535 or int(found[5]) > 65535:
        raise _refused("a malformed PROXY line")
    family = socket.AF_INET if found[1] == b"TCP4" else socket.AF_INET6
    try:
        for part in (2, 3):
            socket.inet_pton(family, found[part].decode())
    except OSError:
        raise _refused("an address of the wrong family in a PROXY line") from None
    return Proxied(len(line), pack_address(found[2].decode()), pack_address(found[3].decode()))


def _read_v2(data: bytes) -> Proxied | None:
    kind, family, length = struct.unpack_from("!BBH", data, 12)
    if kind not in (0x20, 0x21):
        raise _refused("a PROXY v2 header of an unknown version or command")
    if length > V2_MAX:
        raise _refused(f"a PROXY v2 header of {length} bytes, {V2_MAX} allowed")
    size = 16 + length
    if len(data) < size:
        return None
    # LOCAL (a health check of the balancer itself) and families without IP: no address is told.
    if kind == 0x20 or family == 0x00 or family >> 4 == 3:
        return Proxied(size)
    width = {0x11: 4, 0x21: 16}.get(family)  # TCP over IPv4 or IPv6; nothing else arrives by TCP
    if width is None or length < 2 * width + 4:
        raise _refused("a PROXY v2 header with a wrong address family or length")
    source, destination = data[16 : 16 + width], data[16 + width : 16 + 2 * width]
    return Proxied(size, _plain(source), _plain(destination))


def _plain(packed: bytes) -> bytes:
    """An IPv4-mapped IPv6 address as IPv4, as everywhere else."""
    mapped = len(packed) == 16 and packed[:12] == bytes(10) + b"\xff\xff"
    return packed[12:] if mapped else packed


def _refused(reason: str) -> Refused:
    return Refused(BadRequest.PROXY_PROTOCOL, 400, reason)

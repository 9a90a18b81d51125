"""PROXY protocol headers, both versions: whole, in parts, and wrong."""

from __future__ import annotations

import struct

import pytest

from edge.http.addresses import pack_address
from edge.http.proxy_protocol import V2_SIGNATURE, read_proxy_header
from edge.http.refusal import Refused


def v2(kind: int, family: int, payload: bytes) -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", kind, family, len(payload)) + payload


FOUR = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + struct.pack("!HH", 1000, 80)
SIX = pack_address("2001:db8::1") + pack_address("2001:db8::2") + struct.pack("!HH", 1, 2)
MAPPED = bytes(10) + b"\xff\xff\x01\x02\x03\x04" + SIX[16:]

GOOD = [
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n", "1.2.3.4", "5.6.7.8"),
    (b"PROXY TCP6 2001:db8::1 ::2 1 65535\r\n", "2001:db8::1", "::2"),
    (b"PROXY UNKNOWN\r\n", "", ""),
    (b"PROXY UNKNOWN ffff:f::ff 1 2 3\r\n", "", ""),
    (v2(0x21, 0x11, FOUR), "1.2.3.4", "5.6.7.8"),
    (v2(0x21, 0x11, FOUR + b"\x04\x00\x01x"), "1.2.3.4", "5.6.7.8"),
    (v2(0x21, 0x21, SIX), "2001:db8::1", "2001:db8::2"),
    (v2(0x21, 0x21, MAPPED), "1.2.3.4", "2001:db8::2"),
    (v2(0x20, 0x00, b""), "", ""),
    (v2(0x20, 0x11, FOUR), "", ""),
    (v2(0x21, 0x00, b"anything"), "", ""),
    (v2(0x21, 0x31, bytes(216)), "", ""),
]


@pytest.mark.parametrize(("header", "source", "destination"), GOOD)
def test_good_headers_are_read_and_nothing_behind_them(
    header: bytes, source: str, destination: str
) -> None:
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None or not end
    found = read_proxy_header(header + b"GET / HTTP/1.1\r\n")
    assert found is not None
    assert found.size == len(header)
    assert found.source == (pack_address(source) if source else b"")
    assert found.destination == (pack_address(destination) if destination else b"")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PUT / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY UNKNOWN" + b" x" * 60,
        b"\r\n\r\n\x00\r\nQUIX",
        v2(0x11, 0x11, FOUR),
        v2(0x22, 0x11, FOUR),
        v2(0x21, 0x12, FOUR),
        v2(0x21, 0x11, FOUR[:11]),
        v2(0x21, 0x21, SIX[:35]),
        v2(0x21, 0x41, SIX),
        V2_SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        read_proxy_header(data)

"""Authorities, client addresses and trusted proxies."""

from __future__ import annotations

import pytest

from edge.errors import InvalidHead
from edge.http.addresses import TrustedProxies, format_address, pack_address, parse_authority


@pytest.mark.parametrize(
    ("raw", "scheme", "text", "host"),
    [
        (b"example.com", b"http", b"example.com", b"example.com"),
        (b"EXAMPLE.com.", b"http", b"example.com", b"example.com"),
        (b"a:80", b"http", b"a", b"a"),
        (b"a:080", b"http", b"a", b"a"),
        (b"a.:", b"http", b"a", b"a"),
        (b"a:443", b"http", b"a:443", b"a"),
        (b"a:443", b"https", b"a", b"a"),
        (b"a:80", b"https", b"a:80", b"a"),
        (b"a_b-c.d:8080", b"http", b"a_b-c.d:8080", b"a_b-c.d"),
        (b"127.0.0.1:8080", b"http", b"127.0.0.1:8080", b"127.0.0.1"),
        (b"[0:0::1]:8080", b"http", b"[::1]:8080", b"[::1]"),
        (b"[FE80::A]", b"http", b"[fe80::a]", b"[fe80::a]"),
    ],
)
def test_authorities_have_one_spelling(raw: bytes, scheme: bytes, text: bytes, host: bytes) -> None:
    authority = parse_authority(raw, scheme)
    assert (authority.text, authority.host) == (text, host)


@pytest.mark.parametrize(
    "raw",
    [b"", b".", b"a..", b"a..b", b".a", b"-a", b"a-", b"a b", b"a,b", b"a/b", b"a\\b", b"a@b",
     b"a%41", b"a:x", b"a:123456", b"a:0", b"a:70000", b"a:-1", b"a:1:2", b"[::1", b"[]", b"[x]",
     b"[::1]x", b"[fe80::1%eth0]", b"[1.2.3.4]", b"::1", b"x" * 64, b"a." * 127 + b"ab",
     b"\xc3\xa4", b"a\x00", b"*", b"a'b", b'a"b', b"a<b"],
)  # fmt: skip
def test_what_is_no_authority_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidHead):
        parse_authority(raw)


def test_mapped_addresses_are_ipv4() -> None:
    assert pack_address("::ffff:1.2.3.4") == pack_address("1.2.3.4") == b"\x01\x02\x03\x04"
    assert pack_address("fe80::1%eth0") == pack_address("fe80::1")
    assert format_address(pack_address("::1")) == "::1"
    assert format_address(b"") == "unknown"


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ((), "10.0.0.1"),
        ((b"1.2.3.4",), "1.2.3.4"),
        ((b"6.6.6.6, 1.2.3.4",), "1.2.3.4"),
        ((b"6.6.6.6", b"1.2.3.4, 10.9.9.9"), "1.2.3.4"),
        ((b"1.2.3.4:567",), "1.2.3.4"),
        ((b"[2001:db8::1]:567",), "2001:db8::1"),
        ((b"2001:db8::1",), "2001:db8::1"),
        ((b"10.1.1.1, 10.2.2.2",), "10.1.1.1"),
        ((b"1.2.3.4, nonsense",), "10.0.0.1"),
        ((b"1.2.3.4, nonsense, 10.3.3.3",), "10.3.3.3"),
        ((b"",), "10.0.0.1"),
        ((b"\xff",), "10.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_address_nobody_trusts(
    chain: tuple[bytes, ...], client: str
) -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.client_of(pack_address("10.0.0.1"), chain) == pack_address(client)


def test_an_untrusted_peer_is_the_client_whatever_it_says() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    peer = pack_address("192.0.2.1")
    assert proxies.client_of(peer, (b"1.2.3.4",)) == peer
    assert peer not in proxies
    assert b"" not in proxies
    assert not TrustedProxies()
    with pytest.raises(ValueError, match="nonsense"):
        TrustedProxies(["nonsense"])

"""Every way to write or wrap an address that is not the public Internet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from edge.http.special_addresses import normal, parse_literal, special_kind

LOOPBACK_SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f.0.0.1", "0x7F000001", "2130706433",
    "0177.0.0.1", "017700000001", "0x7f.0x0.0x0.0x1", "127.0.0.1.", "00000177.1",
    "::ffff:127.0.0.1",    "[::ffff:7f00:1]", "::127.0.0.1", "::ffff:127.0.0.1.",
]  # fmt: skip


@pytest.mark.parametrize("text", LOOPBACK_SPELLINGS)
def test_every_spelling_of_an_address_is_that_address(text: str) -> None:
    assert parse_literal(text) == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "example.com", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296", "08.1.1.1", "1..2", "",
        ".", "0x7g.1", "127.0.0.1 ", "٣.1.1.1", "::g", "1.2.3.4:80", "a::b::c", "0x1ffffffff",
    ],
)  # fmt: skip
def test_what_is_no_address_is_taken_for_a_name(text: str) -> None:
    assert parse_literal(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("10.255.255.255", "private"),
        ("100.64.0.1", "carrier-grade"),
        ("100.100.100.200", "carrier-grade"),  # a cloud's metadata service
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "cloud"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "IETF"),  # another cloud's
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4"),
        ("192.168.1.1", "private"),
        ("198.19.255.255", "benchmarking"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.9", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::5db8:d822", "local NAT64"),
        ("::ffff:0:127.0.0.1", "outside of global"),
        ("100::1", "discarded"),
        ("2001::1", "IETF"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::1", "6to4"),
        ("2002:5db8:d822::1", "6to4"),
        ("2606:4700::5efe:a00:1", "private"),  # ISATAP to 10.0.0.1
        ("2606:4700::200:5efe:7f00:1", "loopback"),
        ("3fff::1", "documentation"),
        ("4000::1", "outside of global"),
        ("5f00::1", "segment routing"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "zone"),
        ("2606:4700::1111%1", "zone"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
    ],
)
def test_special_addresses_are_named(text: str, word: str) -> None:
    assert word in special_kind(normal(ip_address(text)))


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1",
        "192.167.255.255", "192.169.0.1", "198.17.0.1", "223.255.255.255", "2606:4700::1111",
        "2a00:1450::1", "64:ff9b::5db8:d822", "::ffff:1.1.1.1",
    ],
)  # fmt: skip
def test_addresses_of_the_public_internet_are_not_special(text: str) -> None:
    assert special_kind(normal(ip_address(text))) == ""


def test_mapped_addresses_become_ipv4() -> None:
    assert normal(ip_address("::ffff:93.184.216.34")) == ip_address("93.184.216.34")
    assert normal(ip_address("::1")) == ip_address("::1")


@pytest.mark.parametrize("text", ["::ffff:127.0.0.1%1", "::127.0.0.1%eth0"])
def test_a_zone_does_not_hide_an_ipv4_address(text: str) -> None:
    assert normal(ip_address(text)) == ip_address("127.0.0.1")

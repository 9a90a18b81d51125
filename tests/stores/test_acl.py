"""Access control lists: longest prefix, and addresses that can be written in two ways."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from edge.errors import InvalidArgument
from edge.model.acl import AclEntry
from edge.stores.acl import Acl


def acl(*entries: tuple[str, str]) -> Acl:
    return Acl(AclEntry(ip_network(prefix), action) for prefix, action in entries)


def action(found: Acl, address: str) -> str | None:
    entry = found.lookup(ip_address(address).packed)
    return None if entry is None else entry.action


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    entries = [("10.0.0.0/8", "far"), ("10.1.2.0/24", "near"), ("10.1.0.0/16", "middle")]
    for order in (entries, entries[::-1]):
        found = acl(*order)
        assert action(found, "10.1.2.3") == "near"
        assert action(found, "10.1.3.3") == "middle"
        assert action(found, "10.9.9.9") == "far"
        assert action(found, "11.0.0.0") is None


def test_of_equal_prefixes_the_last_counts() -> None:
    assert action(acl(("10.0.0.0/8", "first"), ("10.0.0.0/8", "last")), "10.0.0.1") == "last"


def test_everything_and_a_single_address() -> None:
    found = acl(("0.0.0.0/0", "all"), ("192.0.2.1/32", "one"), ("::/0", "all6"), ("::1/128", "me"))
    assert action(found, "192.0.2.1") == "one"
    assert action(found, "192.0.2.2") == "all"
    assert action(found, "::1") == "me"
    assert action(found, "::2") == "all6"


def test_an_ipv4_address_is_one_however_it_is_written() -> None:
    found = acl(("192.0.2.0/24", "v4"), ("::ffff:198.51.100.0/120", "mapped"), ("::/0", "v6"))
    assert action(found, "::ffff:192.0.2.9") == action(found, "192.0.2.9") == "v4"
    assert action(found, "198.51.100.7") == action(found, "::ffff:198.51.100.7") == "mapped"
    assert action(found, "203.0.113.1") is None
    assert action(found, "::ffff:203.0.113.1") is None, "a prefix of IPv6 holds no IPv4 address"
    assert action(found, "::fffe:192.0.2.9") == "v6"


@pytest.mark.parametrize("length", [0, 1, 3, 5, 15, 17])
def test_other_lengths_are_no_addresses(length: int) -> None:
    with pytest.raises(InvalidArgument):
        acl(("0.0.0.0/0", "all")).lookup(bytes(length))


def test_it_agrees_with_looking_at_every_entry() -> None:
    chance = random.Random(3)
    entries = []
    for number in range(200):
        length = chance.randrange(7, 33)
        address = IPv4Address(chance.getrandbits(32) & 0xFF00_F0F0)
        entries.append(AclEntry(ip_network((address, length), strict=False), f"{number}"))
    found = Acl(entries)
    hits = 0
    for _ in range(500):
        address = IPv4Address(chance.getrandbits(32) & 0xFF00_F0F0)
        best: AclEntry | None = None
        for entry in entries:
            if address in entry.prefix and (
                best is None or entry.prefix.prefixlen >= best.prefix.prefixlen
            ):
                best = entry
        assert found.lookup(address.packed) is best
        hits += best is not None
    assert 0 < hits < 500

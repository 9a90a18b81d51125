"""`fastly_acl`: lists of a service, as guests ask them."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.model.acl import AclEntry
from edge.model.limits import Limits
from edge.stores.acl import Acl
from tests.support.fastly_guest import INVALID, FastlyGuest

BLOCKED = Acl(
    AclEntry(ip_network(prefix), action)
    for prefix, action in (
        ("100.100.0.0/16", "BLOCK"),
        ("100.100.7.0/24", 'say "ä"'),
        ("2001:db8::/32", "ALLOW"),
    )
)


@pytest.fixture
def guest() -> FastlyGuest:
    return FastlyGuest(capabilities=Capabilities(acls={"blocked": BLOCKED, "": Acl(())}))


def look_up(guest: FastlyGuest, acl: int, address: bytes) -> tuple[Status, int, int]:
    body, error = guest.room(4), guest.room(4)
    status = guest.do("acl.lookup", acl, *guest.put(address), body, error)
    return status, guest.u32_at(body), guest.u32_at(error)


@pytest.mark.parametrize(
    ("address", "prefix", "action"),
    [
        ("100.100.1.1", "100.100.0.0/16", "BLOCK"),
        ("100.100.7.1", "100.100.7.0/24", 'say "ä"'),
        ("::ffff:100.100.1.1", "100.100.0.0/16", "BLOCK"),
        ("2001:db8::1", "2001:db8::/32", "ALLOW"),
    ],
)
def test_an_entry_is_a_body_of_json(
    guest: FastlyGuest, address: str, prefix: str, action: str
) -> None:
    acl = guest.get("acl.open", *guest.put(b"blocked"))
    status, body, error = look_up(guest, acl, ip_address(address).packed)
    assert (status, error) == (Status.OK, 1)
    assert json.loads(guest.read_all(body)) == {"prefix": prefix, "action": action}


def test_no_entry_is_no_content_and_no_body(guest: FastlyGuest) -> None:
    for name in (b"blocked", b""):
        acl = guest.get("acl.open", *guest.put(name))
        assert look_up(guest, acl, b"\x01\x02\x03\x04") == (Status.OK, INVALID, 2)


def test_lists_that_are_not_there_and_names_that_are_none(guest: FastlyGuest) -> None:
    out = guest.room(4)
    assert guest.do("acl.open", *guest.put(b"other"), out) == Status.NONE
    assert guest.do("acl.open", *guest.put(b"\xff"), out) == Status.INVAL
    assert guest.do("acl.open", guest.size, 1, out) == Status.INVAL
    assert FastlyGuest().do("acl.open", 16, 0, 64) == Status.NONE


def test_lookup_wants_a_list_and_an_address(guest: FastlyGuest) -> None:
    acl = guest.get("acl.open", *guest.put(b"blocked"))
    for length in (0, 3, 5, 15, 17, 70_000):
        assert look_up(guest, acl, bytes(length))[0] == Status.INVAL
    for handle in (INVALID, 0, guest.body(b"x")):
        assert look_up(guest, handle, bytes(4))[0] == Status.BADF
    address, out = guest.put(bytes(4)), guest.room(4)
    assert guest.do("acl.lookup", acl, guest.size - 3, 4, out, out) == Status.INVAL
    assert guest.do("acl.lookup", acl, *address, guest.size - 3, out) == Status.INVAL
    assert guest.do("acl.lookup", acl, *address, out, guest.size - 3) == Status.INVAL


def test_bodies_are_charged_and_given_back() -> None:
    guest = FastlyGuest(
        capabilities=Capabilities(acls={"blocked": BLOCKED}), limits=Limits(host_memory=1 << 20)
    )
    acl = guest.get("acl.open", *guest.put(b"blocked"))
    statuses = [look_up(guest, acl, b"\x64\x64\x01\x01")[0] for _ in range(3000)]
    assert statuses[0] == Status.OK
    assert statuses[-1] == Status.LIMITEXCEEDED
    guest.made.box.close()
    assert guest.made.account.held == 0

"""`fastly_shielding`: what a guest is told of other sites, and backends that lead there."""

from __future__ import annotations

import pytest

from edge.abi.fastly.backend import MAX_DYNAMIC
from edge.abi.fastly.status import Status
from edge.model.backend import Origin
from edge.settings import ShieldSite
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import FastlyGuest

TLS_URL, PLAIN_URL = "https://paris.example.com", "http://paris.example.com:8080/in"
SITES = {"here": ShieldSite(local=True), "paris": ShieldSite(False, TLS_URL, PLAIN_URL)}


@pytest.fixture
def guest() -> SendingGuest:
    found = SendingGuest()
    found.box.capabilities.shield_sites = SITES
    return found


def info(guest: FastlyGuest, name: bytes, room: int = 1024) -> tuple[Status, bytes, int]:
    buffer, count = guest.room(room), guest.room(4)
    status = guest.do("shielding.shield_info", *guest.put(name), buffer, room, count)
    return status, guest.bytes_at(buffer, guest.u32_at(count)), guest.u32_at(count)


def backend(
    guest: FastlyGuest, target: str, mask: int = 0, config: int = 0, room: int = 256
) -> tuple[Status, bytes]:
    buffer, count = guest.room(room), guest.room(4)
    raw = (*guest.put(target.encode()), mask, config, buffer, room, count)
    status = guest.do("shielding.backend_for_shield", *raw)
    return status, guest.bytes_at(buffer, guest.u32_at(count))


def test_a_site_says_whether_it_is_here_and_where_it_is(guest: SendingGuest) -> None:
    urls = f"\0{PLAIN_URL}\0{TLS_URL}\0".encode()
    assert info(guest, b"paris") == (Status.OK, urls, len(urls))
    assert info(guest, b"here") == (Status.OK, b"\x01\0\0", 3)


def test_a_short_buffer_is_told_no_size(guest: SendingGuest) -> None:
    assert info(guest, b"here", room=2) == (Status.BUFLEN, b"", 0)
    assert info(guest, b"here", room=3)[0] == Status.OK


def test_sites_that_are_none(guest: SendingGuest) -> None:
    for name in (b"rome", b"", b"\xff"):
        assert info(guest, name)[0] == Status.INVAL
    assert guest.do("shielding.shield_info", guest.size, 1, 64, 9, 128) == Status.INVAL
    here = guest.put(b"here")
    assert guest.do("shielding.shield_info", *here, guest.size - 2, 9, 128) == Status.INVAL
    for target in ("rome", "here", "", "https://paris.example.com/", "https://evil.example.com"):
        assert backend(guest, target)[0] == Status.INVAL


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        ("paris", Origin(True, "paris.example.com", 443)),
        (TLS_URL, Origin(True, "paris.example.com", 443)),
        (PLAIN_URL, Origin(False, "paris.example.com", 8080, "/in")),
    ],
)
def test_a_backend_leads_to_the_site_and_obeys_no_egress_policy(
    guest: SendingGuest, target: str, origin: Origin
) -> None:
    status, name = backend(guest, target)
    assert status == Status.OK
    assert guest.get("backend.exists", *guest.put(name)) == 1
    assert guest.get("backend.is_dynamic", *guest.put(name)) == 0
    guest.send_async(backend=name)
    sent = guest.last.request.backend
    assert (sent.url, sent.dynamic, sent.named_by_guest) == (origin, False, True)


def test_asked_again_it_is_the_same_backend(guest: SendingGuest) -> None:
    found = {backend(guest, TLS_URL) for _ in range(2 * MAX_DYNAMIC)}
    assert len(found) == 1
    assert backend(guest, PLAIN_URL)[1] not in {name for _, name in found}


def test_timeouts_and_a_cache_key(guest: SendingGuest) -> None:
    config = guest.room(16)
    key = guest.put("schlüssel".encode())
    for offset, number in enumerate((*key, 2500, 750)):
        guest.box.memory.write_u32(config + 4 * offset, number)
    names = {}
    for mask in (0b0010, 0b0100, 0b1000, 0b1110):
        status, name = backend(guest, TLS_URL, mask, config)
        assert status == Status.OK
        guest.send_async(backend=name)
        sent = guest.last.request.backend
        names[mask] = name, sent.first_byte_timeout, sent.between_bytes_timeout
    assert [timeouts for _, *timeouts in names.values()] == [
        [15.0, 10.0],
        [2.5, 10.0],
        [15.0, 0.75],
        [2.5, 0.75],
    ]
    assert len({name for name, *_ in names.values()}) == 4


def test_a_struct_is_read_as_far_as_its_mask_says(guest: SendingGuest) -> None:
    at = guest.size - 12  # an older struct, at the very end of memory
    guest.box.memory.write_u32(at + 8, 1000)
    assert backend(guest, TLS_URL, 0b0100, at)[0] == Status.OK
    assert backend(guest, TLS_URL, 0b1000, at)[0] == Status.INVAL
    assert backend(guest, TLS_URL, 0, 0xFFFF_FFFF)[0] == Status.OK


@pytest.mark.parametrize("key", [(0xFFFF_FFF0, 4), (0, 65_537)])
def test_a_bad_cache_key_or_mask_is_invalid(guest: SendingGuest, key: tuple[int, int]) -> None:
    config = guest.room(16)
    guest.box.memory.write_u32(config, key[0])
    guest.box.memory.write_u32(config + 4, key[1])
    assert backend(guest, TLS_URL, 0b0010, config)[0] == Status.INVAL
    at, length = guest.put(b"\xff")
    guest.box.memory.write_u32(config, at)
    guest.box.memory.write_u32(config + 4, length)
    assert backend(guest, TLS_URL, 0b0010, config)[0] == Status.INVAL
    assert backend(guest, TLS_URL, 0b0001, config)[0] == Status.INVAL
    assert backend(guest, TLS_URL, 0b1_0000, config)[0] == Status.INVAL


def test_no_backend_is_made_for_a_name_that_does_not_fit(guest: SendingGuest) -> None:
    before = guest.made.account.held
    assert backend(guest, TLS_URL, room=4)[0] == Status.BUFLEN
    assert guest.made.account.held == before


def test_backends_for_shields_count_as_the_guests_own(guest: SendingGuest) -> None:
    config = guest.room(16)
    statuses = []
    for number in range(MAX_DYNAMIC + 1):
        guest.box.memory.write_u32(config + 8, 1000 + number)
        statuses.append(backend(guest, TLS_URL, 0b0100, config)[0])
    assert set(statuses[:-1]) == {Status.OK}
    assert statuses[-1] == Status.LIMITEXCEEDED


def test_without_backends_there_are_none_for_shields() -> None:
    assert backend(FastlyGuest(), TLS_URL)[0] == Status.UNSUPPORTED

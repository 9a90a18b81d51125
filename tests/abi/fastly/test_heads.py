"""Header hostcalls, the same for requests and responses: `kind` runs each test for both."""

from __future__ import annotations

import pytest

from edge.abi.fastly import heads
from edge.abi.fastly.status import Status
from edge.http.headers import is_token, is_value
from edge.model.limits import Limits
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest


@pytest.fixture(params=["http_req", "http_resp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def insert(guest: FastlyGuest, kind: str, head: int, name: bytes, value: bytes) -> Status:
    return guest.do(f"{kind}.header_insert", head, *guest.put(name), *guest.put(value))


def append(guest: FastlyGuest, kind: str, head: int, name: bytes, value: bytes) -> Status:
    return guest.do(f"{kind}.header_append", head, *guest.put(name), *guest.put(value))


def values(guest: FastlyGuest, kind: str, head: int, name: bytes) -> list[bytes]:
    return guest.list(f"{kind}.header_values_get", head, *guest.put(name))


def test_names_compare_without_case_and_are_kept_in_lower_case(kind: str) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    assert insert(guest, kind, head, b"X-Colour", b"blue") == Status.OK
    assert append(guest, kind, head, b"x-coLOUR", b"green") == Status.OK
    assert append(guest, kind, head, b"Content-Type", b"text/plain") == Status.OK
    assert guest.list(f"{kind}.header_names_get", head) == [b"x-colour", b"content-type"]
    assert values(guest, kind, head, b"X-COLOUR") == [b"blue", b"green"]
    assert guest.text(f"{kind}.header_value_get", head, *guest.put(b"x-Colour")) == b"blue"


def test_insert_replaces_and_values_set_takes_a_nul_ended_list(kind: str) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    append(guest, kind, head, b"a", b"1")
    append(guest, kind, head, b"a", b"2")
    insert(guest, kind, head, b"a", b"3")
    assert values(guest, kind, head, b"a") == [b"3"]
    listed = b"x\0\0yy\0dropped"
    name = guest.put(b"a")
    assert guest.do(f"{kind}.header_values_set", head, *name, *guest.put(listed)) == Status.OK
    assert values(guest, kind, head, b"a") == [b"x", b"", b"yy"]
    assert guest.do(f"{kind}.header_values_set", head, *name, *guest.put(b"")) == Status.OK
    assert guest.list(f"{kind}.header_names_get", head) == []


def test_absent_fields(kind: str) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    name, buffer, size = guest.put(b"nope"), guest.room(8), guest.room(4)
    assert values(guest, kind, head, b"nope") == []
    assert guest.do(f"{kind}.header_value_get", head, *name, buffer, 8, size) == Status.INVAL
    assert guest.do(f"{kind}.header_remove", head, *name) == Status.INVAL
    insert(guest, kind, head, b"nope", b"")
    assert guest.do(f"{kind}.header_remove", head, *name) == Status.OK
    assert guest.do(f"{kind}.header_remove", head, *name) == Status.INVAL


def test_short_buffers_say_what_they_need(kind: str) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    insert(guest, kind, head, b"name", b"0123456789")
    append(guest, kind, head, b"name", b"z")
    name, buffer, end, size = guest.put(b"name"), guest.room(16), guest.room(8), guest.room(4)
    assert guest.do(f"{kind}.header_value_get", head, *name, buffer, 9, size) == Status.BUFLEN
    assert guest.u32_at(size) == 10
    get = f"{kind}.header_values_get"
    assert guest.do(get, head, *name, buffer, 10, 0, end, size) == Status.BUFLEN
    assert (guest.u32_at(size), guest.i64_at(end)) == (11, -1)
    assert guest.do(get, head, *name, buffer, 12, 0, end, size) == Status.OK
    assert (guest.bytes_at(buffer, 11), guest.i64_at(end)) == (b"0123456789\0", 1)
    assert guest.do(get, head, *name, buffer, 16, 1, end, size) == Status.OK
    assert (guest.bytes_at(buffer, 2), guest.i64_at(end)) == (b"z\0", -1)
    assert guest.do(get, head, *name, buffer, 16, 7, 0, size) == Status.OK
    assert guest.u32_at(size) == 0
    names = f"{kind}.header_names_get"
    assert guest.do(names, head, buffer, 4, 0, end, size) == Status.BUFLEN
    assert guest.u32_at(size) == 5


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"", b"v", Status.ERROR),
        (b"a b", b"v", Status.ERROR),
        (b"a:", b"v", Status.ERROR),
        (b"caf\xc3\xa9", b"v", Status.ERROR),
        (b"a\r\nx", b"v", Status.ERROR),
        (b"ok", b"a\r\nb", Status.ERROR),
        (b"ok", b"a\0", Status.ERROR),
        (b"ok", b"\x7f", Status.ERROR),
        (b"ok", b"\ttab and \xe9 are fine", Status.OK),
        (b"ok", b"", Status.OK),
        (b"n" * 65_536, b"v", Status.INVAL),
        (b"ok", b"v" * 69_001, Status.LIMITEXCEEDED),
    ],
)
def test_names_and_values_are_checked_when_set(
    kind: str, name: bytes, value: bytes, status: Status
) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    assert insert(guest, kind, head, name, value) == status
    assert append(guest, kind, head, name, value) == status
    listed = guest.put(value.replace(b"\0", b"\1") + b"\0")
    assert guest.do(f"{kind}.header_values_set", head, *guest.put(name), *listed) == status


def test_the_checks_agree_with_those_of_the_serialiser() -> None:
    for number in range(256):
        byte = bytes([number])
        assert is_token(byte) == (byte in heads._TOKEN)
        assert is_value(byte) == (byte in heads._FIELD_VALUE)
    assert all(is_token(name) for name in heads._KNOWN)


def test_a_head_holds_so_many_fields(kind: str) -> None:
    guest = FastlyGuest(limits=Limits(head_fields=20))
    head = guest.get(f"{kind}.new")
    for number in range(20):
        assert append(guest, kind, head, b"n%d" % (number // 2), b"v") == Status.OK
    assert append(guest, kind, head, b"more", b"v") == Status.LIMITEXCEEDED
    assert insert(guest, kind, head, b"more", b"v") == Status.LIMITEXCEEDED
    assert insert(guest, kind, head, b"n1", b"v") == Status.OK  # frees one
    assert append(guest, kind, head, b"more", b"v") == Status.OK
    assert guest.made.box.limits_hit == {"limits.head_fields": 2}


def test_a_head_holds_so_many_bytes(kind: str) -> None:
    guest = FastlyGuest(limits=Limits(head_bytes=10_000))
    head = guest.get(f"{kind}.new")
    assert insert(guest, kind, head, b"big", b"v" * 9_000) == Status.OK
    assert insert(guest, kind, head, b"more", b"v" * 994) == Status.LIMITEXCEEDED
    assert insert(guest, kind, head, b"big", b"v" * 9_998) == Status.LIMITEXCEEDED
    assert values(guest, kind, head, b"big") == [b"v" * 9_000]
    assert insert(guest, kind, head, b"more", b"v" * 993) == Status.OK
    assert guest.made.box.limits_hit == {"limits.head_bytes": 2}


def test_a_million_appends_end_at_the_limit_and_hold_no_more(kind: str) -> None:
    guest = FastlyGuest()
    head = guest.get(f"{kind}.new")
    name, value = guest.put(b"x"), guest.put(b"y" * 100)
    statuses = [guest.do(f"{kind}.header_append", head, *name, *value) for _ in range(5_000)]
    assert statuses.count(Status.OK) == 512
    assert set(statuses[512:]) == {Status.LIMITEXCEEDED}
    held = guest.made.account.held
    assert 512 * 100 < held < 512 * 250  # bytes
    assert guest.do(f"{kind}.close", head) == Status.OK
    assert guest.made.account.held == 0


def test_heads_of_all_handles_together_are_bounded_by_the_account(kind: str) -> None:
    guest = FastlyGuest(limits=Limits(host_memory=1 << 20))
    statuses = []
    value = guest.put(b"v" * 60_000)
    for _ in range(30):
        head = guest.get(f"{kind}.new")
        statuses.append(guest.do(f"{kind}.header_insert", head, *guest.put(b"n"), *value))
    assert statuses.count(Status.OK) == 17
    assert statuses[-1] == Status.LIMITEXCEEDED
    assert guest.made.account.exceeded
    guest.made.box.close()
    assert guest.made.account.held == 0


def test_handles_are_bounded_and_consumed_ones_are_never_used_again(kind: str) -> None:
    guest = FastlyGuest(limits=Limits(handles=16))
    made = [guest.get(f"{kind}.new") for _ in range(16)]
    assert made == list(range(1, 17))
    assert guest.do(f"{kind}.new", guest.room(4)) == Status.LIMITEXCEEDED
    assert guest.do(f"{kind}.close", 3) == Status.OK
    assert guest.do(f"{kind}.close", 3) == Status.BADF
    assert guest.get(f"{kind}.new") == 17
    assert insert(guest, kind, INVALID, b"a", b"b") == Status.BADF


def test_the_clients_fields_are_copied_when_looked_at_and_the_client_keeps_its_own() -> None:
    sent = [(b"host", b"example.com"), (b"x", b"1"), (b"x", b"2")]
    guest = FastlyGuest(client=FakeDownstream(headers=list(sent)))
    request, _ = guest.downstream()
    assert guest.list("http_req.header_names_get", request) == [b"host", b"x"]
    assert append(guest, "http_req", request, b"x", b"3") == Status.OK
    assert values(guest, "http_req", request, b"x") == [b"1", b"2", b"3"]
    assert guest.client.head.headers == sent


def test_a_client_head_above_our_own_limit_can_be_read_and_shrunk_but_not_grown() -> None:
    headers = [(b"n%d" % number, b"v") for number in range(40)]
    client = FakeDownstream(headers=headers)
    guest = FastlyGuest(client=client, limits=Limits(head_fields=30))
    request, _ = guest.downstream()
    assert len(guest.list("http_req.header_names_get", request)) == 40
    assert append(guest, "http_req", request, b"more", b"v") == Status.LIMITEXCEEDED
    assert guest.do("http_req.header_remove", request, *guest.put(b"n7")) == Status.OK
    assert insert(guest, "http_req", request, b"n8", b"w") == Status.OK

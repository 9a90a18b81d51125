"""`fastly_kv_store`: lookups, deletions and lists, and everything that they may be told."""

from __future__ import annotations

import asyncio
import json

import pytest

from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from edge.stores.kv import KvCause, insertion_of
from tests.support.fastly_guest import INVALID
from tests.support.kv import FailingStore
from tests.support.kv_guest import KvGuest, Outs
from tests.support.loop import in_loop, turns

METADATA = 8
CURSOR, LIMIT, PREFIX = 2, 4, 8
WAIT = "kv_store.lookup_wait_v2"


def held_by(guest: KvGuest) -> int:
    return guest.made.account.held


# Opening ------------------------------------------------------------------------------------


def test_a_store_of_the_service_opens_and_no_other() -> None:
    guest = KvGuest()
    assert guest.open_kv() != guest.open_kv()
    for name in (b"other", b"", b"shop:cart", b"x" * 1000):
        assert guest.do("kv_store.open", *guest.put(name), 64) == Status.INVAL
    assert guest.do("kv_store.open", *guest.put(b"\xff"), 64) == Status.INVAL
    assert guest.do("kv_store.open", guest.size - 1, 2, 64) == Status.INVAL
    assert guest.do("kv_store.open", *guest.put(b"cart"), guest.size - 3) == Status.INVAL


# Lookups ------------------------------------------------------------------------------------


def test_a_value_comes_with_metadata_and_generation() -> None:
    guest = KvGuest()
    assert guest.insert_kv(b"k", b"value", METADATA, metadata=b"meta") == KvError.OK
    outs = Outs(guest)
    assert guest.do(WAIT, guest.start_lookup(b"k"), *outs.raw) == Status.OK
    assert guest.u32_at(outs.error) == KvError.OK
    assert guest.read_all(guest.u32_at(outs.body)) == b"value"
    assert outs.metadata == b"meta"
    stored = guest.inner.lookup("k").result()
    assert stored is not None
    assert guest.u64_at(outs.generation) == stored.generation


def test_an_absent_value_is_told_by_the_error_alone() -> None:
    guest = KvGuest()
    outs = Outs(guest)
    pending = guest.start_lookup(b"k")
    assert guest.do(WAIT, pending, *outs.raw) == Status.OK
    assert guest.u32_at(outs.error) == KvError.NOT_FOUND
    assert outs.untouched()
    assert guest.do(WAIT, pending, *outs.raw) == Status.BADF, "the handle is consumed"


def test_a_short_buffer_for_metadata_loses_nothing() -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"value", METADATA, metadata=b"m" * 2000)
    pending = guest.start_lookup(b"k")
    short = Outs(guest, room=1999)
    assert guest.do(WAIT, pending, *short.raw) == Status.BUFLEN
    assert guest.u32_at(short.size) == 2000
    assert guest.get("async_io.is_ready", pending) == 1
    outs = Outs(guest)
    assert guest.do(WAIT, pending, *outs.raw) == Status.OK
    assert outs.metadata == b"m" * 2000
    assert guest.read_all(guest.u32_at(outs.body)) == b"value"
    assert held_by(guest) == 0


def test_the_first_lookup_wait_has_no_room_for_a_generation() -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"value")
    outs = Outs(guest)
    assert guest.do("kv_store.lookup_wait", guest.start_lookup(b"k"), *outs.raw) == Status.OK
    assert guest.u64_at(outs.generation) == 0xABAB_ABAB_0000_0000, "four bytes of zeros"
    assert guest.read_all(guest.u32_at(outs.body)) == b"value"


@pytest.mark.parametrize("name", ["kv_store.lookup_wait", WAIT])
def test_a_lookup_wait_checks_every_pointer_before_it_gives_anything(name: str) -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"value", METADATA, metadata=b"meta")
    pending = guest.start_lookup(b"k")
    good = Outs(guest)
    for place, bad in ((0, -3), (1, -3), (3, -3), (4, -3), (5, -3)):
        raw = list(good.raw)
        raw[place] = guest.size + bad
        assert guest.do(name, pending, *raw) == Status.INVAL
        assert good.untouched()
    assert guest.do(name, pending, *good.raw) == Status.OK


def test_a_lookup_wants_a_store_and_a_key() -> None:
    guest = KvGuest()
    store = guest.open_kv()
    for bad in (b"", b"\xff", b"k" * 1025, b"a#b", b"..", b"\0"):
        assert guest.do("kv_store.lookup", store, *guest.put(bad), 0, 0, 64) == Status.INVAL
    key = guest.put(b"k")
    assert guest.do("kv_store.lookup", INVALID, *key, 0, 0, 64) == Status.BADF
    assert guest.do("kv_store.lookup", guest.body(), *key, 0, 0, 64) == Status.BADF
    assert guest.do("kv_store.lookup", store, *key, 1, 0, 64) == Status.INVAL, "reserved"
    assert guest.do("kv_store.lookup", store, *key, 0, 0xFFFF_FFF0, 64) == Status.OK, "unread"
    assert guest.do(WAIT, store, *Outs(guest).raw) == Status.BADF


@in_loop
async def test_select_wakes_a_guest_that_waits_for_a_lookup() -> None:
    guest = KvGuest(held=True)
    guest.inner.insert("k", insertion_of(b"late"))
    pending = guest.start_lookup(b"k")
    handles = guest.put(pending.to_bytes(4, "little"))[0]
    assert guest.get("async_io.is_ready", pending) == 0
    assert guest.begin("async_io.select", handles, 1, 0, 64) is None
    selecting = asyncio.ensure_future(guest.finish())
    await turns()
    assert not selecting.done()
    guest.held.release()
    assert await selecting == Status.OK
    assert guest.u32_at(64) == 0
    assert guest.get("async_io.is_ready", pending) == 1
    outs = Outs(guest)
    assert guest.begin(WAIT, pending, *outs.raw) == Status.OK, "it need not wait any more"
    assert guest.read_all(guest.u32_at(outs.body)) == b"late"


@in_loop
async def test_a_lookup_wait_waits() -> None:
    guest = KvGuest(held=True)
    guest.inner.insert("k", insertion_of(b"late", metadata=b"m"))
    outs = Outs(guest)
    assert guest.begin(WAIT, guest.start_lookup(b"k"), *outs.raw) is None
    guest.held.release()
    assert await guest.finish() == Status.OK
    assert guest.read_all(guest.u32_at(outs.body)) == b"late"
    assert outs.metadata == b"m"
    assert held_by(guest) == 0


@in_loop
async def test_a_guest_that_is_killed_in_a_lookup_holds_nothing() -> None:
    guest = KvGuest(held=True)
    guest.inner.insert("k", insertion_of(b"v" * 1000))
    assert guest.begin(WAIT, guest.start_lookup(b"k"), *Outs(guest).raw) is None
    guest.cancel()
    guest.box.close()
    guest.held.release()
    assert held_by(guest) == guest.made.account.ledger.held == 0


def test_a_value_that_waits_is_paid_for_until_its_body_is_read() -> None:
    guest = KvGuest(limits=Limits(host_memory=300_000))
    guest.inner.insert("k", insertion_of(b"v" * 100_000))
    pending = [guest.start_lookup(b"k") for _ in range(3)]
    assert held_by(guest) >= 200_000
    errors = []
    for handle in pending:
        outs = Outs(guest)
        errors.append(guest.do(WAIT, handle, *outs.raw))
        if errors[-1] == Status.OK:
            guest.do("http_body.close", guest.u32_at(outs.body))
    assert errors == [Status.OK, Status.OK, Status.OK]
    more = [guest.start_lookup(b"k") for _ in range(4)]
    assert guest.do(WAIT, more[3], *Outs(guest).raw) == Status.LIMITEXCEEDED
    assert guest.do(WAIT, more[3], *Outs(guest).raw) == Status.BADF
    assert guest.made.account.exceeded
    guest.box.close()
    assert held_by(guest) == guest.made.account.ledger.held == 0


def test_handles_bound_how_many_operations_wait() -> None:
    guest = KvGuest(held=True, limits=Limits(handles=100))
    store = guest.open_kv()
    key = guest.put(b"k")
    statuses = [guest.do("kv_store.lookup", store, *key, 0, 0, 64) for _ in range(120)]
    assert statuses.count(Status.OK) == 99
    assert set(statuses) == {Status.OK, Status.LIMITEXCEEDED}
    assert len(guest.held.waiting) == 99, "nothing begins without a handle"
    deleted = guest.do("kv_store.delete", store, *key, 0, 0, 64)
    listed = guest.do("kv_store.list", store, 0, guest.list_config(), 64)
    assert (deleted, listed) == (Status.LIMITEXCEEDED, Status.LIMITEXCEEDED)
    guest.box.close()
    guest.held.release()
    assert held_by(guest) == 0


# Deletions ----------------------------------------------------------------------------------


def test_a_deletion_is_ok_whether_there_was_a_value_or_not() -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"v")
    store = guest.open_kv()
    for _ in range(2):
        pending = guest.get("kv_store.delete", store, *guest.put(b"k"), 0, 0)
        assert guest.kv_error("kv_store.delete_wait", pending) == KvError.OK
        assert guest.do("kv_store.delete_wait", pending, 64) == Status.BADF
    assert guest.inner.lookup("k").result() is None


def test_a_deletion_wants_a_store_and_a_key() -> None:
    guest = KvGuest()
    store, key = guest.open_kv(), guest.put(b"k")
    assert guest.do("kv_store.delete", store, *guest.put(b".."), 0, 0, 64) == Status.INVAL
    assert guest.do("kv_store.delete", store, *key, 1, 0, 64) == Status.INVAL
    assert guest.do("kv_store.delete", INVALID, *key, 0, 0, 64) == Status.BADF
    assert guest.do("kv_store.delete_wait", guest.start_lookup(b"k"), 64) == Status.BADF


@in_loop
async def test_waits_for_writes_wait() -> None:
    guest = KvGuest(held=True)
    guest.inner.insert("k", insertion_of(b"v"))
    pending = guest.get("kv_store.delete", guest.open_kv(), *guest.put(b"k"), 0, 0)
    out = guest.room(4)
    assert guest.begin("kv_store.delete_wait", pending, out) is None
    guest.held.release()
    assert await guest.finish() == Status.OK
    assert guest.u32_at(out) == KvError.OK


# Lists --------------------------------------------------------------------------------------


def listed(guest: KvGuest, mask: int = 0, **config: object) -> dict[str, object]:
    """The JSON of a page."""
    at = guest.list_config(**config)  # type: ignore[arg-type]  # by name
    pending = guest.get("kv_store.list", guest.open_kv(), mask, at)
    body, error = guest.room(4), guest.room(4)
    assert guest.do("kv_store.list_wait", pending, body, error) == Status.OK
    assert guest.u32_at(error) == KvError.OK
    page: dict[str, object] = json.loads(guest.read_all(guest.u32_at(body)))
    return page


def test_a_list_is_json() -> None:
    guest = KvGuest()
    for key in ("a", "b/é", 'b/"\\', "b/\0", "c"):
        guest.inner.insert(key, insertion_of(b""))
    assert listed(guest) == {
        "data": ["a", "b/\0", 'b/"\\', "b/é", "c"], "meta": {"limit": 1000},
    }  # fmt: skip
    first = listed(guest, LIMIT | PREFIX, limit=2, prefix=b"b/")
    assert first["data"] == ["b/\0", 'b/"\\']
    meta = first["meta"]
    assert isinstance(meta, dict)
    assert (meta["limit"], meta["prefix"]) == (2, "b/")
    cursor = meta["next_cursor"].encode()
    last = listed(guest, CURSOR | LIMIT | PREFIX, cursor=cursor, limit=2, prefix=b"b/", mode=1)
    assert last == {"data": ["b/é"], "meta": {"limit": 2, "prefix": "b/"}}
    assert held_by(guest) == 0


def test_a_list_of_nothing_has_no_keys() -> None:
    assert listed(KvGuest()) == {"data": [], "meta": {"limit": 1000}}


@in_loop
async def test_a_long_list_is_written_in_turns() -> None:
    guest = KvGuest()
    keys = [f"{number:04}" + "k" * 500 for number in range(1000)]
    for key in keys:
        guest.inner.insert(key, insertion_of(b""))
    pending = guest.get("kv_store.list", guest.open_kv(), 0, guest.list_config())
    body, error = guest.room(4), guest.room(4)
    assert guest.begin("kv_store.list_wait", pending, body, error) is None
    assert await guest.finish() == Status.OK
    text = b"".join(iter(lambda: guest.box.items[guest.u32_at(body)].read(70_000), b""))
    assert json.loads(text)["data"] == keys
    assert held_by(guest) == 0


@in_loop
async def test_a_guest_that_is_killed_while_its_list_is_written_holds_nothing() -> None:
    guest = KvGuest()
    for number in range(200):
        guest.inner.insert(f"{number}", insertion_of(b""))
    pending = guest.get("kv_store.list", guest.open_kv(), 0, guest.list_config())
    assert guest.begin("kv_store.list_wait", pending, 64, 72) is None
    guest.cancel()
    guest.box.close()
    assert held_by(guest) == guest.made.account.ledger.held == 0


@pytest.mark.parametrize(
    ("mask", "config"),
    [
        (CURSOR, {"cursor": b"none of ours"}),
        (LIMIT, {"limit": 0}),
        (PREFIX, {"prefix": b"p" * 1025}),
    ],
)
def test_a_list_that_makes_no_sense_is_a_bad_request(mask: int, config: dict[str, object]) -> None:
    guest = KvGuest()
    at = guest.list_config(**config)  # type: ignore[arg-type]  # by name
    pending = guest.get("kv_store.list", guest.open_kv(), mask, at)
    body = guest.put(b"\xab" * 4)[0]
    assert guest.kv_error("kv_store.list_wait", pending, body) == KvError.BAD_REQUEST
    assert guest.u32_at(body) == 0xABAB_ABAB
    assert guest.do("kv_store.list_wait", pending, 64, 72) == Status.BADF


def test_a_list_wants_a_store_and_a_config() -> None:
    guest = KvGuest()
    store = guest.open_kv()

    def begins(mask: int, at: int, store: int = store) -> Status:
        return guest.do("kv_store.list", store, mask, at, 64)

    assert begins(0, guest.list_config(), INVALID) == Status.BADF
    assert begins(0, guest.list_config(mode=2)) == Status.INVAL
    assert begins(0, guest.size - 3) == Status.INVAL
    for reserved in (1, 16, 1 << 31):
        assert begins(reserved, guest.list_config()) == Status.INVAL
    assert begins(PREFIX, guest.list_config(prefix=b"\xff")) == Status.INVAL
    assert begins(CURSOR, guest.list_config(cursor=b"\xff")) == Status.INVAL
    assert begins(PREFIX, guest.list_config(prefix=b"p" * 65_536)) == Status.INVAL
    assert guest.do("kv_store.list_wait", store, 64, 72) == Status.BADF


def test_a_list_must_be_paid_for() -> None:
    guest = KvGuest(limits=Limits(host_memory=10_000))
    for number in range(50):
        guest.inner.insert(f"{number:02}" + "k" * 400, insertion_of(b""))
    pending = guest.get("kv_store.list", guest.open_kv(), 0, guest.list_config())
    assert guest.do("kv_store.list_wait", pending, 64, 72) == Status.LIMITEXCEEDED
    assert guest.do("kv_store.list_wait", pending, 64, 72) == Status.BADF
    assert held_by(guest) == 0


# Failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", list(KvCause))
def test_every_cause_has_its_error(cause: KvCause) -> None:
    guest = KvGuest(store=FailingStore(cause))
    error = KvError[cause.name]
    store, key = guest.open_kv(), guest.put(b"k")
    outs = Outs(guest)
    assert guest.do(WAIT, guest.start_lookup(b"k"), *outs.raw) == Status.OK
    assert guest.u32_at(outs.error) == error
    assert outs.untouched()
    assert guest.insert_kv(b"k", b"v") == error
    pending = guest.get("kv_store.delete", store, *key, 0, 0)
    assert guest.kv_error("kv_store.delete_wait", pending) == error
    pending = guest.get("kv_store.list", store, 0, guest.list_config())
    assert guest.kv_error("kv_store.list_wait", pending, 64) == error
    assert held_by(guest) == 0

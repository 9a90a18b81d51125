"""`fastly_kv_store`: lookups, insertions, deletions and lists, and everything they may be told."""

from __future__ import annotations

import asyncio
import json

import pytest

from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.errors import Incomplete
from edge.http.body import Body
from edge.model.limits import Limits
from edge.stores.kv import KvCause, insertion_of
from tests.support.fastly_guest import INVALID
from tests.support.kv import FailingStore
from tests.support.kv_guest import MIB, KvGuest, Outs
from tests.support.loop import in_loop, turns

METADATA, TTL, GENERATION = 8, 16, 32
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


# Insertions ---------------------------------------------------------------------------------


def test_an_insertion_consumes_the_body() -> None:
    guest = KvGuest()
    body = guest.body(b"value")
    pending = guest.get(
        "kv_store.insert", guest.open_kv(), *guest.put(b"k"), body, 0, guest.insert_config()
    )
    assert guest.do("http_body.close", body) == Status.BADF
    assert guest.kv_error("kv_store.insert_wait", pending) == KvError.OK
    assert guest.do("kv_store.insert_wait", pending, 64) == Status.BADF
    assert held_by(guest) == 0


def test_options_count_only_when_they_are_masked_in() -> None:
    guest = KvGuest()
    ignored = {"metadata": b"m", "ttl": 1, "generation": 1}
    assert guest.insert_kv(b"k", b"1", 0, **ignored) == KvError.OK
    assert guest.insert_kv(b"k", b"2", 2, **ignored) == KvError.OK, "background_fetch"
    guest.clock.advance(10)
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert (found.pieces, found.metadata) == ((b"2",), b"")
    with_all = METADATA | TTL | GENERATION
    assert guest.insert_kv(b"k", b"3", with_all, **ignored) == KvError.PRECONDITION_FAILED
    ignored["generation"] = found.generation
    assert guest.insert_kv(b"k", b"3", with_all, **ignored) == KvError.OK
    again = guest.inner.lookup("k").result()
    assert again is not None
    assert again.metadata == b"m"
    guest.clock.advance(1)
    assert guest.inner.lookup("k").result() is None


def test_modes() -> None:
    guest = KvGuest()
    overwrite, add, append, prepend = range(4)
    for value, mode, error in (
        (b"b", add, KvError.OK),
        (b"x", add, KvError.PRECONDITION_FAILED),
        (b"c", append, KvError.OK),
        (b"a", prepend, KvError.OK),
    ):
        assert guest.insert_kv(b"k", value, mode=mode) == error
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert b"".join(found.pieces) == b"abc"
    assert guest.insert_kv(b"k", b"new", mode=overwrite) == KvError.OK


def test_what_cannot_begin_leaves_the_body_to_the_guest() -> None:
    guest = KvGuest()
    store, key, body = guest.open_kv(), guest.put(b"k"), guest.body(b"value")
    at = guest.insert_config()
    far = guest.size - 3

    def begins(*raw: int) -> Status:
        return guest.do("kv_store.insert", *raw, 64)

    assert begins(store, *guest.put(b"a?b"), body, 0, at) == Status.INVAL
    assert begins(store, *guest.put(b"\xff"), body, 0, at) == Status.INVAL
    assert begins(INVALID, *key, body, 0, at) == Status.BADF
    assert begins(store, *key, INVALID, 0, at) == Status.BADF
    assert begins(store, *key, store, 0, at) == Status.BADF
    assert begins(store, *key, body, 0, far) == Status.INVAL
    assert begins(store, *key, body, 0, guest.insert_config(mode=4)) == Status.INVAL
    for reserved in (1, 4, 64, 1 << 31):
        assert begins(store, *key, body, reserved, at) == Status.INVAL
    outside = guest.insert_config(metadata_at=(far, 4))
    assert begins(store, *key, body, METADATA, outside) == Status.INVAL
    huge = guest.insert_config(metadata_at=(0, 0xFFFF_FFFF))
    assert begins(store, *key, body, METADATA, huge) == Status.INVAL
    not_text = guest.insert_config(metadata=b"\xff")
    assert begins(store, *key, body, METADATA, not_text) == Status.INVAL
    assert guest.do("kv_store.insert", store, *key, body, 0, at, far) == Status.INVAL
    assert guest.read_all(body) == b"value"
    assert guest.inner.lookup("k").result() is None


def test_a_short_config_at_the_end_of_memory_is_read_as_far_as_it_is_needed() -> None:
    guest = KvGuest()
    store, key, body = guest.open_kv(), guest.put(b"k"), guest.body(b"value")
    pending = guest.get("kv_store.insert", store, *key, body, 0, guest.size - 4)
    assert guest.kv_error("kv_store.insert_wait", pending) == KvError.OK
    listing = guest.do("kv_store.list", store, 0, guest.size - 4, 64)
    assert listing == Status.OK


@pytest.mark.parametrize("length", [2001, 100_000])
def test_too_much_metadata_is_a_bad_request(length: int) -> None:
    guest = KvGuest()
    assert guest.insert_kv(b"k", b"v", METADATA, metadata=b"m" * length) == KvError.BAD_REQUEST


def test_a_value_that_is_too_large_is_told_and_nothing_is_held() -> None:
    guest = KvGuest()
    key = guest.put(b"k")
    body = guest.body()
    megabyte = guest.put(b"v" * 65_536)
    for _ in range(17):
        assert guest.do("http_body.write", body, *megabyte, 0, 64) == Status.OK
    out = guest.room(4)
    at = guest.insert_config()
    assert guest.do("kv_store.insert", guest.open_kv(), *key, body, 0, at, out) == Status.OK
    pending = guest.u32_at(out)
    assert guest.kv_error("kv_store.insert_wait", pending) == KvError.PAYLOAD_TOO_LARGE
    assert held_by(guest) == guest.made.account.ledger.held == 0


@in_loop
async def test_a_long_body_is_gathered_over_several_turns() -> None:
    guest = KvGuest()
    value = bytes(range(256)) * (MIB // 256)
    body = Body(guest.box.account)
    for at in range(0, MIB, 100_000):
        body.write(value[at : at + 100_000])
    raw = (guest.open_kv(), *guest.put(b"k"), guest.box.insert(body), 0, guest.insert_config())
    out = guest.room(4)
    assert guest.begin("kv_store.insert", *raw, out) is None, "256 KiB a turn"
    assert await guest.finish() == Status.OK
    assert guest.kv_error("kv_store.insert_wait", guest.u32_at(out)) == KvError.OK
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert b"".join(found.pieces) == value
    assert all(len(piece) <= 256 * 1024 for piece in found.pieces)
    assert held_by(guest) == 0


@in_loop
async def test_a_guest_that_is_killed_while_its_body_is_gathered_holds_nothing() -> None:
    guest = KvGuest()
    body = Body(guest.box.account)
    body.write(b"v" * MIB)
    raw = (guest.open_kv(), *guest.put(b"k"), guest.box.insert(body), 0, guest.insert_config())
    assert guest.begin("kv_store.insert", *raw, 64) is None
    guest.cancel()
    guest.box.close()
    assert held_by(guest) == guest.made.account.ledger.held == 0
    assert guest.inner.lookup("k").result() is None


def begin_streaming(guest: KvGuest) -> tuple[Body, int]:
    """A body that is still arriving, and the insertion that waits for it."""
    body = Body(guest.box.account, live=True)
    raw = (guest.open_kv(), *guest.put(b"k"), guest.box.insert(body), 0, guest.insert_config())
    return body, guest.get("kv_store.insert", *raw)


@in_loop
async def test_a_body_is_stored_when_it_has_come_to_its_end() -> None:
    guest = KvGuest()
    body, pending = begin_streaming(guest)
    body.write(b"one ")
    body.write(b"two ")
    assert guest.get("async_io.is_ready", pending) == 0
    assert held_by(guest) == 8, "paid for while it waits"
    assert body.held == 0, "and its sender is not held up"
    out = guest.room(4)
    assert guest.begin("kv_store.insert_wait", pending, out) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    body.write(b"three")
    body.finish()
    assert await waiting == Status.OK
    assert guest.u32_at(out) == KvError.OK
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert b"".join(found.pieces) == b"one two three"
    assert held_by(guest) == 0


@in_loop
async def test_much_that_arrives_at_once_is_taken_in_turns() -> None:
    guest = KvGuest()
    body, pending = begin_streaming(guest)
    body.write(b"v" * (MIB - 5))
    assert held_by(guest) == MIB - 5
    assert body.held == MIB - 5 - 256 * 1024, "what one turn takes"
    body.finish()
    await turns(8)
    assert guest.kv_error("kv_store.insert_wait", pending) == KvError.OK
    assert held_by(guest) == 0


def test_a_body_that_breaks_off_is_not_stored() -> None:
    guest = KvGuest()
    body, pending = begin_streaming(guest)
    body.write(b"half")
    body.fail(Incomplete("the client has left"))
    assert guest.do("kv_store.insert_wait", pending, 64) == Status.HTTPINCOMPLETE
    assert guest.inner.lookup("k").result() is None
    assert held_by(guest) == 0


def test_a_body_that_arrives_must_be_paid_for() -> None:
    guest = KvGuest(limits=Limits(host_memory=1000))
    body = Body(live=True)  # somebody else's, as that of a client
    raw = (guest.open_kv(), *guest.put(b"k"), guest.box.insert(body), 0, guest.insert_config())
    pending = guest.get("kv_store.insert", *raw)
    body.write(b"v" * 1001)
    assert guest.do("kv_store.insert_wait", pending, 64) == Status.LIMITEXCEEDED
    body.write(b"more, into nothing")
    assert body.held == held_by(guest) == 0


def test_a_body_still_arriving_when_the_guest_ends_is_not_stored() -> None:
    guest = KvGuest()
    body, _ = begin_streaming(guest)
    body.write(b"half")
    guest.box.close()
    body.write(b"the other half")
    body.finish()
    assert guest.inner.lookup("k").result() is None
    assert held_by(guest) == guest.made.account.ledger.held == 0


def test_the_clients_own_body_reads_on_when_the_guest_ends() -> None:
    guest = KvGuest()
    client = guest.client.body
    client.live, client.ended = True, False
    _, body = guest.downstream()
    raw = (guest.open_kv(), *guest.put(b"k"), body, 0, guest.insert_config())
    guest.get("kv_store.insert", *raw)
    client.write(b"first ")
    guest.box.close()
    client.write(b"second")
    client.finish()
    assert client.read(100) == b"second", "for the connection to take"
    assert guest.inner.lookup("k").result() is None


def test_an_insertion_nobody_waits_for_happens() -> None:
    guest = KvGuest(held=True)
    raw = (guest.open_kv(), *guest.put(b"k"), guest.body(b"v"), 0, guest.insert_config())
    guest.get("kv_store.insert", *raw)
    assert held_by(guest) == 1
    guest.box.close()
    assert held_by(guest) == 0
    guest.held.release()
    assert guest.inner.lookup("k").result() is not None


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

"""`fastly_object_store`: the older interface to the same stores; it tells everything by status."""

from __future__ import annotations

import asyncio

import pytest

from edge.abi.fastly.status import Status
from edge.http.body import Body
from edge.model.limits import Limits
from edge.stores.kv import KvCause, insertion_of
from tests.support.fastly_guest import INVALID
from tests.support.kv import FailingStore
from tests.support.kv_guest import MIB, UNTOUCHED, KvGuest
from tests.support.loop import in_loop, turns

OLD = "object_store"


def stored(guest: KvGuest, key: str = "k") -> bytes | None:
    found = guest.inner.lookup(key).result()
    return None if found is None else b"".join(found.pieces)


def test_a_store_of_the_service_opens_and_no_other() -> None:
    guest = KvGuest()
    assert guest.open_kv(OLD)
    assert guest.do("object_store.open", *guest.put(b"other"), 64) == Status.INVAL
    assert guest.do("object_store.open", *guest.put(b"\xff"), 64) == Status.INVAL
    assert guest.do("object_store.open", guest.size - 1, 2, 64) == Status.INVAL


def test_both_interfaces_have_the_same_stores_and_handles() -> None:
    guest = KvGuest()
    guest.insert_kv(b"k", b"value")
    new = guest.get("object_store.lookup", guest.open_kv(), *guest.put(b"k"))
    old = guest.get("object_store.lookup", guest.open_kv(OLD), *guest.put(b"k"))
    assert guest.read_all(new) == guest.read_all(old) == b"value"


def test_a_lookup_gives_a_body_or_writes_nothing() -> None:
    guest = KvGuest()
    store = guest.open_kv(OLD)
    guest.inner.insert("k", insertion_of(b"value"))
    out = guest.put(b"\xab" * 4)[0]
    absent = guest.put(b"absent")
    assert guest.do("object_store.lookup", store, *absent, out) == Status.OK
    pending = guest.get("object_store.lookup_async", store, *absent)
    assert guest.do("object_store.pending_lookup_wait", pending, out) == Status.OK
    assert guest.u32_at(out) == UNTOUCHED
    assert guest.do("object_store.pending_lookup_wait", pending, out) == Status.BADF
    assert guest.do("object_store.lookup", store, *guest.put(b"k"), out) == Status.OK
    assert guest.read_all(guest.u32_at(out)) == b"value"
    pending = guest.get("object_store.lookup_async", store, *guest.put(b"k"))
    body = guest.get("object_store.pending_lookup_wait", pending)
    assert guest.read_all(body) == b"value"
    assert guest.made.account.held == 0


@pytest.mark.parametrize("name", ["lookup", "lookup_async", "delete_async"])
def test_a_key_and_a_store_are_wanted(name: str) -> None:
    guest = KvGuest()
    store, key = guest.open_kv(OLD), guest.put(b"k")
    call = f"object_store.{name}"
    for bad in (b"", b"..", b"a|b", b"\xff", b"k" * 1025):
        assert guest.do(call, store, *guest.put(bad), 64) == Status.INVAL
    assert guest.do(call, INVALID, *key, 64) == Status.BADF
    assert guest.do(call, guest.body(), *key, 64) == Status.BADF
    assert guest.do(call, store, guest.size, 2, 64) == Status.INVAL
    assert guest.do(call, store, *key, guest.size - 3) == Status.INVAL


def test_insertions_consume_the_body() -> None:
    guest = KvGuest()
    store, key = guest.open_kv(OLD), guest.put(b"k")
    body = guest.body(b"one")
    assert guest.do("object_store.insert", store, *key, body) == Status.OK
    assert guest.do("http_body.close", body) == Status.BADF
    assert stored(guest) == b"one"
    body = guest.body(b"two")
    pending = guest.get("object_store.insert_async", store, *key, body)
    assert guest.do("object_store.pending_insert_wait", pending) == Status.OK
    assert guest.do("object_store.pending_insert_wait", pending) == Status.BADF
    assert stored(guest) == b"two"
    assert guest.made.account.held == 0


@pytest.mark.parametrize("name", ["insert", "insert_async"])
def test_an_insertion_that_cannot_begin_leaves_the_body(name: str) -> None:
    guest = KvGuest()
    store, key, body = guest.open_kv(OLD), guest.put(b"k"), guest.body(b"v")
    out = [64] if name == "insert_async" else []
    call = f"object_store.{name}"
    assert guest.do(call, store, *guest.put(b"a;b"), body, *out) == Status.INVAL
    assert guest.do(call, INVALID, *key, body, *out) == Status.BADF
    assert guest.do(call, store, *key, INVALID, *out) == Status.BADF
    assert guest.do(call, store, *key, store, *out) == Status.BADF
    assert guest.read_all(body) == b"v"


def test_a_deletion_of_nothing_is_none() -> None:
    guest = KvGuest()
    store, key = guest.open_kv(OLD), guest.put(b"k")
    guest.inner.insert("k", insertion_of(b"v"))
    for status in (Status.OK, Status.NONE):
        pending = guest.get("object_store.delete_async", store, *key)
        assert guest.do("object_store.pending_delete_wait", pending) == status
        assert guest.do("object_store.pending_delete_wait", pending) == Status.BADF
    assert stored(guest) is None


def test_waits_want_an_operation_of_their_own_kind() -> None:
    guest = KvGuest(held=True)
    store, key = guest.open_kv(OLD), guest.put(b"k")
    lookup = guest.get("object_store.lookup_async", store, *key)
    insert = guest.get("object_store.insert_async", store, *key, guest.body(b"v"))
    delete = guest.get("object_store.delete_async", store, *key)
    for handle in (insert, delete, store, INVALID):
        assert guest.do("object_store.pending_lookup_wait", handle, 64) == Status.BADF
    for handle in (lookup, delete, store, INVALID):
        assert guest.do("object_store.pending_insert_wait", handle) == Status.BADF
    for handle in (lookup, insert, store, INVALID):
        assert guest.do("object_store.pending_delete_wait", handle) == Status.BADF


@in_loop
async def test_everything_can_be_waited_for() -> None:
    guest = KvGuest(held=True)
    store, key = guest.open_kv(OLD), guest.put(b"k")

    async def waits(name: str, *raw: int) -> Status:
        assert guest.begin(f"object_store.{name}", *raw) is None
        waiting = asyncio.ensure_future(guest.finish())
        await turns()
        assert not waiting.done()
        guest.held.release()
        return Status(await waiting)

    assert await waits("insert", store, *key, guest.body(b"value")) == Status.OK
    assert await waits("lookup", store, *key, 64) == Status.OK
    assert guest.read_all(guest.u32_at(64)) == b"value"
    pending = guest.get("object_store.insert_async", store, *key, guest.body(b"again"))
    assert await waits("pending_insert_wait", pending) == Status.OK
    pending = guest.get("object_store.lookup_async", store, *key)
    assert await waits("pending_lookup_wait", pending, 64) == Status.OK
    assert guest.read_all(guest.u32_at(64)) == b"again"
    pending = guest.get("object_store.delete_async", store, *key)
    assert await waits("pending_delete_wait", pending) == Status.OK
    assert guest.made.account.held == 0


@pytest.mark.parametrize("name", ["insert", "lookup"])
@in_loop
async def test_a_guest_that_is_killed_while_it_waits_holds_nothing(name: str) -> None:
    guest = KvGuest(held=True)
    guest.inner.insert("k", insertion_of(b"v" * 1000))
    last = guest.body(b"w" * 1000) if name == "insert" else 64
    raw = (guest.open_kv(OLD), *guest.put(b"k"), last)
    assert guest.begin(f"object_store.{name}", *raw) is None
    guest.cancel()
    guest.box.close()
    guest.held.release()
    assert guest.made.account.held == guest.made.account.ledger.held == 0


@in_loop
async def test_a_blocking_insertion_waits_for_the_end_of_its_body() -> None:
    guest = KvGuest()
    body = Body(guest.box.account, live=True)
    handle = guest.box.insert(body)
    raw = (guest.open_kv(OLD), *guest.put(b"k"), handle)
    assert guest.begin("object_store.insert", *raw) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    body.write(b"v" * 500_000)
    body.finish()
    assert await waiting == Status.OK
    assert stored(guest) == b"v" * 500_000


@in_loop
async def test_a_long_body_is_inserted_in_turns() -> None:
    guest = KvGuest()
    store, key = guest.open_kv(OLD), guest.put(b"k")
    for name, out in (("insert", ()), ("insert_async", (64,))):
        body = Body(guest.box.account)
        body.write(b"v" * MIB)
        raw = (store, *key, guest.box.insert(body), *out)
        assert guest.begin(f"object_store.{name}", *raw) is None
        assert await guest.finish() == Status.OK
    assert stored(guest) == b"v" * MIB
    assert guest.made.account.held == 0


STATUSES = {
    KvCause.BAD_REQUEST: Status.INVAL,
    KvCause.PRECONDITION_FAILED: Status.INVAL,
    KvCause.PAYLOAD_TOO_LARGE: Status.INVAL,
    KvCause.INTERNAL_ERROR: Status.ERROR,
    KvCause.TOO_MANY_REQUESTS: Status.LIMITEXCEEDED,
}


@pytest.mark.parametrize("cause", list(KvCause))
def test_what_a_store_refuses_is_a_status(cause: KvCause) -> None:
    guest = KvGuest(store=FailingStore(cause))
    status = STATUSES[cause]
    store, key = guest.open_kv(OLD), guest.put(b"k")
    assert guest.do("object_store.lookup", store, *key, 64) == status
    pending = guest.get("object_store.lookup_async", store, *key)
    assert guest.do("object_store.pending_lookup_wait", pending, 64) == status
    assert guest.do("object_store.insert", store, *key, guest.body(b"v")) == status
    pending = guest.get("object_store.insert_async", store, *key, guest.body(b"v"))
    assert guest.do("object_store.pending_insert_wait", pending) == status
    pending = guest.get("object_store.delete_async", store, *key)
    assert guest.do("object_store.pending_delete_wait", pending) == status
    assert guest.made.account.held == 0


def test_a_value_that_nobody_can_pay_for_is_a_limit() -> None:
    guest = KvGuest(limits=Limits(host_memory=1000))
    guest.inner.insert("k", insertion_of(b"v" * 1001))
    store, key = guest.open_kv(OLD), guest.put(b"k")
    assert guest.do("object_store.lookup", store, *key, 64) == Status.LIMITEXCEEDED
    assert guest.made.account.held == 0

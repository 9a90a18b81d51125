"""`fastly_kv_store.insert`: bodies of every kind on their way into a store."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.kv_ops import KvError
from edge.abi.fastly.status import Status
from edge.errors import Incomplete
from edge.http.body import Body
from edge.model.limits import Limits
from edge.stores.kv import Insertion, KvOperation, Payer
from tests.support.fastly_guest import INVALID
from tests.support.kv import HeldStore
from tests.support.kv_guest import MIB, KvGuest
from tests.support.loop import in_loop, turns

METADATA, TTL, GENERATION = 8, 16, 32


def held_by(guest: KvGuest) -> int:
    return guest.made.account.held


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


def begin_streaming(guest: KvGuest, body: Body | None = None) -> tuple[Body, int]:
    """A body that is still arriving, and where the handle of its insertion will be.

    The guest is suspended in `insert` from here on.
    """
    body = body or Body(guest.box.account, live=True)
    out = guest.room(4)
    raw = (guest.open_kv(), *guest.put(b"k"), guest.box.insert(body), 0, guest.insert_config())
    assert guest.begin("kv_store.insert", *raw, out) is None
    return body, out


@in_loop
async def test_a_body_that_still_arrives_is_gathered_while_the_guest_is_suspended() -> None:
    guest = KvGuest()
    body, out = begin_streaming(guest)
    inserting = asyncio.ensure_future(guest.finish())
    for part in (b"one ", b"two "):
        body.write(part)
        await turns()
    assert not inserting.done()
    assert held_by(guest) == 8, "paid for while it waits"
    assert body.held == 0, "and its sender is not held up"
    body.write(b"three")
    body.finish()
    assert await inserting == Status.OK
    assert guest.kv_error("kv_store.insert_wait", guest.u32_at(out)) == KvError.OK
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert b"".join(found.pieces) == b"one two three"
    assert held_by(guest) == 0


@in_loop
async def test_what_has_been_gathered_is_stored_though_the_guest_ends_at_once() -> None:
    guest = KvGuest(held=True)
    body, _ = begin_streaming(guest)
    inserting = asyncio.ensure_future(guest.finish())
    await turns()
    body.write(b"to the end")
    body.finish()
    assert await inserting == Status.OK
    assert held_by(guest) == 10
    guest.box.close()
    assert held_by(guest) == guest.made.account.ledger.held == 0
    guest.held.release()
    found = guest.inner.lookup("k").result()
    assert found is not None
    assert b"".join(found.pieces) == b"to the end"


@in_loop
async def test_much_that_arrives_at_once_is_taken_in_turns() -> None:
    guest = KvGuest()
    body, out = begin_streaming(guest)
    body.write(b"v" * (MIB - 5))
    inserting = asyncio.ensure_future(guest.finish())
    left = []
    while body.held:
        left.append(body.held)
        assert held_by(guest) == MIB - 5
        await turns(1)
    assert all(before - after <= 256 * 1024 for before, after in pairwise(left)), left
    assert len(left) >= 4
    body.finish()
    assert await inserting == Status.OK
    assert guest.kv_error("kv_store.insert_wait", guest.u32_at(out)) == KvError.OK
    assert held_by(guest) == 0


class SeenStore(HeldStore):
    """A store that tells in what pieces it was given a value."""

    pieces: tuple[bytes, ...] = ()

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        self.pieces = insertion.pieces
        return super().insert(key, insertion, payer)


@in_loop
async def test_bytes_that_trickle_in_are_kept_in_few_pieces() -> None:
    guest = KvGuest()
    store = SeenStore(guest.inner)
    guest.box.capabilities = Capabilities(kv_stores={"cart": store})
    body, _ = begin_streaming(guest)
    inserting = asyncio.ensure_future(guest.finish())
    sent = [number.to_bytes(2) * 40 for number in range(2000)]
    for part in sent:
        body.write(part)
        await turns(1)
    body.finish()
    assert await inserting == Status.OK
    assert b"".join(store.pieces) == b"".join(sent)
    assert len(store.pieces) == 2, "128 KiB, and the rest"
    guest.box.close()


@in_loop
async def test_a_body_that_breaks_off_is_not_stored() -> None:
    guest = KvGuest()
    body, out = begin_streaming(guest)
    body.write(b"half")
    body.fail(Incomplete("the client has left"))
    assert await guest.finish() == Status.OK, "the wait tells"
    pending = guest.u32_at(out)
    assert guest.do("kv_store.insert_wait", pending, 64) == Status.HTTPINCOMPLETE
    assert guest.do("kv_store.insert_wait", pending, 64) == Status.BADF
    assert guest.inner.lookup("k").result() is None
    assert held_by(guest) == 0


@in_loop
async def test_a_body_that_arrives_must_be_paid_for() -> None:
    guest = KvGuest(limits=Limits(host_memory=1000))
    body, out = begin_streaming(guest, Body(live=True))  # somebody else's, as that of a client
    inserting = asyncio.ensure_future(guest.finish())
    body.write(b"v" * 600)
    await turns()
    assert held_by(guest) == 600
    body.write(b"v" * 401)
    assert await inserting == Status.OK, "the wait tells"
    assert held_by(guest) == 0
    assert guest.do("kv_store.insert_wait", guest.u32_at(out), 64) == Status.LIMITEXCEEDED
    body.write(b"more, into nothing")
    assert body.held == held_by(guest) == 0
    assert guest.inner.lookup("k").result() is None


@in_loop
async def test_a_value_that_becomes_too_large_is_not_awaited_to_its_end() -> None:
    guest = KvGuest()
    body, out = begin_streaming(guest, Body(live=True))
    inserting = asyncio.ensure_future(guest.finish())
    body.write(b"v" * MIB)
    await turns(8)
    assert not inserting.done()
    body.write(b"v")
    assert await inserting == Status.OK
    pending = guest.u32_at(out)
    assert guest.kv_error("kv_store.insert_wait", pending) == KvError.PAYLOAD_TOO_LARGE
    assert held_by(guest) == 0


@in_loop
async def test_a_guest_that_is_killed_before_its_body_ends_stores_nothing() -> None:
    guest = KvGuest()
    body, _ = begin_streaming(guest)
    gathering = asyncio.ensure_future(guest.finish())
    body.write(b"half")
    await turns()
    assert held_by(guest) == 4
    gathering.cancel()
    await asyncio.wait([gathering])
    guest.cancel()
    guest.box.close()
    assert not body._watchers
    body.write(b"the other half")
    body.finish()
    await turns()
    assert guest.inner.lookup("k").result() is None
    assert body.held == held_by(guest) == guest.made.account.ledger.held == 0


@in_loop
async def test_the_clients_own_body_reads_on_when_the_guest_is_killed() -> None:
    guest = KvGuest()
    client = guest.client.body
    client.live, client.ended = True, False
    _, body = guest.downstream()
    raw = (guest.open_kv(), *guest.put(b"k"), body, 0, guest.insert_config())
    assert guest.begin("kv_store.insert", *raw, 64) is None
    client.write(b"first ")
    guest.cancel()
    guest.box.close()
    client.write(b"second")
    client.finish()
    assert b"".join(iter(lambda: client.read(100), b"")) == b"first second", "by the connection"
    assert guest.inner.lookup("k").result() is None
    assert held_by(guest) == 0


def test_an_insertion_nobody_waits_for_happens() -> None:
    guest = KvGuest(held=True)
    raw = (guest.open_kv(), *guest.put(b"k"), guest.body(b"v"), 0, guest.insert_config())
    guest.get("kv_store.insert", *raw)
    assert held_by(guest) == 1
    guest.box.close()
    assert held_by(guest) == 0
    guest.held.release()
    assert guest.inner.lookup("k").result() is not None

"""What every KV engine does, the one in memory and the one on disk alike."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge.errors import InvalidArgument, LimitExceeded
from edge.http.body import Account, Ledger
from edge.stores.kv import InsertMode, KvCause, KvEngine, KvLimits, insertion_of
from edge.stores.kv_rules import ENTRY_OVERHEAD, MAX_SCAN
from edge.stores.kv_sqlite_file import INLINE
from tests.support.clock import SteppedClock
from tests.support.kv import (
    KINDS,
    LIMITS,
    MIB,
    done,
    keys_of,
    opened,
    refusal,
    until_ready,
    value_of,
)
from tests.support.loop import in_loop

pytestmark = pytest.mark.parametrize("kind", KINDS)

MODES = {
    InsertMode.OVERWRITE: lambda old, new: new,
    InsertMode.APPEND: lambda old, new: old + new,
    InsertMode.PREPEND: lambda old, new: new + old,
}


@in_loop
async def test_what_is_stored_is_found_with_its_metadata(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("shop:cart")
        assert await done(store.lookup("k")) is None
        generation = await done(store.insert("k", insertion_of(b"value", metadata=b"\xc3\xa9")))
        found = await done(store.lookup("k"))
        assert found is not None
        assert (found.pieces, found.size) == ((b"value",), 5)
        assert (found.metadata, found.generation) == ("é".encode(), generation)
        assert 0 < generation < 2**63
        assert await done(store.delete("k")) is True
        assert await done(store.delete("k")) is False
        assert await done(store.lookup("k")) is None


@pytest.mark.parametrize("size", [0, 1, INLINE - 1, INLINE, INLINE + 1, 256 * 1024, MIB + 3])
@in_loop
async def test_values_of_any_size_come_back(kind: str, size: int, tmp_path: Path) -> None:
    value = random.Random(size).randbytes(size)
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        await done(store.insert("k", insertion_of(value)))
        assert await value_of(store, "k") == value
        assert all(
            len(piece) <= 256 * 1024
            for piece in (await done(store.lookup("k"))).pieces  # type: ignore[union-attr]
        )


@in_loop
async def test_modes_do_what_they_say_across_every_size(kind: str, tmp_path: Path) -> None:
    chance = random.Random(7)
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        expected: bytes | None = None
        for _ in range(120):
            mode = chance.choice([*MODES, InsertMode.APPEND, InsertMode.PREPEND])
            size = chance.choice([0, 1, 900, 40_000, INLINE, INLINE + 1, 300_000])
            piece = chance.randbytes(size)
            wanted = MODES[mode](expected or b"", piece)
            operation = store.insert("k", insertion_of(piece, mode=mode))
            if len(wanted) > LIMITS.value_bytes:
                assert await refusal(operation) is KvCause.PAYLOAD_TOO_LARGE
            else:
                await done(operation)
                expected = wanted
            assert await value_of(store, "k") == expected


@in_loop
async def test_add_wants_an_absent_key(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        add = insertion_of(b"first", mode=InsertMode.ADD)
        await done(store.insert("k", add))
        again = insertion_of(b"second", mode=InsertMode.ADD)
        assert await refusal(store.insert("k", again)) is KvCause.PRECONDITION_FAILED
        assert await value_of(store, "k") == b"first"
        await done(store.delete("k"))
        await done(store.insert("k", again))
        assert await value_of(store, "k") == b"second"


@in_loop
async def test_generations_only_grow(kind: str, tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(kind, tmp_path, clock=clock) as engine:
        store = engine.open("s")
        seen = []
        for number in range(6):
            seen.append(await done(store.insert("ab"[number % 2], insertion_of(b"x"))))
            if number == 2:
                await done(store.delete("a"))
            if number == 3:
                clock.advance(-1000)  # a clock that goes back changes nothing
        assert seen == sorted(set(seen))


@in_loop
async def test_a_generation_is_compared_when_there_is_a_value(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        first = await done(store.insert("k", insertion_of(b"1", generation=12345)))
        second = await done(store.insert("k", insertion_of(b"2", generation=first)))
        for wrong in (first, 0, 2**64 - 1):
            stale = store.insert("k", insertion_of(b"3", generation=wrong))
            assert await refusal(stale) is KvCause.PRECONDITION_FAILED
        assert await value_of(store, "k") == b"2"
        await done(store.insert("k", insertion_of(b"4", generation=second)))


@in_loop
async def test_metadata_are_replaced_with_the_value_and_bounded(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"a", metadata=b"m" * 2000)))
        too_long = store.insert("k", insertion_of(b"b", metadata=b"m" * 2001))
        assert await refusal(too_long) is KvCause.BAD_REQUEST
        await done(store.insert("k", insertion_of(b"b", mode=InsertMode.APPEND)))
        found = await done(store.lookup("k"))
        assert found is not None
        assert (found.pieces, found.metadata) == ((b"ab",), b"")


@in_loop
async def test_a_value_that_is_over_is_gone_to_the_millisecond(kind: str, tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(kind, tmp_path, clock=clock) as engine:
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"v", ttl=10)))
        await done(store.insert("big", insertion_of(b"v" * (INLINE + 1), ttl=10)))
        await done(store.insert("at once", insertion_of(b"v", ttl=0)))
        await done(store.insert("stays", insertion_of(b"v")))
        assert await value_of(store, "at once") is None
        clock.advance(9.999)
        assert await value_of(store, "k") == b"v"
        clock.advance(0.001)
        assert await value_of(store, "k") is None
        assert await value_of(store, "big") is None
        assert await keys_of(store) == ["stays"]
        assert await done(store.delete("k")) is False
        # As if it had never been: for `add`, `append`, and a generation.
        await done(store.insert("big", insertion_of(b"x", mode=InsertMode.APPEND)))
        assert await value_of(store, "big") == b"x"
        await done(store.insert("k", insertion_of(b"y", mode=InsertMode.ADD, generation=1)))
        await done(store.insert("at once", insertion_of(b"z", mode=InsertMode.PREPEND)))
        clock.advance(1e6)
        assert await keys_of(store) == ["at once", "big", "k", "stays"]


@in_loop
async def test_a_store_is_full_to_the_byte(kind: str, tmp_path: Path) -> None:
    clock = SteppedClock()
    limits = KvLimits(value_bytes=MIB, store_bytes=100_000)
    async with opened(kind, tmp_path, limits=limits, clock=clock) as engine:
        store = engine.open("s")

        def fits(key: str, metadata: int, others: int) -> bytes:
            return b"v" * (100_000 - others - len(key) - metadata - ENTRY_OVERHEAD)

        whole = fits("key", 5, 0)
        over = store.insert("key", insertion_of(whole + b"v", metadata=b"m" * 5))
        assert await refusal(over) is KvCause.PAYLOAD_TOO_LARGE
        await done(store.insert("key", insertion_of(whole, metadata=b"m" * 5)))
        assert await refusal(store.insert("k2", insertion_of(b""))) is KvCause.PAYLOAD_TOO_LARGE
        longer = store.insert("key", insertion_of(b"v", mode=InsertMode.APPEND, metadata=b"m" * 5))
        assert await refusal(longer) is KvCause.PAYLOAD_TOO_LARGE
        assert await value_of(store, "key") == whole
        await done(engine.open("other").insert("k", insertion_of(b"other stores have their own")))
        # A smaller value, a deletion and an end by time each give room back.
        await done(store.insert("key", insertion_of(b"small", ttl=1)))
        used = 3 + 5 + ENTRY_OVERHEAD
        await done(store.insert("k2", insertion_of(fits("k2", 0, used))))
        clock.advance(2)
        await done(store.insert("three", insertion_of(b"no"), None))
        await done(store.delete("k2"))
        await done(store.delete("three"))
        await done(store.insert("key", insertion_of(fits("key", 0, 0))))


@in_loop
async def test_values_have_a_limit(kind: str, tmp_path: Path) -> None:
    limits = KvLimits(value_bytes=1000, store_bytes=MIB)
    async with opened(kind, tmp_path, limits=limits) as engine:
        store = engine.open("s")
        assert store.value_limit == 1000
        await done(store.insert("k", insertion_of(b"x" * 1000)))
        over = store.insert("k", insertion_of(b"x" * 1001))
        assert await refusal(over) is KvCause.PAYLOAD_TOO_LARGE
        more = store.insert("k", insertion_of(b"x", mode=InsertMode.PREPEND))
        assert await refusal(more) is KvCause.PAYLOAD_TOO_LARGE


LISTED = [
    "%", "_", "a", "a%b", "a*", "a/1", "a/10", "a/2", "a_b", "ab", "a\x00", "a\x00b", "a\\",
    "a[b", "b", "é", "日本", "\U0001f600", "~", "a\uffff",
]  # fmt: skip


@in_loop
async def test_keys_are_listed_in_order_by_prefix_and_page(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        for key in random.Random(1).sample(LISTED, len(LISTED)):
            await done(store.insert(key, insertion_of(b"")))
        in_order = sorted(LISTED, key=str.encode)
        for prefix in ("", "a", "a/", "a/1", "%", "_", "a_", "a\x00", "a[", "日", "zz", "a\\"):
            wanted = [key for key in in_order if key.startswith(prefix)]
            for limit in (1, 2, 7, 1000, 5000):
                assert await keys_of(store, prefix, limit) == wanted, (prefix, limit)
        page = await done(store.list("", "", 2**32 - 1))
        assert page.limit == 1000
        assert not page.next_cursor


@in_loop
async def test_a_page_that_is_exactly_full_is_the_last(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        for key in "abcd":
            await done(store.insert(key, insertion_of(b"")))
        first = await done(store.list("", "", 2))
        assert first.keys == ("a", "b")
        await done(store.delete("b"))  # a cursor needs no key that is still there
        last = await done(store.list("", first.next_cursor, 2))
        assert (last.keys, last.next_cursor) == (("c", "d"), "")


@pytest.mark.parametrize("cursor", ["!", "YQ", "YWJj\n", "/w==", "é", "A" * 4000])
@in_loop
async def test_a_cursor_of_somebody_elses_is_a_bad_request(
    kind: str, cursor: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        assert await refusal(store.list("", cursor, 10)) is KvCause.BAD_REQUEST


@in_loop
async def test_lists_of_nothing_and_of_too_long_a_prefix(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        assert await keys_of(store) == []
        assert await refusal(store.list("", "", 0)) is KvCause.BAD_REQUEST
        assert await refusal(store.list("p" * 1025, "", 10)) is KvCause.BAD_REQUEST
        assert await keys_of(store, "p" * 1024) == []


@in_loop
async def test_a_page_never_passes_over_more_than_its_share(kind: str, tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(kind, tmp_path, clock=clock) as engine:
        store = engine.open("s")
        for start in (0, MAX_SCAN // 2):  # what the queue of one store takes
            for operation in [
                store.insert(f"{number:05}", insertion_of(b"", ttl=1))
                for number in range(start, start + MAX_SCAN // 2)
            ]:
                await done(operation)
        await done(store.insert("z", insertion_of(b"")))
        clock.advance(2)
        first = await done(store.list("", "", 1000))
        assert first.keys == ()
        assert first.next_cursor
        assert await keys_of(store) == ["z"]


BAD_KEYS = [
    "", "k" * 1025, "é" * 513, ".", "..", "./a", "../a", "a/./b", "a/../b", "a/.", "a/..", "a./b",
    "a\rb", "a\nb", "a#b", "a;b", "a?b", "a^b", "a|b", "\0", " ", "\x1f", "\ufffe", "\uffff",
    ".well-known/acme-challenge", ".well-known/acme-challenge/x",
]  # fmt: skip
GOOD_KEYS = [
    "k" * 1024, "...", ".a", "a.", "a..", "/", "a//b", "!", "a\0b", "\0\0", "é", "%", "'\"",
    ".well-known/other", "a b", "\x7f", "\u2028",
]  # fmt: skip


@in_loop
async def test_what_can_be_a_key(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        for key in BAD_KEYS:
            for act in (
                lambda: store.lookup(key),  # noqa: B023
                lambda: store.delete(key),  # noqa: B023
                lambda: store.insert(key, insertion_of(b"")),  # noqa: B023
            ):
                with pytest.raises(InvalidArgument):
                    act()
        for key in GOOD_KEYS:
            await done(store.insert(key, insertion_of(key.encode())))
        for key in GOOD_KEYS:
            assert await value_of(store, key) == key.encode()
        assert await keys_of(store) == sorted(GOOD_KEYS, key=str.encode)


@in_loop
async def test_stores_are_apart(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        one, other = engine.open("a:s"), engine.open("b:s")
        await done(one.insert("k", insertion_of(b"one")))
        assert await value_of(other, "k") is None
        assert await keys_of(other) == []
        assert await done(other.delete("k")) is False
        assert await value_of(engine.open("a:s"), "k") == b"one"


def account(limit: int) -> Account:
    return Account(Ledger(), limit)


@pytest.mark.parametrize("size", [1000, INLINE + 1000])
@in_loop
async def test_whoever_looks_up_pays_until_the_value_is_taken(
    kind: str, size: int, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"v" * size, metadata=b"meta")))
        payer = account(size + 4)
        operation = store.lookup("k", payer)
        assert await done(operation) is not None
        assert payer.held == payer.ledger.held == size + 4
        second = store.lookup("k", payer)
        with pytest.raises(LimitExceeded):
            await done(second)
        operation.release()
        assert payer.held == 0
        dropped = store.lookup("k", payer)
        dropped.abandon()
        assert payer.held == 0
        await done(store.insert("after", insertion_of(b"")))
        assert payer.held == payer.ledger.held == 0


@in_loop
async def test_a_page_is_paid_for_as_well(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        for number in range(10):
            await done(store.insert(f"{number}" * 100, insertion_of(b"")))
        with pytest.raises(LimitExceeded):
            await done(store.list("", "", 10, account(900)))
        payer = account(10_000)
        operation = store.list("", "", 10, payer)
        await done(operation)
        assert payer.held >= 1000
        operation.abandon()
        assert payer.held == 0


@in_loop
async def test_what_was_charged_for_an_insertion_is_given_back(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        payer = account(MIB)
        for mode, refused in ((InsertMode.ADD, False), (InsertMode.ADD, True)):
            payer.charge(5)
            operation = store.insert("k", insertion_of(b"12345", mode=mode), payer)
            await until_ready(operation)
            assert payer.held == 0
            if refused:
                assert await refusal(operation) is KvCause.PRECONDITION_FAILED
        payer.charge(6)
        dropped = store.insert("k", insertion_of(b"123456"), payer)
        dropped.abandon()
        assert payer.held == 0
        await done(store.insert("other", insertion_of(b"")))
        assert await value_of(store, "k") == b"123456", "a write that was accepted happens"
        assert payer.held == payer.ledger.held == 0


@in_loop
async def test_statistics_count_what_was_asked(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        await some_of_each(engine)
        counts = engine.statistics().counts
        assert (counts.lookups, counts.inserts, counts.deletes, counts.lists) == (2, 1, 1, 1)
        assert (counts.errors, counts.refused) == (0, 0)
        assert engine.statistics().queued == engine.statistics().queued_bytes == 0


async def some_of_each(engine: KvEngine) -> None:
    store = engine.open("s")
    await done(store.insert("k", insertion_of(b"v")))
    await done(store.lookup("k"))
    await done(store.lookup("absent"))
    await done(store.list("", "", 5))
    await done(store.delete("k"))

"""Stores as a whole: what all of them may hold together, giving one up, what one counts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.stores.kv import InsertMode, KvCause, KvEngine, KvLimits, insertion_of
from edge.stores.kv_rules import ENTRY_OVERHEAD
from edge.stores.kv_sqlite import SqliteKvEngine
from edge.stores.kv_sqlite_writes import SWEEP_ENTRIES
from tests.support.clock import SteppedClock
from tests.support.kv import KINDS, LIMITS, MIB, done, keys_of, opened, refusal, value_of
from tests.support.loop import in_loop

every_kind = pytest.mark.parametrize("kind", KINDS)

TOTAL = KvLimits(value_bytes=MIB, store_bytes=60_000, total_bytes=100_000)


@every_kind
@in_loop
async def test_all_stores_together_are_full_to_the_byte(kind: str, tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened(kind, tmp_path, limits=TOTAL, clock=clock) as engine:
        one, two = engine.open("one:s"), engine.open("two:s")
        await done(one.insert("k", insertion_of(b"v" * (60_000 - 1 - ENTRY_OVERHEAD))))
        left = 40_000 - 1 - ENTRY_OVERHEAD
        over = two.insert("k", insertion_of(b"v" * (left + 1)))
        assert await refusal(over) is KvCause.PAYLOAD_TOO_LARGE
        await done(two.insert("k", insertion_of(b"v" * left, ttl=1)))
        longer = two.insert("k", insertion_of(b"v", mode=InsertMode.APPEND))
        assert await refusal(longer) is KvCause.PAYLOAD_TOO_LARGE
        assert await refusal(two.insert("new", insertion_of(b""))) is KvCause.PAYLOAD_TOO_LARGE
        # What is over, shorter or deleted gives room back to all.
        clock.advance(2)
        await done(two.insert("new", insertion_of(b"")))
        await done(one.delete("k"))
        await done(two.insert("k", insertion_of(b"v" * 50_000)))


@in_loop
async def test_a_total_counts_for_every_process(tmp_path: Path) -> None:
    async with (
        opened("sqlite", tmp_path, limits=TOTAL) as first,
        opened("sqlite", tmp_path, limits=TOTAL) as second,
    ):
        await done(first.open("a:s").insert("k", insertion_of(b"v" * 59_000)))
        over = second.open("b:s").insert("k", insertion_of(b"v" * 41_000))
        assert await refusal(over) is KvCause.PAYLOAD_TOO_LARGE
        await done(second.open("b:s").insert("k", insertion_of(b"v" * 40_000)))


@every_kind
@in_loop
async def test_a_store_that_was_erased_is_empty_and_takes_nothing(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as engine:
        store, other = engine.open(":gone"), engine.open(":stays")
        count = SWEEP_ENTRIES * 2 + 1
        for number in range(count):
            insertion = insertion_of(b"v" * (300_000 if number == 0 else 1))
            await done(store.insert(f"{number}", insertion))
        await done(other.insert("k", insertion_of(b"v")))
        assert await done(engine.usage(":gone")) > 300_000 + count * ENTRY_OVERHEAD
        assert await done(engine.erase(":gone")) is True
        await empty(engine, ":gone")
        assert await keys_of(store) == []
        assert await value_of(store, "0") is None
        assert await refusal(store.insert("k", insertion_of(b""))) is KvCause.BAD_REQUEST
        assert await done(engine.erase(":gone")) is False
        assert await done(engine.erase(":never")) is False
        assert await value_of(other, "k") == b"v"


@in_loop
async def test_erasing_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open(":gone")
        for number in range(SWEEP_ENTRIES + 1):
            await done(store.insert(f"{number}", insertion_of(b"")))
        await done(engine.erase(":gone"))
    async with opened("sqlite", tmp_path) as engine:
        assert isinstance(engine, SqliteKvEngine)
        engine.sweep()
        await empty(engine, ":gone")
        again = engine.open(":gone").insert("k", insertion_of(b""))
        assert await refusal(again) is KvCause.BAD_REQUEST


async def empty(engine: KvEngine, identity: str) -> None:
    """Return when a store that was erased holds nothing more."""
    while await done(engine.usage(identity)):  # each look is a turn of the loop
        pass


@every_kind
@in_loop
async def test_a_deletion_can_ask_for_a_generation(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        generation = await done(store.insert("k", insertion_of(b"v")))
        assert await refusal(store.delete("k", generation + 1)) is KvCause.PRECONDITION_FAILED
        assert await value_of(store, "k") == b"v"
        assert await done(store.delete("k", generation)) is True
        assert await done(store.delete("k", generation)) is False


@every_kind
@in_loop
async def test_an_insertion_can_ask_for_a_value_to_replace(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as engine:
        store = engine.open("s")
        absent = store.insert("k", insertion_of(b"v", generation=1, must_exist=True))
        assert await refusal(absent) is KvCause.PRECONDITION_FAILED
        generation = await done(store.insert("k", insertion_of(b"v")))
        await done(store.insert("k", insertion_of(b"w", generation=generation, must_exist=True)))
        assert await value_of(store, "k") == b"w"


@in_loop
async def test_a_file_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        await done(engine.open("a:s").insert("k", insertion_of(b"v" * 1000)))
    with closing(sqlite3.connect(tmp_path / "kv.sqlite")) as file:
        file.executescript(
            "DROP TABLE totals; ALTER TABLE stores DROP COLUMN gone; PRAGMA user_version = 1;"
        )
    used = 1000 + 1 + ENTRY_OVERHEAD
    limits = KvLimits(LIMITS.value_bytes, LIMITS.store_bytes, used + 2 + ENTRY_OVERHEAD)
    async with opened("sqlite", tmp_path, limits=limits) as engine:
        assert await value_of(engine.open("a:s"), "k") == b"v" * 1000
        over = engine.open("b:s").insert("k", insertion_of(b"vv"))
        assert await refusal(over) is KvCause.PAYLOAD_TOO_LARGE
        await done(engine.open("b:s").insert("k", insertion_of(b"v")))

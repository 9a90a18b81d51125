"""The KV engine on disk: what is particular to a file, to threads and to neighbours."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ConfigError
from edge.http.body import Account, Ledger
from edge.stores.kv import InsertMode, KvCause, KvFailed, KvLimits, KvOperation, insertion_of
from edge.stores.kv_rules import ENTRY_OVERHEAD
from edge.stores.kv_sqlite import BATCH, MAX_WAITING, SqliteKvEngine
from edge.stores.kv_sqlite_file import INLINE, VERSION, FileLock, open_reader
from edge.stores.kv_sqlite_reads import InPieces
from tests.support.clock import SteppedClock
from tests.support.kv import LIMITS, MIB, done, opened, refusal, until_ready, value_of
from tests.support.loop import in_loop


def make(directory: Path, *, limits: KvLimits = LIMITS) -> SqliteKvEngine:
    return SqliteKvEngine(directory / "kv.sqlite", limits, SteppedClock())


def hold(directory: Path) -> FileLock:
    """The lock that writers take; whoever has it stops them all."""
    lock = FileLock(directory / "kv.sqlite-lock")
    lock.__enter__()
    return lock


def look(directory: Path, sql: str) -> list[tuple[object, ...]]:
    """What another program finds in the file."""
    connection = sqlite3.connect(directory / "kv.sqlite")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def modes_in(directory: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in directory.iterdir()}


@in_loop
async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        for key, size in (("small", 10), ("large", INLINE + 1)):
            await done(engine.open("s").insert(key, insertion_of(b"v" * size)))
        generation = await done(engine.open("s").insert("g", insertion_of(b"")))
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open("s")
        assert await value_of(store, "small") == b"v" * 10
        assert await value_of(store, "large") == b"v" * (INLINE + 1)
        assert await done(store.insert("g", insertion_of(b""))) > generation


@in_loop
async def test_a_write_is_seen_by_all_as_soon_as_it_is_acknowledged(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as one, opened("sqlite", tmp_path) as other:
        for number in range(20):
            await done(one.open("s").insert("k", insertion_of(b"%d" % number)))
            assert await value_of(one.open("s"), "k") == b"%d" % number
            assert await value_of(other.open("s"), "k") == b"%d" % number
        await done(other.open("s").delete("k"))
        assert await value_of(one.open("s"), "k") is None


@in_loop
async def test_a_commit_is_synced_and_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    engine = make(tmp_path)
    await engine.start()
    await done(engine.open("s").insert("k", insertion_of(b"")))
    pragma = {
        name: engine._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
    }
    assert pragma == {
        "journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "user_version": VERSION,
    }  # fmt: skip
    assert modes_in(tmp_path) == {0o600}
    await engine.aclose()


@in_loop
async def test_short_values_are_found_at_once_and_long_ones_are_not(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open("s")
        assert store.lookup("absent").is_ready
        await done(store.insert("short", insertion_of(b"v" * INLINE)))
        await done(store.insert("long", insertion_of(b"v" * (INLINE + 1))))
        assert store.lookup("short").is_ready
        operation = store.lookup("long")
        assert not operation.is_ready
        assert not store.list("", "", 1).is_ready
        assert not store.delete("short").is_ready
        await until_ready(operation)


@in_loop
async def test_writes_that_wait_go_together(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open("s")
        lock = hold(tmp_path)
        writes: list[KvOperation[Any]] = [
            store.insert(f"{n}", insertion_of(b"%d" % n)) for n in range(BATCH)
        ]
        writes.append(store.delete("0"))
        assert engine.statistics().queued == BATCH + 1
        assert engine.statistics().queued_bytes > BATCH
        lock.close()
        for write in writes:
            await done(write)
        assert engine.statistics().counts.commits <= 3
        assert engine.statistics().queued == engine.statistics().queued_bytes == 0


@in_loop
async def test_one_store_cannot_fill_the_queue_of_all(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        greedy, modest = engine.open("greedy"), engine.open("modest")
        lock = hold(tmp_path)
        writes = [greedy.insert("k", insertion_of(b"")) for _ in range(MAX_WAITING // 2)]
        assert await refusal(greedy.insert("k", insertion_of(b""))) is KvCause.TOO_MANY_REQUESTS
        assert await refusal(greedy.delete("k")) is KvCause.TOO_MANY_REQUESTS
        assert await value_of(greedy, "k") is None, "reading goes on"
        writes.append(modest.insert("k", insertion_of(b"")))
        assert not writes[-1].is_ready
        assert engine.statistics().counts.refused == 2
        lock.close()
        for write in writes:
            await done(write)
        await done(greedy.insert("k", insertion_of(b"")))


@in_loop
async def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    limits = KvLimits(value_bytes=20 * MIB, store_bytes=1024 * MIB)
    async with opened("sqlite", tmp_path, limits=limits) as engine:
        store = engine.open("s")
        value = insertion_of(b"v" * (20 * MIB))
        lock = hold(tmp_path)
        writes = [store.insert("k", value) for _ in range(4)]
        outcomes = [write.is_ready for write in writes]
        assert outcomes == [False, False, False, True], "64 MiB of one store"
        assert await refusal(writes[3]) is KvCause.TOO_MANY_REQUESTS
        lock.close()
        for write in writes[:3]:
            await done(write)


@in_loop
async def test_two_engines_append_and_add_without_loss(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as one, opened("sqlite", tmp_path) as other:
        appends, adds = [], []
        for number in range(200):
            for engine, mark in ((one, b"1"), (other, b"2")):
                store = engine.open("s")
                append = insertion_of(mark, mode=InsertMode.APPEND)
                appends.append(store.insert("log", append))
                add = insertion_of(mark, mode=InsertMode.ADD)
                adds.append(store.insert(f"add{number}", add))
            await asyncio.sleep(0)
        for operation in appends:
            await done(operation)
        log = await value_of(one.open("s"), "log")
        assert log is not None
        assert (log.count(b"1"), log.count(b"2")) == (200, 200)
        won = sum([not isinstance(await outcome_of(operation), Exception) for operation in adds])
        assert won == 200


async def outcome_of(operation: KvOperation[int]) -> int | Exception:
    try:
        return await done(operation)
    except KvFailed as failure:
        if failure.cause is not KvCause.PRECONDITION_FAILED:
            raise
        return failure


@in_loop
async def test_accounts_stay_exact_through_anything(tmp_path: Path) -> None:
    chance = random.Random(3)
    clock = SteppedClock()
    limits = KvLimits(value_bytes=MIB, store_bytes=2 * MIB)
    async with opened("sqlite", tmp_path, limits=limits, clock=clock) as engine:
        assert isinstance(engine, SqliteKvEngine)
        store = engine.open("s")
        for number in range(400):
            key = f"key{chance.randrange(12)}"
            if chance.random() < 0.2:
                await until_ready(store.delete(key))
            else:
                insertion = insertion_of(
                    b"v" * chance.choice([0, 5, 3000, INLINE - 4, INLINE + 1, 400_000]),
                    mode=chance.choice(list(InsertMode)),
                    metadata=b"m" * chance.choice([0, 9]),
                    ttl=chance.choice([None, None, 5]),
                )
                await until_ready(store.insert(key, insertion))
            clock.advance(1)
            if number % 50 == 0:
                engine.sweep()
    sums = look(
        tmp_path,
        "SELECT sum(length(key) + length(metadata) + size), count(*) FROM entries",
    )
    total, count = sums[0]
    assert isinstance(total, int)
    assert isinstance(count, int)
    assert look(tmp_path, "SELECT bytes FROM stores") == [(total + count * ENTRY_OVERHEAD,)]
    inside = look(
        tmp_path,
        "SELECT count(*) FROM entries e WHERE size != coalesce(length(value), "
        "(SELECT sum(length(data)) FROM pieces p WHERE p.store = e.store AND p.key = e.key))",
    )
    assert inside == [(0,)]
    assert look(tmp_path, "PRAGMA foreign_key_check") == []
    assert look(tmp_path, "PRAGMA integrity_check") == [("ok",)]


@in_loop
async def test_what_is_over_is_swept_from_the_file(tmp_path: Path) -> None:
    clock = SteppedClock()
    async with opened("sqlite", tmp_path, clock=clock) as engine:
        assert isinstance(engine, SqliteKvEngine)
        store = engine.open("s")
        writes = [store.insert(f"{n}", insertion_of(b"v", ttl=1)) for n in range(300)]
        writes.append(store.insert("large", insertion_of(b"v" * (INLINE + 1), ttl=1)))
        writes.append(store.insert("stays", insertion_of(b"v", ttl=3)))
        for write in writes:
            await done(write)
        clock.advance(2)
        engine.sweep()
        engine.sweep()  # one takes 256
        await done(store.delete("absent"))  # what was queued before it has happened
        assert engine.statistics().counts.expired == 301
        assert look(tmp_path, "SELECT key FROM entries") == [(b"stays",)]
        assert look(tmp_path, "SELECT count(*) FROM pieces") == [(0,)]
        assert look(tmp_path, "SELECT bytes FROM stores") == [(5 + 1 + ENTRY_OVERHEAD,)]


@in_loop
async def test_the_timer_sweeps_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.stores.kv_sqlite.SWEEP_SECONDS", 0.001)
    monkeypatch.setattr("edge.stores.kv_sqlite._SWEEP_ON_SECONDS", 0.001)
    clock = SteppedClock()
    async with opened("sqlite", tmp_path, clock=clock) as engine:
        assert isinstance(engine, SqliteKvEngine)
        swept = asyncio.Event()
        original = engine._swept

        def tell(outcome: object) -> None:
            original(outcome)
            if engine.counts.expired == wanted:
                swept.set()

        engine._swept = tell  # type: ignore[method-assign]
        for wanted in (1, 2):  # noqa: B007  `tell` reads it; and it goes on
            swept.clear()
            await done(engine.open("s").insert("k", insertion_of(b"v", ttl=1)))
            clock.advance(2)
            await asyncio.wait_for(swept.wait(), 30)


@in_loop
async def test_reading_never_holds_the_log_back(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"v")))
        await done(store.insert("long", insertion_of(b"v" * (INLINE + 1))))
        for key in ("k", "absent", "long"):
            await done(store.lookup(key))
        await done(store.list("", "", 1))
        busy, _, _ = look(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
        assert busy == 0


@in_loop
async def test_a_full_disk_is_an_error_for_the_guest_and_a_line_for_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened("sqlite", tmp_path) as engine:
        assert isinstance(engine, SqliteKvEngine)
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"before")))
        pages = engine._writer.execute("PRAGMA page_count").fetchone()[0]
        engine._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with caplog.at_level(logging.ERROR, "edge.kv"):
            for _ in range(3):
                full = store.insert("k", insertion_of(b"v" * 100_000))
                assert await refusal(full) is KvCause.INTERNAL_ERROR
        assert [record.message for record in caplog.records] == [
            "KV storage fails, 1 times since the last such line: OperationalError: "
            "database or disk is full"
        ]
        assert engine.statistics().counts.errors == 3
        assert await value_of(store, "k") == b"before"
        engine._writer.execute("PRAGMA max_page_count = 1000000")
        await done(store.insert("k", insertion_of(b"v" * 100_000)))
        assert await value_of(store, "k") == b"v" * 100_000


@in_loop
async def test_a_damaged_file_is_an_error_for_the_guest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kv.sqlite"
    async with opened("sqlite", tmp_path) as engine:
        for number in range(50):
            await done(engine.open("s").insert(f"{number}", insertion_of(b"v" * 3000)))
    roots = {root for (root,) in look(tmp_path, "SELECT rootpage FROM sqlite_master")}
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096 + 1):
        if page not in roots:  # with those it would be found at the start
            data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    async with opened("sqlite", tmp_path) as engine:
        store = engine.open("s")
        causes = {await refusal(store.lookup("1")), await refusal(store.list("", "", 10))}
        causes.add(await refusal(store.insert("1", insertion_of(b"x"))))
        causes.add(await refusal(store.delete("1")))
        assert causes == {KvCause.INTERNAL_ERROR}
        assert engine.statistics().counts.errors == 4
    assert "malformed" in caplog.text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"not a database" * 1000), "not a database"),
        (lambda path: path.mkdir(), "cannot hold KV stores"),
        (lambda path: path.parent.chmod(0o500), ""),
    ],
)
def test_a_file_that_cannot_be_used_is_told_at_the_start(
    damage: object, words: str, tmp_path: Path
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    assert callable(damage)
    damage(directory / "kv.sqlite")
    if not words:  # root may write anywhere, so that only a directory that is none is sure
        directory.chmod(0o700)
        directory.rmdir()
        words = "No such file"
    with pytest.raises(ConfigError, match=words):
        asyncio.run(make(directory).start())


def test_a_file_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "kv.sqlite")
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigError, match="newer version"):
        asyncio.run(make(tmp_path).start())


@pytest.mark.parametrize("size", [10, INLINE + 1])
@in_loop
async def test_a_reader_that_finds_the_file_busy_lets_a_thread_wait(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which also shows that a value larger than was expected is read again, and paid for."""
    async with opened("sqlite", tmp_path) as engine:
        assert isinstance(engine, SqliteKvEngine)
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"v" * size)))
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY

        def find(*_: object) -> None:
            raise busy

        monkeypatch.setattr(engine.reader, "find", find)
        assert await value_of(store, "k") == b"v" * size
        assert engine.statistics().counts.errors == 0


@in_loop
async def test_a_value_that_never_stops_growing_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened("sqlite", tmp_path) as engine:
        assert isinstance(engine, SqliteKvEngine)
        store = engine.open("s")
        await done(store.insert("k", insertion_of(b"v" * (INLINE + 1))))
        looks: list[int] = []

        def find_whole(store: str, key: bytes, now: int, allowed: int) -> InPieces:
            looks.append(allowed)
            return InPieces(allowed + 1)

        monkeypatch.setattr(engine._thread_reader, "find_whole", find_whole)
        payer = Account(Ledger(), MIB)
        assert await refusal(store.lookup("k", payer)) is KvCause.TOO_MANY_REQUESTS
        assert looks == [INLINE + 1 + more for more in range(5)]
        assert payer.held == payer.ledger.held == 0


@in_loop
async def test_a_store_over_a_lowered_limit_can_be_made_smaller(tmp_path: Path) -> None:
    async with opened("sqlite", tmp_path) as engine:
        for key in ("a", "b"):
            await done(engine.open("s").insert(key, insertion_of(b"v" * 100_000)))
    low = KvLimits(value_bytes=MIB, store_bytes=50_000)
    async with opened("sqlite", tmp_path, limits=low) as engine:
        store = engine.open("s")
        assert await value_of(store, "a") == b"v" * 100_000
        larger = store.insert("a", insertion_of(b"v" * 100_001))
        assert await refusal(larger) is KvCause.PAYLOAD_TOO_LARGE
        await done(store.insert("a", insertion_of(b"v" * 60_000)))
        await done(store.delete("b"))
        assert await value_of(store, "a") == b"v" * 60_000


@in_loop
async def test_writes_that_were_accepted_are_made_before_the_end(tmp_path: Path) -> None:
    engine = make(tmp_path)
    await engine.start()
    store = engine.open("s")
    lock = hold(tmp_path)
    writes = [store.insert(f"{n}", insertion_of(b"v")) for n in range(BATCH * 2)]
    closing = asyncio.ensure_future(engine.aclose())
    await asyncio.sleep(0)
    lock.close()
    await closing
    assert all(write.is_ready for write in writes)
    assert look(tmp_path, "SELECT count(*) FROM entries") == [(BATCH * 2,)]
    assert await refusal(store.insert("late", insertion_of(b""))) is KvCause.INTERNAL_ERROR
    assert await refusal(store.list("", "", 1)) is KvCause.INTERNAL_ERROR
    assert await refusal(store.lookup("late")) is KvCause.INTERNAL_ERROR
    assert not (tmp_path / "kv.sqlite-wal").exists(), "the last one out leaves one file"


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    asyncio.run(_start_and_end(make(tmp_path)))
    reader = open_reader(tmp_path / "kv.sqlite", wait=0)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM stores")
    reader.close()


async def _start_and_end(engine: SqliteKvEngine) -> None:
    await engine.start()
    await engine.aclose()

"""Micro-benchmarks of KV stores on disk: lookups and writes, without a guest's Wasm.

`await kv_figures(directory)` gives rows of what, median, best and target in microseconds, as
`tests.bench.micro.Figure` takes them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from edge.clock import SystemClock
from edge.stores.kv import KvLimits, KvStore, insertion_of
from edge.stores.kv_sqlite import SqliteKvEngine
from edge.stores.kv_sqlite_file import INLINE
from tests.support.kv import done
from tests.support.kv_guest import KvGuest

LIMITS = KvLimits(value_bytes=32 << 20, store_bytes=1 << 30)
KEYS = 10_000
TOGETHER = 256
ROUNDS = 15

Row = tuple[str, float, float, float]


async def kv_figures(directory: Path) -> list[Row]:
    """`directory` should be on the disk that is meant: writes wait for it."""
    engine = SqliteKvEngine(directory / "kv.sqlite", LIMITS, SystemClock())
    await engine.start()
    try:
        return await _measure(engine.open("bench"))
    finally:
        await engine.aclose()


async def _measure(store: KvStore) -> list[Row]:
    value = insertion_of(b"v" * 2048, metadata=b"m" * 32)
    keys = [f"user/{number:06}" for number in range(KEYS)]
    for start in range(0, KEYS, 1000):
        for operation in [store.insert(key, value) for key in keys[start : start + 1000]]:
            await done(operation)
    await done(store.insert("inline", insertion_of(b"v" * INLINE)))
    await done(store.insert("huge", insertion_of(b"v" * (25 << 20))))
    scattered = [keys[number * 7919 % KEYS] for number in range(2000)]

    def lookups() -> None:
        for key in scattered:
            store.lookup(key).result()

    def absent() -> None:
        for _ in range(2000):
            store.lookup("absent").result()

    def inline() -> None:
        for _ in range(200):
            store.lookup("inline").result()

    guest = KvGuest(store=store)
    get, floor = _gets(guest, scattered)
    return [
        _row("KV lookup of 2 KiB, one of 10,000", lookups, len(scattered), 15),
        _row("KV lookup of an absent key", absent, 2000),
        _row("KV lookup of 128 KiB, the most that is read on the loop", inline, 200),
        _row("KV get of 2 KiB by a guest, 4 hostcalls", get, 2000, 60, floor=_best(floor, 2000)),
        await _waiting("KV write, acknowledged", store, 1, ROUNDS * 4),
        await _waiting(f"KV write, each of {TOGETHER} at once", store, TOGETHER, ROUNDS),
        await _huge(store),
    ]


def _gets(guest: KvGuest, keys: list[str]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Lookup, wait, read and close, as an SDK does them; and four calls that do next to nothing.

    The second is what the fake guest itself costs, less the trampolines of four calls.
    """
    opened = guest.open_kv()
    at = [guest.put(key.encode()) for key in keys]
    pending, body, size, error, count = (guest.room(8) for _ in range(5))
    generation, metadata, buffer = guest.room(8), guest.room(2048), guest.room(8192)

    def act() -> None:
        for key in at:
            guest.start("fastly_kv_store.lookup", opened, *key, 0, 0, pending)
            guest.start(
                "fastly_kv_store.lookup_wait_v2",
                guest.u32_at(pending), body, metadata, 2048, size, generation, error,
            )  # fmt: skip
            guest.start("fastly_http_body.read", guest.u32_at(body), buffer, 8192, count)
            guest.start("fastly_http_body.close", guest.u32_at(body))
        assert guest.u32_at(count) == 2048

    def idle() -> None:
        for _ in at:
            guest.start("fastly_kv_store.lookup", 0, 0, 0, 0, 0, pending)
            guest.start("fastly_kv_store.lookup_wait_v2", 0, body, 0, 0, size, generation, error)
            guest.start("fastly_http_body.read", 0, buffer, 8192, count)
            guest.start("fastly_http_body.close", 0)

    return act, idle


def _row(
    name: str, act: Callable[[], None], count: int, target: float = 0, *, floor: float = 0
) -> Row:
    return _of(name, [_timed(act, count) - floor for _ in range(ROUNDS)], target)


def _best(act: Callable[[], None], count: int) -> float:
    return min(_timed(act, count) for _ in range(ROUNDS))


def _timed(act: Callable[[], None], count: int) -> float:
    """Microseconds of this thread's time: other threads and a busy machine are left out."""
    began = time.thread_time_ns()
    act()
    return (time.thread_time_ns() - began) / count / 1000


async def _waiting(name: str, store: KvStore, together: int, rounds: int) -> Row:
    value = insertion_of(b"v" * 2048)
    samples = []
    for turn in range(rounds):
        began = time.perf_counter_ns()
        for operation in [store.insert(f"w/{turn}/{n}", value) for n in range(together)]:
            await done(operation)
        samples.append((time.perf_counter_ns() - began) / together / 1000)
    return _of(name, samples)


async def _huge(store: KvStore) -> Row:
    samples = []
    for _ in range(5):
        began = time.perf_counter_ns()
        await done(store.lookup("huge"))
        samples.append((time.perf_counter_ns() - began) / 1000)
    return _of("KV lookup of 25 MiB, by a thread", samples)


def _of(name: str, samples: list[float], target: float = 0) -> Row:
    return name, round(statistics.median(samples), 2), round(min(samples), 2), target

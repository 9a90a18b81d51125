"""Several processes with one file of KV stores: some are killed while they write."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from edge.clock import SystemClock
from edge.stores.kv_sqlite import SqliteKvEngine
from tests.support.kv import done, keys_of, value_of
from tests.support.kv_writer import LIMITS, value_for
from tests.support.loop import in_loop

ROOT = Path(__file__).parents[2]
KILLINGS = 12
ENDLESS = 1_000_000


def writer(path: Path, name: str, mode: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.kv_writer", str(path), name, mode, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """The next so many whole lines."""
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def rest_of(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it managed to tell before it ended; a line that is cut short tells nothing."""
    assert process.stdout is not None
    with process:
        return [line for line in process.stdout if line.endswith(b"\n")]


def written(key: str) -> bytes:
    """What a writer stores under a key of its own."""
    name, _, number = key.partition("-")
    return value_for(name, int(number))


def check_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        held, counted = connection.execute(
            "SELECT sum(length(key) + length(metadata) + size + 128), "
            "(SELECT sum(bytes) FROM stores) FROM entries"
        ).fetchone()
        assert held == counted
    finally:
        connection.close()


@in_loop
async def test_every_acknowledged_write_survives_killing_the_writers(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    chance = random.Random(11)
    told: list[bytes] = []
    for number in range(KILLINGS):
        first = writer(path, f"a{number}", "fill", ENDLESS)
        second = writer(path, f"b{number}", "fill", ENDLESS)
        told += lines_of(first, chance.randrange(2, 150)) + lines_of(second, 2)
        for process in (first, second):
            process.kill()
        told += rest_of(first) + rest_of(second)
    acknowledged = dict(line.decode().split() for line in told)
    engine = SqliteKvEngine(path, LIMITS, SystemClock())
    await engine.start()
    store = engine.open("s")
    log = (await value_of(store, "log") or b"").decode().split(";")
    values = 0
    for what, generation in acknowledged.items():
        kind, _, key = what.rpartition(":")
        if kind == "log":
            assert log.count(key) == 1
        elif kind == "gone":
            assert await value_of(store, key) is None
        elif what != "ready":
            values += 1
            found = await done(store.lookup(what))
            assert found is not None, what
            assert b"".join(found.pieces) == written(what)
            assert found.generation == int(generation)
    assert values > KILLINGS * 5
    assert len(log) == len(set(log))
    for key in await keys_of(store, "a"):  # whether acknowledged or not: whole or not there
        assert await value_of(store, key) == written(key)
    await engine.aclose()
    check_file(path)


@in_loop
async def test_processes_race_and_nothing_is_lost_or_won_twice(tmp_path: Path) -> None:
    path = tmp_path / "kv.sqlite"
    racers = [writer(path, f"r{number}", "race", 60) for number in range(3)]
    told = [line.decode().split() for racer in racers for line in rest_of(racer)]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    wins = [key for key, _ in told if key.startswith("won-")]
    assert sorted(wins) == sorted(f"won-{number}" for number in range(60))
    generations = [generation for key, generation in told if key == "counter"]
    assert len(generations) == len(set(generations)) == 180
    engine = SqliteKvEngine(path, LIMITS, SystemClock())
    await engine.start()
    assert await value_of(engine.open("s"), "counter") == b"180"
    await engine.aclose()
    check_file(path)

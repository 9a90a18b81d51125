"""Rate counters shared by processes: exact, and nobody who dies or stops keeps the others out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ConfigError, LimitExceeded
from edge.stores.rates_file import choose_directory, discard, prepare
from edge.stores.rates_lmdb import REMOVE, LmdbRates

MIB = 1024 * 1024
SECONDS = 30  # for what takes milliseconds
START = """
import sys, time
from pathlib import Path
from edge.stores.rates_lmdb import REMOVE, LmdbRates
rates = LmdbRates(Path(sys.argv[1]), int(sys.argv[2]), lambda: 5000.5)
rates.start()
def say(word):
    sys.stdout.write(word + chr(10))
    sys.stdout.flush()
"""


def engine(path: Path) -> LmdbRates:
    """Time stands still in all of them: what a window loses must not hide what a lock lost."""
    rates = LmdbRates(path, MIB, lambda: 5000.5)
    rates.start()
    return rates


@contextmanager
def child(path: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", START + code, str(path), str(MIB)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return prepare(tmp_path / "rates", MIB)


def test_additions_of_several_processes_are_exact(path: Path) -> None:
    hammer = """
say("ready")
sys.stdin.readline()
for number in range(3000):
    rates.increment("shop", "rc", "ip", 2)
    rates.increment("shop", "rc", str(number % 100), 1)
"""
    with child(path, hammer) as one, child(path, hammer) as two, child(path, hammer) as three:
        for process in (one, two, three):
            assert heard(process) == "ready"
        for process in (one, two, three):
            process.communicate("go\n", SECONDS)
    rates = engine(path)
    assert rates.count("shop", "rc", "ip", 60) == 3 * 3000 * 2
    assert {rates.count("shop", "rc", str(n), 60) for n in range(100)} == {90}
    assert rates.statistics().entries == 101
    rates.close()


HOLD = """
with rates._begin() as table:
    rates._add(table, b"8 bytes.", b"key of 16 bytes.", 5000.5, 1)
    say("holding")
    sys.stdin.readline()
"""
ADD_ONE = """
say("ready")
sys.stdin.readline()
say("adding")
rates.increment("shop", "rc", "ip", 1)
"""


def test_a_process_killed_while_it_writes_keeps_nobody_out_and_leaves_nothing(path: Path) -> None:
    with child(path, HOLD) as holder:
        assert heard(holder) == "holding"
        holder.send_signal(signal.SIGKILL)
        holder.wait(SECONDS)
    with child(path, ADD_ONE) as other:
        other.communicate("go\n", SECONDS)
        assert other.returncode == 0
    rates = engine(path)
    assert rates.count("shop", "rc", "ip", 60) == 1
    assert rates.statistics().entries == 1, "half a transaction is there"
    rates.close()


def test_those_who_wait_for_a_stopped_process_go_on_when_it_is_killed(path: Path) -> None:
    with child(path, ADD_ONE) as other:
        assert heard(other) == "ready"  # it has opened the file, which takes the lock as well
        with child(path, HOLD) as holder:
            assert heard(holder) == "holding"
            holder.send_signal(signal.SIGSTOP)
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
            assert heard(other) == "adding"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.2)
            holder.send_signal(signal.SIGKILL)
            assert other.wait(SECONDS) == 0


def test_nothing_that_was_answered_is_lost_to_kills_at_any_moment(path: Path) -> None:
    chance = random.Random(9)
    rates = engine(path)
    told = 0
    for number in range(12):
        code = f"""
for count in range(1_000_000):
    rates.increment("shop", "rc", "ip {number}", 1)
    rates.penalize("shop", "pb", str(count % 900), 60)
    if count % 16 == 0:
        say(str(count + 1))
"""
        with child(path, code) as process:
            for _ in range(chance.randrange(5, 60)):
                told = int(heard(process))
            process.kill()
            process.wait(SECONDS)
            rest = process.stdout.read().split("\n") if process.stdout else []
            told = max([told, *(int(line) for line in rest[:-1] if line)])
        counted = rates.count("shop", "rc", f"ip {number}", 60)
        assert told <= counted <= told + 16 + 1
        rates.increment("shop", "rc", "after", 1)
    assert rates.count("shop", "rc", "after", 60) == 12
    rates.close()


def test_counters_outlive_a_restart_but_neither_a_boot_nor_another_size(tmp_path: Path) -> None:
    directory = tmp_path / "rates"
    rates = engine(prepare(directory, MIB))
    rates.increment("shop", "rc", "ip", 3)
    rates.close()
    rates = engine(prepare(directory, MIB))
    assert rates.count("shop", "rc", "ip", 60) == 3
    rates.close()
    (directory / "made-for").write_text(f"1 {MIB} another-boot")
    rates = engine(prepare(directory, MIB))
    assert rates.count("shop", "rc", "ip", 60) == 0
    rates.increment("shop", "rc", "ip", 3)
    rates.close()
    larger = LmdbRates(prepare(directory, 2 * MIB), 2 * MIB, time.monotonic)
    larger.start()
    assert larger.count("shop", "rc", "ip", 60) == 0
    larger.close()


def test_what_is_discarded_leaves_nothing_behind(path: Path) -> None:
    rates = engine(path)
    rates.increment("shop", "rc", "ip", 3)
    rates.close()
    discard(path)
    assert not path.parent.exists()
    discard(path)
    path = prepare(path.parent, MIB)
    (path.parent / "mine").touch()
    discard(path)
    assert [file.name for file in path.parent.iterdir()] == ["mine"]


def test_all_its_space_is_taken_at_once_and_never_more(path: Path) -> None:
    before = path.stat()
    assert (before.st_size, before.st_mode & 0o777) == (MIB, 0o600)
    assert before.st_blocks * 512 >= MIB, "a hole: a full disk would kill whoever writes there"
    rates = engine(path)
    for number in range(3000):
        rates.increment("shop", "rc", f"{number}", 1)
    rates.close()
    assert path.stat().st_size == MIB


def add_many(rates: LmdbRates, first: int) -> None:
    for number in range(first, first + 100_000):
        rates.increment("shop", "rc", f"{number}", 1)


def test_a_full_file_is_told_and_changes_nothing(path: Path) -> None:
    rates = engine(path)
    rates._capacity = 1_000_000  # as if a full entry were smaller than it is
    with pytest.raises(LimitExceeded) as refused:
        add_many(rates, 0)
    assert refused.value.limit == "storage.rate_bytes"
    before = rates.statistics().entries
    assert rates.count("shop", "rc", "0", 60) == 1
    with pytest.raises(LimitExceeded):
        add_many(rates, 200_000)
    assert rates.statistics().entries - before < 200
    rates.close()


def test_making_room_looks_at_each_service_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = engine(path)
    for number in range(rates.statistics().capacity):
        rates.increment(f"service {number % 20}", "rc", f"{number}", 1)
    looks: list[bytes] = []
    look = rates._first

    def looking(table: Any, tag: bytes) -> tuple[int, bytes] | None:
        looks.append(tag)
        return look(table, tag)

    monkeypatch.setattr(rates, "_first", looking)
    rates.increment("late", "rc", "ip", 1)
    assert len(looks) == 20 + REMOVE
    assert len(set(looks)) == 20
    rates.close()


def test_another_users_directory_and_an_open_one_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "rates"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with pytest.raises(ConfigError, match=r"storage\.rate_bytes"):
        prepare(directory, MIB)
    link = tmp_path / "link"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    with pytest.raises(ConfigError, match="of our own"):
        prepare(link, MIB)


def test_it_lies_in_shared_memory_where_there_is_room(tmp_path: Path) -> None:
    shared = tmp_path / "shm"
    assert choose_directory(tmp_path, MIB, shared) == tmp_path / "rates"
    shared.mkdir()
    chosen = choose_directory(tmp_path, MIB, shared)
    assert chosen.parent == shared
    assert choose_directory(tmp_path / "other", MIB, shared) != chosen
    room = os.statvfs(shared).f_bavail * os.statvfs(shared).f_frsize
    assert choose_directory(tmp_path, room, shared) == tmp_path / "rates"
    prepare(chosen, MIB)
    assert choose_directory(tmp_path, room, shared) == chosen, "it has the room already"


LOOK = """
assert rates.news() is not None, "the first of a process"
say("ready")
sys.stdin.readline()
assert rates.news() is None
say("looked")
sys.stdin.readline()
rates.increment("shop", "rc", "ip", 1)
assert rates.news().entries == 1
assert rates.news() is None
"""


def test_a_process_that_counts_nothing_does_not_wait_for_a_stopped_one(path: Path) -> None:
    with child(path, LOOK) as other:
        assert heard(other) == "ready"
        with child(path, HOLD) as holder:
            assert heard(holder) == "holding"
            holder.send_signal(signal.SIGSTOP)
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
            assert heard(other) == "looked"
            holder.send_signal(signal.SIGKILL)
            holder.wait(SECONDS)
        other.communicate("go\n", SECONDS)
        assert other.returncode == 0

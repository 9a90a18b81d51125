"""Profiles of guests, and the traps that an observed runtime tells of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.hostmodules import HOST_MODULES
from edge.outcome import Ending
from edge.runtime import profile
from edge.runtime.observed import ObservedRuntime
from edge.runtime.profile import GuestProfiler
from tests.support.runtime import SMALL_POOL, Arena, program

SPIN = """(func $spin (local $i i32) (loop $l
  (local.set $i (i32.add (local.get $i) (i32.const 1)))
  (br_if $l (i32.lt_u (local.get $i) (i32.const 20000000)))))"""


class Observed(Arena):
    """An arena whose runtime is observed; `traps` has the backtraces."""

    def __init__(self, directory: Path) -> None:
        super().__init__(SMALL_POOL)
        self.runtime.close()
        self.traps: list[str] = []
        self.runtime = ObservedRuntime(
            SMALL_POOL,
            HOST_MODULES,
            self.loop,
            on_trap=lambda guest, text: self.traps.append(text),
        )
        self.profiler = GuestProfiler(self.runtime, directory, 50e-6)
        self.profiler.start()

    def close(self) -> None:
        self.profiler.close()
        super().close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "profiles"


@pytest.fixture
def arena(directory: Path) -> Iterator[Observed]:
    made = Observed(directory)
    try:
        yield made
    finally:
        made.close()


def profiles(directory: Path) -> list[str]:
    return [path.read_text() for path in sorted(directory.iterdir())]


def test_a_guest_is_found_where_it_spends_its_time(arena: Observed, directory: Path) -> None:
    assert arena.run(program("(call $spin)", extra=SPIN)).ending is Ending.OK
    (text,) = profiles(directory)
    (thread,) = json.loads(text)["threads"]
    assert thread["samples"]["length"] >= 3
    assert '"spin"' in text


def test_a_profiled_guest_yields_after_its_slice_as_ever(arena: Observed) -> None:
    busy = arena.template(program("(call $spin) " * 5, extra=SPIN))
    other = arena.template(program(""))
    first, second = arena.start(busy), arena.start(other)
    arena.finish(second)
    assert first.outcome is None, "others have their turn before it ends"
    arena.finish(first)


def test_limits_hold_while_profiling(arena: Observed, directory: Path) -> None:
    assert arena.run(program("(loop $l (br $l))")).ending is Ending.CPU_LIMIT
    assert len(profiles(directory)) == 1


def test_a_guest_that_waits_and_traps_is_profiled_and_its_trap_told(
    arena: Observed, directory: Path
) -> None:
    wait = "(drop (call $async_io.select (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 8)))"
    body = wait + "(call $spin) (call $lost)"
    extra = SPIN + "(func $lost unreachable)"
    assert arena.run(program(body, "async_io.select", extra=extra)).ending is Ending.TRAP
    assert len(profiles(directory)) == 1
    (trap,) = arena.traps
    assert "!lost\n" in trap


def test_an_exit_is_no_trap(arena: Observed) -> None:
    run = arena.run(program("(call $wasi.proc_exit (i32.const 3))", "wasi.proc_exit"))
    assert run.ending is Ending.GUEST_ERROR
    assert arena.traps == []


def test_the_number_of_profiles_is_bounded(
    arena: Observed, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "MAX_FILES", 2)
    # The fake client gives every request one id, so that each overwrites the last one's file.
    for count in range(3):
        for path in directory.iterdir():
            path.unlink()
        arena.run(program("(call $spin)", extra=SPIN))
        assert len(profiles(directory)) == (1 if count < 2 else 0)


def test_profiles_that_cannot_be_written_cost_no_request(
    arena: Observed, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.rmdir()
    assert arena.run(program("")).ending is Ending.OK
    assert "a profile could not be written" in caplog.text


def test_guests_that_live_on_are_let_go_when_profiling_ends(
    arena: Observed, directory: Path
) -> None:
    run = arena.start(arena.template(program("(call $spin) (call $spin)", extra=SPIN)))
    arena.profiler.close()
    assert len(profiles(directory)) == 1
    arena.finish(run)
    assert run.ending is Ending.OK

"""The pool of instances: slots are given back whatever became of their guests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from edge.errors import ModuleRefused
from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending, Outcome
from edge.runtime.engine import MIB, PoolSettings, compiling_engine
from tests.support.runtime import Arena, Run, arena, program

SLOTS = 3
LIMITS = replace(DEFAULT_LIMITS, cpu=0.005, wall=20.0, memory=MIB)
BRIEF = replace(LIMITS, wall=0.02)

# Ways to end; each is tried more often than there are slots.
WAYS = {
    "returning": (program("nop"), Ending.OK),
    "trapping": (program("unreachable"), Ending.TRAP),
    "exiting": (program("(call $wasi.proc_exit (i32.const 1))", "wasi.proc_exit"),
                Ending.GUEST_ERROR),
    "using_up_its_cpu": (program("(loop (br 0))"), Ending.CPU_LIMIT),
    "overflowing": (program("(call $f)", extra="(func $f (call $f) (call $f))"),
                    Ending.STACK_LIMIT),
    "trapping_at_start": (program("nop", extra="(func $f unreachable) (start $f)"), Ending.TRAP),
    "looping_at_start": (program("nop", extra="(func $f (loop (br 0))) (start $f)"),
                         Ending.CPU_LIMIT),
    "sleeping": (
        program(
            "(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))"
            " (drop (call $wasi.poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1)"
            " (i32.const 128)))", "wasi.poll_oneoff"),
        Ending.WALL_LIMIT),
    "being_too_large_to_start": (program("nop", memory="17"), Ending.TRAP),
}  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena(PoolSettings(SLOTS, memory_bytes=2 * MIB, table_elements=1000)) as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_a_slot_comes_back_from_a_guest_that_ended_by(lab: Arena, way: str) -> None:
    wat, ending = WAYS[way]
    template = lab.template(wat, limits=BRIEF if ending is Ending.WALL_LIMIT else LIMITS)
    for _ in range(SLOTS + 2):
        runs = [lab.start(template) for _ in range(SLOTS)]
        lab.finish(*runs)
        assert {run.ending for run in runs} == {ending}
    assert lab.runtime.live == lab.runtime.memory_bytes == 0


def test_slots_come_back_from_guests_that_were_killed(lab: Arena) -> None:
    template = lab.template(program("(loop (br 0))"), limits=replace(LIMITS, cpu=10, wall=10))
    for _ in range(SLOTS + 2):
        for run in [lab.start(template) for _ in range(SLOTS)]:
            assert run.guest is not None
            lab.runtime.end(run.guest, Outcome(Ending.CLIENT_GONE))
            assert run.ending is Ending.CLIENT_GONE
    assert lab.runtime.live == 0


def test_a_crowd_killed_at_random_moments_leaves_nothing(lab: Arena) -> None:
    chance = random.Random(7)
    templates = [lab.template(wat, limits=BRIEF) for wat, _ in WAYS.values()]
    living: list[Run] = []
    for _ in range(1500):
        living = [run for run in living if run.outcome is None]
        if len(living) < SLOTS:
            living.append(lab.start(chance.choice(templates)))
        elif chance.random() < 0.5:
            victim = chance.choice(living)
            assert victim.guest is not None
            lab.runtime.end(victim.guest, Outcome(Ending.CLIENT_GONE))
        else:
            lab.turns(chance.randrange(3))
    lab.finish(*living)
    assert all(len(run.endings) == 1 for run in living)
    assert lab.runtime.live == lab.runtime.parked == lab.runtime.memory_bytes == 0
    assert not lab.runtime.lasting
    assert lab.ledger.held == 0


def test_globals_and_tables_of_the_last_guest_are_gone(lab: Arena) -> None:
    template = lab.template(
        program(
            "(if (global.get $g) (then unreachable))"
            "(if (i32.eqz (ref.is_null (table.get (i32.const 1)))) (then unreachable))"
            "(global.set $g (i32.const 1)) (table.set (i32.const 1) (ref.func $f))",
            extra="(func $f) (elem declare func $f) (table 4 funcref)"
            " (global $g (mut i32) (i32.const 0))",
        ),
        limits=LIMITS,
    )
    for _ in range(2 * SLOTS):
        run = lab.start(template)
        lab.finish(run)
        assert run.ending is Ending.OK


def test_a_module_too_large_for_the_pool_is_refused_when_loaded(lab: Arena, tmp_path: Path) -> None:
    wat = program("nop", memory="33")
    artifact = tmp_path / "large"
    artifact.write_bytes(wasmtime.Module(compiling_engine(), wat).serialize())
    with pytest.raises(ModuleRefused, match="memory") as refused:
        lab.runtime.load(str(artifact), service="shop", limits=LIMITS)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_artifact_is_refused_when_loaded(lab: Arena, tmp_path: Path) -> None:
    artifact = tmp_path / "junk"
    artifact.write_bytes(b"not an artifact of ours")
    with pytest.raises(ModuleRefused):
        lab.runtime.load(str(artifact), service="shop", limits=LIMITS)

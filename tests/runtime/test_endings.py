"""From traps, errors and limits to outcomes: the evidence an operator sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import OK, Ending
from edge.runtime.engine import MIB
from tests.support.runtime import Arena, arena, program


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena() as made:
        yield made


TRAPS = {
    "unreachable": ("unreachable", "unreachable"),
    "division_by_zero": ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
    "overflowing_division": (
        "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "integer overflow"),
    "bad_conversion": (
        "(drop (i32.trunc_f32_s (f32.const nan)))", "invalid conversion"),
    "load_out_of_bounds": ("(drop (i32.load (i32.const 65536)))", "out of bounds memory"),
    "load_at_the_end_of_the_address_space": (
        "(drop (i64.load offset=0xffffffff (i32.const -1)))", "out of bounds memory"),
    "fill_out_of_bounds": (
        "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))", "out of bounds memory"),
}  # fmt: skip


@pytest.mark.parametrize("what", TRAPS)
def test_a_trap_is_told_in_one_line(lab: Arena, what: str) -> None:
    body, words = TRAPS[what]
    run = lab.run(program(body))
    assert run.ending is Ending.TRAP
    assert run.outcome is not None
    assert words in run.outcome.detail
    assert "\n" not in run.outcome.detail


def test_a_null_function_is_a_trap(lab: Arena) -> None:
    run = lab.run(program("(call_indirect (i32.const 0))", extra="(table 1 funcref)"))
    assert run.ending is Ending.TRAP


def test_a_cpu_limit_names_value_limit_and_setting(lab: Arena) -> None:
    run = lab.run(program("(loop (br 0))"), limits=replace(DEFAULT_LIMITS, cpu=0.005))
    outcome = run.outcome
    assert outcome is not None
    assert outcome.ending is Ending.CPU_LIMIT
    assert outcome.value.endswith("ms")
    assert 5 <= float(outcome.value[:-2]) < 20
    assert (outcome.limit, outcome.setting) == ("5ms", "services.shop.limits.cpu")


def test_a_wall_limit_names_limit_and_setting(lab: Arena) -> None:
    run = lab.run(program("(loop (br 0))"), limits=replace(DEFAULT_LIMITS, cpu=10, wall=0.01))
    outcome = run.outcome
    assert outcome is not None
    assert (outcome.ending, outcome.setting) == (Ending.WALL_LIMIT, "services.shop.limits.wall")


def test_a_stack_overflow_is_not_a_plain_trap(lab: Arena) -> None:
    run = lab.run(program("(call $deep)", extra="(func $deep (call $deep) (call $deep))"))
    assert run.ending is Ending.STACK_LIMIT


def test_exit_code_zero_is_a_good_end(lab: Arena) -> None:
    run = lab.run(program("(call $wasi.proc_exit (i32.const 0)) unreachable", "wasi.proc_exit"))
    assert run.outcome == OK


def test_an_exit_code_is_named(lab: Arena) -> None:
    run = lab.run(program("(call $wasi.proc_exit (i32.const 3))", "wasi.proc_exit"))
    assert run.outcome is not None
    assert run.outcome.detail == "the guest left with exit code 3"


def test_a_trap_near_the_memory_limit_of_a_module_that_counts_nothing(lab: Arena) -> None:
    # After `grow`, 15 of 16 MiB are taken: refusal is the likeliest reason of a trap.
    run = lab.run(
        program("(drop (memory.grow (i32.const 239))) unreachable"),
        limits=replace(DEFAULT_LIMITS, memory=16 * MIB),
        counted=False,
    )
    assert run.ending is Ending.MEMORY_LIMIT


def test_a_trap_near_the_memory_limit_without_a_refusal_is_a_trap(lab: Arena) -> None:
    run = lab.run(
        program("(drop (memory.grow (i32.const 239))) unreachable"),
        limits=replace(DEFAULT_LIMITS, memory=16 * MIB),
    )
    assert run.ending is Ending.TRAP


def test_a_trap_with_memory_to_spare_is_a_trap(lab: Arena) -> None:
    run = lab.run(
        program("(drop (memory.grow (i32.const 100))) unreachable"),
        limits=replace(DEFAULT_LIMITS, memory=16 * MIB),
    )
    assert run.ending is Ending.TRAP


def test_a_trap_in_the_start_function_is_no_memory_limit(lab: Arena) -> None:
    # What a guest in its start function holds is not known and counted as the worst; its outcome
    # must not be.
    run = lab.run(
        program(
            "nop",
            "wasi.sched_yield",
            extra="""(func $first
          (drop (call $wasi.sched_yield)) unreachable) (start $first)""",
        )
    )
    assert run.ending is Ending.TRAP


def test_a_pool_that_is_full_is_a_fault_of_ours(lab: Arena) -> None:
    # Admission makes this unreachable; were it reached, no guest should be blamed.
    template = lab.template(program("(loop (br 0))"), limits=replace(DEFAULT_LIMITS, cpu=10))
    runs = [lab.start(template) for _ in range(lab.runtime.pool.slots + 1)]
    lab.until(lambda: any(run.outcome is not None for run in runs))
    (first,) = [run for run in runs if run.outcome is not None]
    assert first.ending is Ending.FAULT
    for run in runs:
        if run.guest is not None and run.outcome is None:
            lab.runtime.end(run.guest, OK)
    assert lab.runtime.live == 0
    lab.finish(lab.start(lab.template(program("nop"))))

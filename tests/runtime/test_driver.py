"""The life of a guest under the driver: started, sliced, suspended, resumed, killed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated

import pytest

from edge.abi.codec import U32, Text
from edge.abi.hostcall import Dialect, HostModule
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import Failed, HostcallError, ModuleRefused
from edge.hostmodules import HOST_MODULES
from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import OK, Ending, Outcome
from edge.runtime import capi
from edge.runtime.guest import Guest
from tests.support.guests import GUESTS
from tests.support.runtime import SMALL_POOL, Arena, Run

LAB = Dialect(ok=0, default=1, statuses={HostcallError: 7})
KILLED = Outcome(Ending.CLIENT_GONE, "killed by the test")


@dataclass
class Bench:
    """An arena whose guests can also import `lab`: hostcalls that the test has in its hands."""

    arena: Arena
    gates: list[asyncio.Future[int]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    during: Callable[[], None] | None = None

    def guest(self, body: str, *, extra: str = "", service: str = "shop", **limits: float) -> Run:
        """Start a guest with `body`; `$wait`, `$pause`, `$act`, `$fail` and `$check` are there."""
        wat = f"""(module
          (import "lab" "wait" (func $wait (param i32 i32) (result i32)))
          (import "lab" "pause" (func $pause (result i32)))
          (import "lab" "act" (func $act (result i32)))
          (import "lab" "fail" (func $fail (param i32) (result i32)))
          (import "lab" "fail_late" (func $fail_late (param i32) (result i32)))
          (import "lab" "echo" (func $echo (param i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func $must (param i32) (if (local.get 0) (then unreachable)))
          {extra}
          (func (export "_start") {body}))"""
        template = self.arena.template(
            wat,
            service=service,
            limits=replace(DEFAULT_LIMITS, **limits),  # type: ignore[arg-type]
        )
        return self.arena.start(template)


@pytest.fixture
def bench() -> Iterator[Bench]:
    lab = HostModule("lab", LAB)

    @lab.hostcall
    async def wait(box: Sandbox, number: U32) -> U32:
        gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        made.gates.append(gate)
        try:
            return await gate + number
        finally:
            made.closed.append("wait")

    @lab.hostcall
    async def pause(box: Sandbox) -> None:
        await Pause()

    @lab.hostcall
    def act(box: Sandbox) -> None:
        if made.during is not None:
            made.during()

    @lab.hostcall
    def fail(box: Sandbox, how: U32) -> None:
        raise Failed("as asked") if how else ZeroDivisionError("a bug")

    @lab.hostcall
    async def fail_late(box: Sandbox, how: U32) -> None:
        await Pause()
        raise Failed("as asked") if how else ZeroDivisionError("a bug")

    @lab.hostcall
    async def echo(box: Sandbox, text: Annotated[str, Text()]) -> U32:
        await Pause()
        return len(text)

    made = Bench(Arena(SMALL_POOL, modules=(*HOST_MODULES, lab)))
    try:
        yield made
    finally:
        made.arena.close()


def idle(bench: Bench) -> None:
    """Nothing is left of any guest."""
    runtime = bench.arena.runtime
    assert runtime.live == runtime.parked == runtime.memory_bytes == 0
    assert not runtime.lasting
    assert bench.arena.ledger.held == 0


# Endings -------------------------------------------------------------------------------------


def test_a_guest_that_returns_at_once_has_ended_when_start_returns(bench: Bench) -> None:
    run = bench.guest("nop")
    assert run.endings == [OK]
    idle(bench)


def test_the_smallest_service_answers(bench: Bench) -> None:
    run = bench.arena.run((GUESTS / "wat" / "hello.wat").read_text())
    assert run.outcome == OK
    assert run.sent == b"hello from wasm\n"
    assert run.box.calls == 7


def test_a_trap_says_what_it_was(bench: Bench) -> None:
    run = bench.guest("(drop (i32.div_u (i32.const 1) (i32.const 0)))")
    assert run.ending is Ending.TRAP
    assert run.outcome is not None
    assert "integer divide by zero" in run.outcome.detail
    idle(bench)


def test_a_bug_of_ours_in_a_hostcall_is_a_fault_and_not_the_guest_s(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    run = bench.guest("(drop (call $fail (i32.const 0)))")
    assert run.ending is Ending.FAULT
    assert run.outcome is not None
    assert "ZeroDivisionError" not in run.outcome.detail
    assert "ZeroDivisionError" in caplog.text
    idle(bench)


def test_a_bug_after_a_suspension_is_a_fault_too(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    run = bench.guest("(drop (call $fail_late (i32.const 0)))")
    bench.arena.finish(run)
    assert run.ending is Ending.FAULT
    assert "ZeroDivisionError" in caplog.text
    idle(bench)


@pytest.mark.parametrize("name", ["fail", "fail_late"])
def test_a_hostcall_error_is_a_status(bench: Bench, name: str) -> None:
    run = bench.guest(
        f"(if (i32.ne (call ${name} (i32.const 1)) (i32.const 7)) (then unreachable))"
    )
    bench.arena.finish(run)
    assert run.outcome == OK


# Suspension ----------------------------------------------------------------------------------


def test_a_hostcall_that_waits_gets_its_result_to_the_guest(bench: Bench) -> None:
    run = bench.guest(
        "(call $must (call $wait (i32.const 5) (i32.const 8)))"
        "(if (i32.ne (i32.load (i32.const 8)) (i32.const 47)) (then unreachable))"
    )
    assert not run.endings
    assert bench.arena.runtime.parked == 1
    bench.gates[0].set_result(42)
    bench.arena.finish(run)
    assert run.outcome == OK
    idle(bench)


def test_a_guest_may_wait_again_and_again(bench: Bench) -> None:
    run = bench.guest(
        "(local $i i32) (loop"
        " (call $must (call $echo (i32.const 64) (i32.const 3) (i32.const 8)))"
        " (if (i32.ne (i32.load (i32.const 8)) (i32.const 3)) (then unreachable))"
        " (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        " (br_if 0 (i32.lt_u (local.get $i) (i32.const 100))))",
        extra='(data (i32.const 64) "abc")',
        cpu=1.0,
    )
    bench.arena.finish(run)
    assert run.outcome == OK
    idle(bench)


def test_a_waiting_guest_uses_no_cpu_and_holds_up_nobody(bench: Bench) -> None:
    parked = bench.guest("(call $must (call $wait (i32.const 0) (i32.const 8)))")
    used = parked.guest.cpu_used if parked.guest else 0
    for _ in range(5):
        assert bench.guest("nop").outcome == OK
    bench.arena.turns(20)
    assert parked.guest is not None
    assert parked.guest.cpu_used == used
    bench.gates[0].set_result(0)
    bench.arena.finish(parked)
    assert parked.outcome == OK


def test_a_suspension_in_the_start_function_works(bench: Bench) -> None:
    run = bench.guest("nop", extra="(func $first (call $must (call $pause))) (start $first)")
    bench.arena.finish(run)
    assert run.outcome == OK
    idle(bench)


# Killing -------------------------------------------------------------------------------------


def test_a_guest_killed_while_it_waits_closes_its_hostcall(bench: Bench) -> None:
    run = bench.guest("(call $must (call $wait (i32.const 0) (i32.const 8)))")
    assert run.guest is not None
    bench.arena.runtime.end(run.guest, KILLED)
    assert run.endings == [KILLED]
    assert bench.closed == ["wait"]
    idle(bench)
    # The answer that comes too late wakes nobody.
    if not bench.gates[0].done():
        bench.gates[0].set_result(1)
    bench.arena.turns(3)
    assert run.endings == [KILLED]


def test_a_guest_killed_after_its_answer_came_and_before_it_ran_stays_dead(bench: Bench) -> None:
    run = bench.guest("(call $must (call $wait (i32.const 0) (i32.const 8)))")
    assert run.guest is not None
    bench.gates[0].set_result(1)
    bench.arena.runtime.end(run.guest, KILLED)
    bench.arena.turns(5)
    assert run.endings == [KILLED]
    idle(bench)


def test_a_guest_killed_between_two_slices_never_runs_again(bench: Bench) -> None:
    run = bench.guest("(loop (br 0))")
    assert run.guest is not None
    bench.arena.runtime.end(run.guest, KILLED)
    used = run.guest.cpu_used
    bench.arena.turns(5)
    assert run.endings == [KILLED]
    assert run.guest.cpu_used == used
    idle(bench)


def test_a_guest_killed_in_its_start_function_is_cleaned_up(bench: Bench) -> None:
    run = bench.guest("nop", extra="(func $first (loop (br 0))) (start $first)")
    assert run.guest is not None
    bench.arena.runtime.end(run.guest, KILLED)
    assert run.endings == [KILLED]
    idle(bench)


def test_killing_twice_ends_once(bench: Bench) -> None:
    run = bench.guest("(loop (br 0))")
    assert run.guest is not None
    bench.arena.runtime.end(run.guest, KILLED)
    bench.arena.runtime.end(run.guest, Outcome(Ending.SHUTDOWN))
    assert run.endings == [KILLED]


@pytest.mark.parametrize(
    "after",
    [
        "(loop (br 0))",
        "nop",
        "unreachable",
        "(call $must (call $wait (i32.const 0) (i32.const 8)))",
    ],
    ids=["it_loops", "it_returns", "it_traps", "it_waits"],
)
def test_a_guest_killed_from_inside_its_own_hostcall_ends_with_the_slice(
    bench: Bench, after: str
) -> None:
    def kill() -> None:
        guest = bench.arena.runtime.running
        assert guest is not None
        bench.arena.runtime.end(guest, KILLED)
        assert not guest.ended, "its stack is below us"

    bench.during = kill
    run = bench.guest(f"(call $must (call $act)) {after}")
    assert run.endings == [KILLED]
    assert run.cpu_ms < 20
    idle(bench)


def test_a_guest_killed_from_inside_another_s_hostcall_ends_soon_after(bench: Bench) -> None:
    victim = bench.guest("(call $must (call $wait (i32.const 0) (i32.const 8)))")
    victim_guest = victim.guest
    assert victim_guest is not None

    def kill() -> None:
        bench.arena.runtime.end(victim_guest, KILLED)
        assert not victim_guest.ended, "polls do not nest, and unwinding is one"

    bench.during = kill
    killer = bench.guest("(call $must (call $act))")
    assert killer.outcome == OK
    bench.arena.turns(2)
    assert victim.endings == [KILLED]
    idle(bench)


def test_a_guest_started_from_inside_another_s_hostcall_runs_in_the_next_turn(
    bench: Bench,
) -> None:
    started: list[Run] = []
    template = bench.guest("nop").guest.template  # type: ignore[union-attr]

    def begin() -> None:
        started.append(bench.arena.start(template))
        assert started[0].outcome is None

    bench.during = begin
    outer = bench.guest("(call $must (call $act))")
    assert outer.outcome == OK
    bench.arena.finish(*started)
    assert started[0].outcome == OK
    idle(bench)


# Accounts ------------------------------------------------------------------------------------


def test_memory_of_living_guests_is_known(bench: Bench) -> None:
    run = bench.guest(
        "(drop (memory.grow (i32.const 15))) (call $must (call $wait (i32.const 0) (i32.const 8)))"
    )
    assert bench.arena.runtime.memory_bytes == 16 * 65536
    assert run.guest is not None
    assert run.guest in bench.arena.runtime.lasting
    bench.gates[0].set_result(0)
    bench.arena.finish(run)
    assert run.guest.memory_peak == 16 * 65536
    idle(bench)


def test_memory_of_a_start_function_that_does_not_end_counts_as_the_worst(bench: Bench) -> None:
    run = bench.guest("nop", extra="(func $first (loop (br 0))) (start $first)")
    assert bench.arena.runtime.memory_bytes == DEFAULT_LIMITS.memory
    bench.arena.finish(run)
    assert run.guest is not None
    assert run.guest.memory_peak == 0  # nobody knows
    idle(bench)


def test_the_hook_for_memory_sees_the_guest_that_took_it(bench: Bench) -> None:
    seen: list[tuple[int, bool]] = []
    runtime = bench.arena.runtime

    def look() -> None:
        seen.extend((guest.memory_peak, guest.ended) for guest in runtime.lasting)

    runtime.on_memory = look
    run = bench.guest("(call $must (call $wait (i32.const 0) (i32.const 8)))")
    assert seen == [(65536, False)]
    assert run.guest is not None
    runtime.end(run.guest, KILLED)


def test_the_hook_for_memory_may_end_the_guest(bench: Bench) -> None:
    runtime = bench.arena.runtime

    def relieve() -> None:
        for guest in list(runtime.lasting):
            runtime.end(guest, KILLED)

    runtime.on_memory = relieve
    run = bench.guest("(drop (memory.grow (i32.const 15))) (loop (br 0))")
    bench.arena.finish(run)
    assert run.endings == [KILLED]
    idle(bench)


def test_the_cell_of_the_running_service_is_written_around_a_slice(bench: Bench) -> None:
    cells = bench.arena.runtime._running_cells
    seen: list[int] = []
    bench.during = lambda: seen.append(cells[0])
    bench.guest("(call $must (call $act))")
    assert seen == [1]  # series 0, plus one: zero is nobody
    assert cells[0] == 0


def test_cpu_time_is_seen_from_inside_a_hostcall(bench: Bench) -> None:
    seen: list[int] = []

    def look() -> None:
        guest = bench.arena.runtime.running
        assert isinstance(guest, Guest)
        seen.append(guest.cpu_ns())

    bench.during = look
    bench.guest(
        "(local $i i32) (call $must (call $act))"
        " (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        "  (br_if 0 (i32.lt_u (local.get $i) (i32.const 100000))))"
        " (call $must (call $act))"
    )
    assert 0 < seen[0] < seen[1]


# Modules -------------------------------------------------------------------------------------


def test_every_unknown_import_is_named(bench: Bench) -> None:
    wat = """(module (import "fastly_new" "idea" (func)) (import "env" "abort" (func))
      (memory (export "memory") 1) (func (export "_start")))"""
    with pytest.raises(ModuleRefused, match=r"fastly_new\.idea, env\.abort"):
        bench.arena.template(wat)


def test_unknown_imports_trap_when_the_service_says_so(bench: Bench) -> None:
    wat = """(module (import "fastly_new" "idea" (func $idea))
      (memory (export "memory") 1) (func (export "_start") (call $idea)))"""
    template = bench.arena.runtime.compile(
        wat, service="shop", limits=DEFAULT_LIMITS, trap_unknown=True
    )
    run = bench.arena.start(template)
    assert run.ending is Ending.TRAP
    assert run.outcome is not None
    assert "idea" in run.outcome.detail


def test_an_import_with_another_signature_is_refused(bench: Bench) -> None:
    wat = """(module (import "fastly_http_body" "new" (func (param i64)))
      (memory (export "memory") 1) (func (export "_start")))"""
    with pytest.raises(ModuleRefused, match="fastly_http_body"):
        bench.arena.template(wat)


def test_a_function_imported_twice_links(bench: Bench) -> None:
    wat = """(module (import "fastly_http_body" "new" (func (param i32) (result i32)))
      (import "fastly_http_body" "new" (func $new (param i32) (result i32)))
      (memory (export "memory") 1) (func (export "_start") (drop (call $new (i32.const 0)))))"""
    assert bench.arena.run(wat).outcome == OK


@pytest.mark.parametrize(
    "wat",
    [
        '(module (func (export "_start")))',
        '(module (memory (export "memory") 1))',
        '(module (memory (export "memory") 1) (func (export "_start") (param i32)))',
        '(module (memory (export "memory") 1) (func (export "_start") (result i32) unreachable))',
        '(module (memory (export "_start") 1) (func (export "memory")))',
    ],
    ids=["no_memory", "no_start", "start_with_parameters", "start_with_results", "mixed_up"],
)
def test_a_module_that_cannot_be_called_is_refused_when_linked(bench: Bench, wat: str) -> None:
    # Inspection refuses it at deployment; here, C would read a handle of somebody else's store.
    with pytest.raises(ModuleRefused, match=r"_start|memory"):
        bench.arena.template(wat)


def test_linking_the_same_hostcalls_again_makes_no_more_callbacks(bench: Bench) -> None:
    def callbacks() -> int:
        kinds = (capi.IMMEDIATE, capi.SUSPENDING)
        return sum(type(found) in kinds for found in gc.get_objects())

    bench.guest("")
    before = callbacks()
    assert before > 0
    bench.guest("(nop)")
    assert callbacks() == before

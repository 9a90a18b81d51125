"""Guests that want too much: memory, tables, host memory, logs.  Each with its outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import wasmtime

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from edge.runtime.engine import MIB
from tests.support.runtime import Arena, arena, program

PATIENT = replace(DEFAULT_LIMITS, cpu=10.0)  # memory is the subject, not time


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena() as made:
        yield made


def limit_hits(box_limits: dict[str, int]) -> set[str]:
    """The settings that refused something."""
    return set(box_limits)


# Linear memory -------------------------------------------------------------------------------

GROW_AND_TOUCH = (
    "(local $old i32) (loop"
    " (local.set $old (memory.grow (i32.const 16)))"
    " (if (i32.eq (local.get $old) (i32.const -1)) (then unreachable))"
    " (memory.fill (i32.mul (local.get $old) (i32.const 65536)) (i32.const 1)"
    "  (i32.const 1048576)) (br 0))"
)


def test_a_memory_bomb_stops_at_its_limit(lab: Arena) -> None:
    run = lab.run(program(GROW_AND_TOUCH), limits=PATIENT)
    assert run.ending is Ending.MEMORY_LIMIT
    assert run.outcome is not None
    assert run.outcome.setting == "services.shop.limits.memory"
    assert run.outcome.limit == "128MiB"
    assert run.guest is not None
    assert 120 * MIB <= run.guest.memory_peak <= 128 * MIB
    assert lab.runtime.memory_bytes == 0


def test_a_service_s_own_memory_limit_holds_in_a_larger_pool(lab: Arena) -> None:
    run = lab.run(program(GROW_AND_TOUCH), limits=replace(PATIENT, memory=8 * MIB))
    assert run.ending is Ending.MEMORY_LIMIT
    assert run.guest is not None
    assert run.guest.memory_peak <= 8 * MIB


def test_one_huge_refused_grow_in_a_small_module_is_the_reason_of_its_trap(lab: Arena) -> None:
    run = lab.run(
        program("(if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1)) (then unreachable))")
    )
    assert run.ending is Ending.MEMORY_LIMIT
    assert run.guest is not None
    assert run.guest.memory_peak == 65536


def test_a_refused_grow_in_the_start_function_is_a_plain_trap(lab: Arena) -> None:
    # There is no instance whose counter could be read.
    run = lab.run(
        program(
            "nop",
            extra="(func $first (if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1))"
            " (then unreachable))) (start $first)",
        )
    )
    assert run.ending is Ending.TRAP


def test_a_refused_grow_that_the_guest_survives_is_no_failure(lab: Arena) -> None:
    run = lab.run(program("(drop (memory.grow (i32.const 65535)))"))
    assert run.ending is Ending.OK


def test_memory_of_the_last_guest_is_gone_for_the_next(lab: Arena) -> None:
    # The pool reuses the slot: what a guest wrote, resident or not, must read as zero.
    touch = program(
        "(drop (memory.grow (i32.const 63)))"
        " (memory.fill (i32.const 0) (i32.const 170) (i32.const 4194304))"
    )
    look = program(
        "(local $i i32) (drop (memory.grow (i32.const 63))) (loop"
        " (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then unreachable))"
        " (local.set $i (i32.add (local.get $i) (i32.const 8)))"
        " (br_if 0 (i32.lt_u (local.get $i) (i32.const 4194304))))"
    )
    templates = [lab.template(wat, limits=PATIENT) for wat in (touch, look)]
    for _ in range(lab.runtime.pool.slots + 1):
        for template in templates:
            run = lab.start(template)
            lab.finish(run)
            assert run.ending is Ending.OK


def _with_data(size: int) -> bytes:
    """A module whose active data segment has `size` bytes; text of that length would not parse."""
    pages = size // 65536 + 1
    wat = f"""(module (memory (export "memory") {pages}) (func (export "_start")))"""
    shell = bytes(wasmtime.wat2wasm(wat))

    def leb(number: int) -> bytes:
        out = b""
        while True:
            number, low = number >> 7, number & 127
            if not number:
                return out + bytes([low])
            out += bytes([low | 128])

    segment = b"\0\x41\0\x0b" + leb(size) + b"\xaa" * size
    content = leb(1) + segment
    return shell + b"\x0b" + leb(len(content)) + content


def test_a_hundred_megabytes_of_data_segment_cost_a_mapping_not_a_copy(lab: Arena) -> None:
    template = lab.template(_with_data(100_000_000), limits=PATIENT)
    runs = [lab.start(template) for _ in range(3)]
    lab.finish(*runs)
    assert {run.ending for run in runs} == {Ending.OK}
    assert all(run.guest is not None and run.guest.instantiate_ns < 200_000_000 for run in runs)


def test_a_module_that_starts_above_its_limit_never_runs(lab: Arena) -> None:
    # Deployment refuses it in words; were it to get here, the engine refuses to make an instance.
    run = lab.run(program("nop", memory="1000"), limits=replace(PATIENT, memory=MIB))
    assert run.ending is Ending.TRAP
    assert run.outcome is not None
    assert "memory" in run.outcome.detail


# Tables --------------------------------------------------------------------------------------


def test_a_table_bomb_is_refused(lab: Arena) -> None:
    run = lab.run(
        program(
            "(loop (if (i32.eq (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))"
            " (then unreachable)) (br 0))",
            extra="(table 1 funcref)",
        ),
        limits=PATIENT,
    )
    assert run.ending is Ending.TABLE_LIMIT
    assert run.outcome is not None
    assert run.outcome.setting == "services.shop.limits.table_elements"
    assert run.outcome.limit == "98765"


def test_one_huge_refused_table_grow_costs_nothing(lab: Arena) -> None:
    run = lab.run(
        program(
            "(if (i32.ne (table.grow (ref.null func) (i32.const -1)) (i32.const -1))"
            " (then unreachable))",
            extra="(table 1 funcref)",
        )
    )
    assert run.ending is Ending.OK
    assert run.cpu_ms < 10


# Stack ---------------------------------------------------------------------------------------


def test_deep_recursion_meets_the_stack_limit(lab: Arena) -> None:
    run = lab.run(
        program("(call $deep)", extra="(func $deep (call $deep) (call $deep))"), limits=PATIENT
    )
    assert run.ending is Ending.STACK_LIMIT


def test_recursion_in_the_start_function_meets_it_too(lab: Arena) -> None:
    deep = "(func $deep (call $deep) (call $deep)) (start $deep)"
    run = lab.run(program("nop", extra=deep), limits=PATIENT)
    assert run.ending is Ending.STACK_LIMIT


# Memory that the host holds ------------------------------------------------------------------


def _bodies(count: int, size: int, *, then: str) -> str:
    """Make bodies of `size` bytes each; at the first refusal, do `then` with the status."""
    return program(
        "(local $i i32) (local $status i32) (loop"
        " (call $must (call $http_body.new (i32.const 0)))"
        " (local.set $status (call $http_body.write (i32.load (i32.const 0)) (i32.const 0)"
        f"  (i32.const {size}) (i32.const 0) (i32.const 8)))"
        f" (if (local.get $status) (then {then}))"
        " (local.set $i (i32.add (local.get $i) (i32.const 1)))"
        f" (br_if 0 (i32.lt_u (local.get $i) (i32.const {count}))))",
        "http_body.new",
        "http_body.write",
        "wasi.proc_exit",
        memory="256",
    )


def test_sixty_four_bodies_of_16_mib_stop_at_64_mib(lab: Arena) -> None:
    run = lab.run(_bodies(64, 16 * MIB, then="unreachable"), limits=PATIENT)
    assert run.ending is Ending.MEMORY_LIMIT
    assert run.outcome is not None
    assert run.outcome.setting == "services.shop.limits.host_memory"
    assert run.account.peak <= PATIENT.host_memory
    assert run.account.held == lab.ledger.held == 0


def test_the_refusal_of_a_body_is_limitexceeded(lab: Arena) -> None:
    run = lab.run(
        _bodies(64, 16 * MIB, then="(call $wasi.proc_exit (local.get $status))"), limits=PATIENT
    )
    # It left with the status as exit code, after memory was refused: that is what ended it.
    assert run.ending is Ending.MEMORY_LIMIT
    assert run.guest is not None
    assert run.guest.exit_code == 13
    assert run.box.limits_hit == {"limits.host_memory": 1}


def test_a_guest_that_lives_with_the_refusal_is_ok(lab: Arena) -> None:
    run = lab.run(_bodies(64, 16 * MIB, then="nop"), limits=PATIENT)
    assert run.ending is Ending.OK
    assert run.account.peak <= PATIENT.host_memory


def test_a_million_header_appends_stop_at_the_size_of_a_head(lab: Arena) -> None:
    run = lab.run(
        program(
            "(local $i i32) (local $refused i32)"
            " (call $must (call $http_resp.new (i32.const 0)))"
            " (loop"
            "  (if (call $http_resp.header_append (i32.load (i32.const 0))"
            "   (i32.const 64) (i32.const 3) (i32.const 80) (i32.const 5))"
            "   (then (local.set $refused (i32.add (local.get $refused) (i32.const 1)))))"
            "  (local.set $i (i32.add (local.get $i) (i32.const 1)))"
            "  (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000000))))"
            f" (if (i32.ne (local.get $refused) (i32.const {1_000_000 - 512})) (then unreachable))",
            "http_resp.new",
            "http_resp.header_append",
            extra='(data (i32.const 64) "x-a") (data (i32.const 80) "value")',
        ),
        limits=PATIENT,
    )
    assert run.ending is Ending.OK
    assert limit_hits(run.box.limits_hit) == {"limits.head_fields"}
    assert run.account.peak < MIB


def test_a_million_header_appends_within_the_default_cpu_limit_end_by_it(lab: Arena) -> None:
    run = lab.run(
        program(
            "(call $must (call $http_resp.new (i32.const 0)))"
            " (loop (drop (call $http_resp.header_append (i32.load (i32.const 0))"
            "   (i32.const 64) (i32.const 3) (i32.const 80) (i32.const 5))) (br 0))",
            "http_resp.new",
            "http_resp.header_append",
            extra='(data (i32.const 64) "x-a") (data (i32.const 80) "value")',
        )
    )
    assert run.ending is Ending.CPU_LIMIT


@pytest.mark.parametrize(
    ("make", "drop_kind"),
    [("http_body.new", "items"), ("http_resp.new", "responses"), ("http_req.new", "requests")],
)
def test_a_handle_bomb_stops_at_ten_thousand(lab: Arena, make: str, drop_kind: str) -> None:
    run = lab.run(
        program(
            "(local $status i32) (loop"
            f" (br_if 0 (i32.eqz (local.tee $status (call ${make} (i32.const 0))))))"
            " (call $wasi.proc_exit (local.get $status))",
            make,
            "wasi.proc_exit",
        ),
        limits=PATIENT,
    )
    assert run.guest is not None
    assert run.guest.exit_code == 13  # LIMITEXCEEDED
    assert run.box.limits_hit == {"limits.handles": 1}


# Logs and output -----------------------------------------------------------------------------


def test_an_endless_log_is_dropped_and_counted(lab: Arena) -> None:
    run = lab.run(
        program(
            "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1024))"
            " (loop (call $must (call $wasi.fd_write"
            "  (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
            "wasi.fd_write",
            extra=f'(data (i32.const 64) "{"x" * 1023}\\n")',
        )
    )
    assert run.ending is Ending.CPU_LIMIT
    assert sum(len(text) for _, text, _ in run.log) <= DEFAULT_LIMITS.log_bytes
    assert run.box.log_dropped > 0


def test_a_log_without_line_breaks_is_bounded(lab: Arena) -> None:
    run = lab.run(
        program(
            "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 60000))"
            " (loop (call $must (call $wasi.fd_write"
            "  (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
            "wasi.fd_write",
        )
    )
    assert run.ending is Ending.CPU_LIMIT
    assert run.account.peak < 64 * 1024
    assert len(run.log) <= 1  # what was left when it died


def test_an_endless_log_endpoint_is_bounded_too(lab: Arena) -> None:
    run = lab.run(
        program(
            "(call $must (call $log.endpoint_get (i32.const 64) (i32.const 5) (i32.const 0)))"
            " (loop (call $must (call $log.write (i32.load (i32.const 0)) (i32.const 64)"
            "  (i32.const 8000) (i32.const 8))) (br 0))",
            "log.endpoint_get",
            "log.write",
            extra='(data (i32.const 64) "audit")',
        )
    )
    assert run.ending is Ending.CPU_LIMIT
    assert sum(len(text) for _, text, _ in run.log) <= DEFAULT_LIMITS.log_bytes
    assert run.box.log_dropped > 0


def test_a_huge_streaming_response_waits_for_its_reader(lab: Arena) -> None:
    template = lab.template(
        program(
            "(call $must (call $http_resp.new (i32.const 0)))"
            " (call $must (call $http_body.new (i32.const 4)))"
            " (call $must (call $http_resp.send_downstream"
            "  (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 1)))"
            " (loop (call $must (call $http_body.write (i32.load (i32.const 4)) (i32.const 0)"
            "  (i32.const 65536) (i32.const 0) (i32.const 8))) (br 0))",
            "http_resp.new",
            "http_body.new",
            "http_resp.send_downstream",
            "http_body.write",
        ),
        limits=replace(PATIENT, wall=0.2),
    )
    run = lab.start(template)
    lab.until(lambda: lab.runtime.parked == 1)
    assert run.client.response_body is not None
    assert run.client.response_body.held <= 512 * 1024
    got = len(run.client.response_body.read(MIB))
    lab.turns(5)
    assert got > 0
    assert run.client.response_body.held <= 512 * 1024
    lab.finish(run)
    assert run.ending is Ending.WALL_LIMIT

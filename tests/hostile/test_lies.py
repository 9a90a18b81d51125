"""Guests that lie about pointers, lengths, handles and text, through the real engine.

Every hostcall is called with every kind of nonsense.  It must answer, and what it answers must not
be a fault of ours; what each one should answer is for the tests of its own module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from edge.runtime.engine import MIB, PoolSettings
from tests.support.runtime import HOSTCALL_NAMES, Arena, arena, invocation, program

LIMITS = replace(DEFAULT_LIMITS, cpu=5.0, wall=0.05, memory=MIB)

EDGE = 65536  # of the guest's one page
NONSENSE: tuple[tuple[int, ...], ...] = (
    (0,),
    (1,),
    (-1,),
    (-2,),  # the handle that means "none"
    (0x7FFF_FFFF,),
    (-0x8000_0000,),
    (EDGE,),
    (EDGE - 1,),
    (EDGE - 4, 4),
    (EDGE - 4, 5),
    (0, -1),
    (-1, 0),
    (-16, 32),  # a sum that wraps around in 32 bits
    (1, EDGE - 8, 8),
    (1, 64, 8, 128, 16),  # handles that exist, and text that is not UTF-8
    (2, 64, 8, 128, 16),
    (3, 64, 8, 128, 16),
    (1, 0, 100, 65000, 4, 65500),
)
# The first of each kind exists, so that lies are told about living things as well.
LIVING = (
    "(drop (call $http_resp.new (i32.const 0))) (drop (call $http_req.new (i32.const 0)))"
    " (drop (call $http_body.new (i32.const 0)))"
)
MAKERS = ("http_resp.new", "http_req.new", "http_body.new")
# They may rightly wait for ever: for a clock, or for something that never happens.
WAITERS = {"wasi.poll_oneoff", "async_io.select"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena(PoolSettings(slots=4, memory_bytes=MIB, table_elements=1000)) as made:
        yield made


@pytest.mark.parametrize("name", HOSTCALL_NAMES)
def test_nonsense_is_answered_and_is_never_a_fault_of_ours(lab: Arena, name: str) -> None:
    for values in NONSENSE:
        imports = tuple(dict.fromkeys((*MAKERS, name)))
        wat = program(
            f"{LIVING} {invocation(name, *values)} {invocation(name, *values)}",
            *imports,
            extra='(data (i32.const 64) "\\ff\\fe\\c0\\80\\ed\\a0\\80\\00")',
        )
        run = lab.run(wat, limits=LIMITS)
        assert run.outcome is not None
        expected = {Ending.OK}
        if name == "wasi.proc_exit":
            expected = {Ending.OK, Ending.GUEST_ERROR}
        elif name in WAITERS:
            expected = {Ending.OK, Ending.WALL_LIMIT}
        assert run.ending in expected, (values, run.outcome)
        assert lab.ledger.held == 0, values
        assert lab.runtime.live == lab.runtime.parked == 0


def _answer(lab: Arena, body: str, *imports: str, memory: str = "1") -> int | None:
    """The exit code of a guest that leaves with the status it was given."""
    run = lab.run(
        program(
            f"(call $wasi.proc_exit {body})",
            *imports,
            "wasi.proc_exit",
            memory=memory,
            extra='(data (i32.const 64) "\\ff\\fe") (data (i32.const 80) "x-name")',
        ),
        limits=LIMITS,
    )
    assert run.ending is not Ending.FAULT
    assert run.guest is not None
    return run.guest.exit_code


OK, INVAL, BADF = 0, 2, 3


@pytest.mark.parametrize(
    ("body", "imports", "status"),
    [
        pytest.param("(call $http_body.new (i32.const 65533))", ["http_body.new"], INVAL,
                     id="an_out_pointer_over_the_edge"),
        pytest.param("(call $http_body.new (i32.const 65532))", ["http_body.new"], OK,
                     id="an_out_pointer_on_the_edge"),
        pytest.param("(call $http_body.new (i32.const -4))", ["http_body.new"], INVAL,
                     id="an_out_pointer_at_the_end_of_32_bits"),
        pytest.param("(call $http_body.close (i32.const 5))", ["http_body.close"], BADF,
                     id="a_handle_that_never_was"),
        pytest.param("(call $http_body.close (i32.const -2))", ["http_body.close"], BADF,
                     id="the_handle_that_means_none"),
        pytest.param(
            "(call $dictionary.open (i32.const 64) (i32.const 2) (i32.const 0))",
            ["dictionary.open"], INVAL, id="text_that_is_not_utf8"),
        pytest.param(
            "(call $dictionary.open (i32.const 65530) (i32.const 7) (i32.const 0))",
            ["dictionary.open"], INVAL, id="a_length_over_the_edge"),
        pytest.param(
            "(call $dictionary.open (i32.const -8) (i32.const 16) (i32.const 0))",
            ["dictionary.open"], INVAL, id="a_sum_that_wraps_around"),
        pytest.param(
            "(call $wasi.fd_write (i32.const 1) (i32.const 65528) (i32.const 2) (i32.const 0))",
            ["wasi.fd_write"], 21, id="iovecs_over_the_edge"),
    ],
)  # fmt: skip
def test_a_lie_gets_its_status(lab: Arena, body: str, imports: list[str], status: int) -> None:
    assert _answer(lab, body, *imports) == status


def test_a_used_up_handle_is_not_used_again(lab: Arena) -> None:
    body = (
        "(block (result i32) (call $must (call $http_body.new (i32.const 0)))"
        " (call $must (call $http_body.close (i32.load (i32.const 0))))"
        " (call $must (call $http_body.new (i32.const 4)))"
        " (call $http_body.close (i32.load (i32.const 0))))"
    )
    assert _answer(lab, body, "http_body.new", "http_body.close") == BADF


def test_memory_that_has_grown_is_seen_by_the_next_hostcall(lab: Arena) -> None:
    body = (
        "(block (result i32) (call $must (call $http_body.new (i32.const 0)))"
        " (drop (memory.grow (i32.const 1)))"
        " (call $http_body.new (i32.const 131068)))"
    )
    assert _answer(lab, body, "http_body.new") == OK


def test_a_hostcall_of_the_start_function_has_no_memory_to_reach(lab: Arena) -> None:
    # Its instance does not exist yet; an address must not reach somebody else's.
    run = lab.run(
        program(
            "nop",
            "http_body.new",
            extra="(func $first (if (i32.ne (call $http_body.new (i32.const 0)) (i32.const 2))"
            " (then unreachable))) (start $first)",
        ),
        limits=LIMITS,
    )
    assert run.ending is Ending.OK

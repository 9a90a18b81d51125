"""One hostcall each with an argument of 128 MiB: the right answer, and no long turn of the loop.

A hostcall moves at most 256 KiB a turn.  It suspends or answers short above that, or refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from edge.runtime.engine import GIB, MIB, PoolSettings
from tests.support.runtime import Arena, arena, program

HUGE = 128 * MIB
# Memory enough for the argument and what else the guest needs.
PAGES = HUGE // 65536 + 1
# The driver gives a turn 2 ms of guest time; the rest is for a machine that is busy with others.
LONGEST_TURN = 0.05

GENEROUS = replace(DEFAULT_LIMITS, cpu=20.0, memory=256 * MIB, host_memory=GIB)
POOL = PoolSettings(slots=4, memory_bytes=256 * MIB, table_elements=1000)


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena(POOL) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Call:
    """`status` is what the hostcall must answer; `count` what it must say it moved, if it does."""

    setup: str
    call: str
    imports: tuple[str, ...]
    status: int
    count: int | None = None
    default_limits: bool = False


IOVEC = f"(i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const {HUGE}))"
# A thousand iovecs, each of 128 MiB.
IOVECS = (
    "(local.set $i (i32.const 0)) (loop"
    " (i32.store (i32.mul (local.get $i) (i32.const 8)) (i32.const 60000))"
    f" (i32.store offset=4 (i32.mul (local.get $i) (i32.const 8)) (i32.const {HUGE}))"
    " (local.set $i (i32.add (local.get $i) (i32.const 1)))"
    " (br_if 0 (i32.lt_u (local.get $i) (i32.const 1000))))"
)
RESPONSE = "(call $must (call $http_resp.new (i32.const 65000)))"
BODY = "(call $must (call $http_body.new (i32.const 65000)))"
HANDLE = "(i32.load (i32.const 65000))"

CALLS = {
    "random_get": Call(
        "", f"(call $wasi.random_get (i32.const 4096) (i32.const {HUGE}))", ("wasi.random_get",), 0
    ),
    "fd_write": Call(
        IOVEC,
        "(call $wasi.fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 65008))",
        ("wasi.fd_write",),
        0,
        256 * 1024,
    ),
    "fd_write_of_a_thousand_iovecs": Call(
        IOVECS,
        "(call $wasi.fd_write (i32.const 1) (i32.const 0) (i32.const 1000) (i32.const 65008))",
        ("wasi.fd_write",),
        0,
        256 * 1024,
    ),
    "fd_write_of_a_billion_iovecs": Call(
        "",
        "(call $wasi.fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 65008))",
        ("wasi.fd_write",),
        0,
        0,
    ),
    "fd_read": Call(
        IOVEC,
        "(call $wasi.fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 65008))",
        ("wasi.fd_read",),
        0,
        0,
    ),
    "body_write": Call(
        BODY,
        f"(call $http_body.write {HANDLE} (i32.const 4096) (i32.const {HUGE}) (i32.const 0)"
        " (i32.const 65008))",
        ("http_body.new", "http_body.write"),
        0,
        HUGE,
    ),
    "body_write_at_the_front": Call(
        BODY,
        f"(call $http_body.write {HANDLE} (i32.const 4096) (i32.const {HUGE}) (i32.const 1)"
        " (i32.const 65008))",
        ("http_body.new", "http_body.write"),
        0,
        HUGE,
    ),
    "body_write_over_the_default_limit": Call(
        BODY,
        f"(call $http_body.write {HANDLE} (i32.const 4096) (i32.const {HUGE - 5000}) (i32.const 0)"
        " (i32.const 65008))",
        ("http_body.new", "http_body.write"),
        13,
        default_limits=True,
    ),
    "header_value": Call(
        RESPONSE + "(i32.store8 (i32.const 64) (i32.const 97))",
        f"(call $http_resp.header_insert {HANDLE} (i32.const 64) (i32.const 1)"
        f" (i32.const 4096) (i32.const {HUGE}))",
        ("http_resp.new", "http_resp.header_insert"),
        13,
    ),
    "header_name": Call(
        RESPONSE,
        f"(call $http_resp.header_insert {HANDLE} (i32.const 4096) (i32.const {HUGE})"
        " (i32.const 64) (i32.const 1))",
        ("http_resp.new", "http_resp.header_insert"),
        2,
    ),
    "log_line": Call(
        "(i32.store8 (i32.const 64) (i32.const 97))"
        "(call $must (call $log.endpoint_get (i32.const 64) (i32.const 1) (i32.const 65000)))",
        f"(call $log.write {HANDLE} (i32.const 4096) (i32.const {HUGE}) (i32.const 65008))",
        ("log.endpoint_get", "log.write"),
        0,
        HUGE,
    ),
    "user_agent": Call(
        "",
        f"(call $uap.parse (i32.const 4096) (i32.const {HUGE})"
        + " (i32.const 0) (i32.const 16) (i32.const 65008)" * 4
        + ")",
        ("uap.parse",),
        2,
    ),
    "dictionary_name": Call(
        "",
        f"(call $dictionary.open (i32.const 4096) (i32.const {HUGE}) (i32.const 65008))",
        ("dictionary.open",),
        2,
    ),
    "secret_from_bytes": Call(
        "",
        f"(call $secret_store.from_bytes (i32.const 4096) (i32.const {HUGE}) (i32.const 65008))",
        ("secret_store.from_bytes",),
        2,
    ),
    "uri": Call(
        "(call $must (call $http_req.new (i32.const 65000)))",
        f"(call $http_req.uri_set {HANDLE} (i32.const 4096) (i32.const {HUGE}))",
        ("http_req.new", "http_req.uri_set"),
        2,
    ),
    "select": Call(
        "",
        f"(call $async_io.select (i32.const 4096) (i32.const {HUGE // 4}) (i32.const 0)"
        " (i32.const 65008))",
        ("async_io.select",),
        2,
    ),
    "poll_oneoff": Call(
        "",
        "(call $wasi.poll_oneoff (i32.const 4096) (i32.const 65536)"
        f" (i32.const {HUGE // 48}) (i32.const 65008))",
        ("wasi.poll_oneoff",),
        28,
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_an_argument_of_128_mib_is_answered_in_short_turns(lab: Arena, what: str) -> None:
    call = CALLS[what]
    check_count = (
        f"(if (i32.ne (i32.load (i32.const 65008)) (i32.const {call.count}))"
        " (then (call $wasi.proc_exit (i32.const 99))))"
        if call.count is not None
        else ""
    )
    imports = tuple(dict.fromkeys((*call.imports, "wasi.proc_exit")))
    wat = program(
        f"(local $i i32) (local $status i32) {call.setup} (local.set $status {call.call})"
        f" {check_count} (call $wasi.proc_exit (i32.add (i32.const 100) (local.get $status)))",
        *imports,
        memory=str(2048 if call.default_limits else PAGES),
    )
    limits = GENEROUS
    if call.default_limits:
        limits = replace(DEFAULT_LIMITS, cpu=20.0)
    run = lab.start(lab.template(wat, limits=limits))
    worst = lab.worst_turn(run)
    assert run.guest is not None
    assert run.guest.exit_code == 100 + call.status
    assert worst <= LONGEST_TURN
    assert run.account.peak <= limits.host_memory
    assert lab.ledger.held == 0
    print(f"{what}: {run.cpu_ms:.1f} ms CPU, longest turn {worst * 1e3:.1f} ms")


def test_a_long_write_is_charged_to_the_guest_and_ended_by_its_cpu_limit(lab: Arena) -> None:
    wat = program(
        f"{BODY} (drop (call $wasi.random_get (i32.const 4096) (i32.const {HUGE})))",
        "http_body.new",
        "wasi.random_get",
        memory=str(PAGES),
    )
    run = lab.start(lab.template(wat, limits=replace(GENEROUS, cpu=0.05)))
    worst = lab.worst_turn(run)
    assert run.ending is Ending.CPU_LIMIT
    assert run.cpu_ms <= 60
    assert worst <= LONGEST_TURN

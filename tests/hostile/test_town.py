"""Hostile services beside others in one worker: admission, memory of all together, pages.

Everything here is real but the sockets: connections, dispatcher, runtime, counters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from edge.runtime.engine import MIB, PoolSettings
from edge.telemetry.layout import Rejection
from tests.support.downstream import Town, outcome_of, status_of, town
from tests.support.guests import GUESTS
from tests.support.runtime import program

SLOTS = 8
POOL = PoolSettings(slots=SLOTS, memory_bytes=16 * MIB, table_elements=1000)
WHOLE = replace(DEFAULT_LIMITS, slots=1.0, table_elements=1000, memory=16 * MIB)
HELLO = (GUESTS / "wat" / "hello.wat").read_text()
# Sleeps for as long as `limits.wall` lets it.
SLEEP = program(
    "(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))"
    " (drop (call $wasi.poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))",
    "http_body.new",
    "wasi.poll_oneoff",
)
# Touches `mib` of memory, then sleeps.
HOARD = """(drop (memory.grow (i32.const 127)))
  (memory.fill (i32.const 4096) (i32.const 1) (i32.const 8380000))
  (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))
  (drop (call $wasi.poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))"""
SENDS = ("http_resp.new", "http_body.new", "http_body.write", "http_resp.send_downstream")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Town, Path]]:
    with town(POOL) as made:
        yield made, tmp_path


PAGES = {
    "loop": (program("(loop (br 0))", "http_body.new"), 503, Ending.CPU_LIMIT),
    "trap": (program("unreachable", "http_body.new"), 500, Ending.TRAP),
    "exit_3": (
        program("(call $wasi.proc_exit (i32.const 3))", "wasi.proc_exit", "http_body.new"),
        500, Ending.GUEST_ERROR),
    "overflow": (
        program("(call $f)", "http_body.new", extra="(func $f (call $f) (call $f))"),
        500, Ending.STACK_LIMIT),
    "memory": (
        program("(loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1))"
                " (then unreachable)) (br 0))", "http_body.new"),
        500, Ending.MEMORY_LIMIT),
    "sleep": (SLEEP, 504, Ending.WALL_LIMIT),
}  # fmt: skip


@pytest.mark.parametrize("what", PAGES)
def test_each_ending_has_its_page_its_field_and_its_counter(
    place: tuple[Town, Path], what: str
) -> None:
    there, directory = place
    wat, status, ending = PAGES[what]
    there.deploy(directory, "bad", wat, replace(WHOLE, wall=0.03 if what == "sleep" else 5))
    client = there.ask("bad")
    there.until(client)
    assert status_of(client) == status
    assert outcome_of(client) == ending.value
    assert there.count("bad", ending) == 1
    assert b"Traceback" not in client.received
    assert there.arena.runtime.live == 0


def test_a_guest_that_answers_nothing_answers_200_with_nothing(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(directory, "mute", program("nop", "http_body.new"), WHOLE)
    client = there.ask("mute")
    assert status_of(client) == 200
    assert there.count("mute", Ending.OK) == 1


def test_a_client_that_leaves_takes_its_guest_with_it(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(directory, "slow", SLEEP, WHOLE)
    client = there.ask("slow")
    assert there.arena.runtime.live == 1
    client.connection.connection_lost(None)
    assert there.arena.runtime.live == 0
    assert there.count("slow", Ending.CLIENT_GONE) == 1


def test_a_huge_response_is_cut_at_its_limit(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(
        directory,
        "big",
        program(
            "(call $must (call $http_resp.new (i32.const 0)))"
            " (call $must (call $http_body.new (i32.const 4)))"
            " (call $must (call $http_resp.send_downstream"
            "  (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 1)))"
            " (loop (call $must (call $http_body.write (i32.load (i32.const 4)) (i32.const 0)"
            "  (i32.const 65536) (i32.const 0) (i32.const 8))) (br 0))",
            *SENDS,
        ),
        replace(WHOLE, response=4 * MIB, cpu=5),
    )
    client = there.ask("big")
    there.until(client)
    assert there.count("big", Ending.OUTPUT_LIMIT) == 1
    assert client.transport.aborted, "what is cut off must not look complete"
    assert len(client.received) <= 4 * MIB + 4096
    assert there.arena.runtime.live == 0


def test_a_slow_reader_holds_up_its_own_guest_only(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(
        directory,
        "big",
        program(
            "(call $must (call $http_resp.new (i32.const 0)))"
            " (call $must (call $http_body.new (i32.const 4)))"
            " (call $must (call $http_resp.send_downstream"
            "  (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 1)))"
            " (loop (call $must (call $http_body.write (i32.load (i32.const 4)) (i32.const 0)"
            "  (i32.const 65536) (i32.const 0) (i32.const 8))) (br 0))",
            *SENDS,
        ),
        WHOLE,
    )
    there.deploy(directory, "hello", HELLO, WHOLE)
    stuck = there.ask("big", reads=False)
    for _ in range(5):
        there.settle()
    assert there.arena.runtime.parked == 1
    assert there.dispatcher.ledger.held <= MIB
    assert len(stuck.transport.waiting) <= MIB
    assert b"hello from wasm" in there.ask("hello").received


# Admission -----------------------------------------------------------------------------------


def test_one_request_more_than_the_pool_has_slots_waits_and_is_then_served(
    place: tuple[Town, Path],
) -> None:
    there, directory = place
    there.deploy(directory, "slow", SLEEP, replace(WHOLE, wall=0.05))
    there.deploy(directory, "hello", HELLO, WHOLE)
    sleepers = [there.ask("slow") for _ in range(SLOTS)]
    assert there.arena.runtime.live == SLOTS
    late = there.ask("hello")
    assert there.arena.runtime.live == SLOTS, "the pool can never be asked for one more"
    assert late.received == b""
    there.until(*sleepers, late)
    assert b"hello from wasm" in late.received
    assert there.count("slow", Ending.WALL_LIMIT) == SLOTS
    assert there.count("hello", Ending.FAULT) == there.count("slow", Ending.FAULT) == 0


def test_a_service_keeps_to_its_share_of_the_slots(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(directory, "greedy", SLEEP, replace(WHOLE, slots=0.5, queue_wait=0.05))
    there.deploy(directory, "hello", HELLO, WHOLE)
    greedy = [there.ask("greedy") for _ in range(SLOTS)]
    assert there.arena.runtime.live == SLOTS // 2
    assert b"hello from wasm" in there.ask("hello").received
    waiting = greedy[SLOTS // 2 :]
    there.until(*waiting)
    assert {status_of(client) for client in waiting} == {503}
    assert {outcome_of(client) for client in waiting} == {"overload"}
    assert b"retry-after" in waiting[0].received
    assert there.rejections(Rejection.QUEUE_TIMEOUT) == SLOTS // 2


def test_a_full_queue_refuses_at_once(place: tuple[Town, Path]) -> None:
    there, directory = place
    there.deploy(directory, "greedy", SLEEP, replace(WHOLE, queue_wait=5))
    clients = [there.ask("greedy") for _ in range(2 * SLOTS + 3)]
    refused = clients[2 * SLOTS :]
    assert [status_of(client) for client in refused] == [503] * 3
    assert there.rejections(Rejection.QUEUE_FULL) == 3
    assert all(client.received == b"" for client in clients[: 2 * SLOTS])


# Memory of all together ----------------------------------------------------------------------


def test_many_hoarders_die_of_memory_pressure_and_a_neighbour_does_not(tmp_path: Path) -> None:
    # Scaled down: 8 MiB each and a budget of 30 MiB stand for 128 MiB each and 70 % of a machine.
    with town(POOL, memory_budget=30 * MIB) as there:
        there.deploy(
            tmp_path,
            "hoard",
            program(HOARD, "http_body.new", "wasi.poll_oneoff"),
            replace(WHOLE, cpu=5, queue_wait=0.5),
        )
        there.deploy(tmp_path, "modest", SLEEP, WHOLE)
        modest = there.ask("modest")
        hoarders = [there.ask("hoard") for _ in range(6)]
        for _ in range(10):
            there.settle()
        assert there.count("hoard", Ending.MEMORY_PRESSURE) > 0
        held = there.arena.runtime.memory_bytes + there.dispatcher.ledger.held
        assert held <= 30 * MIB
        assert modest.received == b""
        assert there.count("modest", Ending.MEMORY_PRESSURE) == 0
        dead = [client for client in hoarders if client.received]
        assert {status_of(client) for client in dead} == {503}
        assert {outcome_of(client) for client in dead} == {"memory_pressure"}
        assert there.rejections(Rejection.MEMORY) > 0


def test_hoarding_in_the_start_function_is_counted_as_the_worst(tmp_path: Path) -> None:
    # Nobody can look at a memory whose instance does not exist yet.
    hoard = program(
        "nop",
        "http_body.new",
        extra="(func $first (drop (memory.grow (i32.const 127)))"
        " (memory.fill (i32.const 0) (i32.const 1) (i32.const 8380000)) (loop (br 0)))"
        " (start $first)",
    )
    with town(POOL, memory_budget=30 * MIB) as there:
        there.deploy(tmp_path, "hoard", hoard, replace(WHOLE, cpu=0.2, queue_wait=0.5))
        clients = [there.ask("hoard") for _ in range(4)]
        there.until(*clients)
        assert there.count("hoard", Ending.MEMORY_PRESSURE) > 0


def test_bodies_that_the_host_holds_count_as_memory(tmp_path: Path) -> None:
    keep = program(
        "(call $must (call $http_body.new (i32.const 200)))"
        " (call $must (call $http_body.write (i32.load (i32.const 200)) (i32.const 0)"
        "  (i32.const 4000000) (i32.const 0) (i32.const 208)))"
        " (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const -1))"
        " (drop (call $wasi.poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1)"
        "  (i32.const 128)))",
        "http_body.new",
        "http_body.write",
        "wasi.poll_oneoff",
        memory="64",
    )
    with town(POOL, memory_budget=20 * MIB) as there:
        there.deploy(tmp_path, "keep", keep, replace(WHOLE, cpu=5))
        for _ in range(4):
            there.ask("keep")
        for _ in range(40):
            there.settle()
        assert there.count("keep", Ending.MEMORY_PRESSURE) > 0
        held = there.arena.runtime.memory_bytes + there.dispatcher.ledger.held
        assert held <= 20 * MIB


def test_a_queued_request_whose_body_breaks_http_needs_no_sandbox(tmp_path: Path) -> None:
    with town(replace(POOL, slots=1)) as there:
        there.deploy(tmp_path, "busy", PAGES["loop"][0], replace(WHOLE, cpu=0.3))
        there.deploy(tmp_path, "shop", HELLO, WHOLE)
        busy = there.ask("busy")
        head = b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
        broken = there.ask("shop", head)  # waits for the one slot
        there.say(broken, b"zz\r\n\r\n")
        there.until(busy)
        there.settle()
        assert status_of(broken) == 400
        assert there.count("shop", Ending.BAD_REQUEST) == 1
        assert there.count("shop", Ending.OK) == there.count("shop", Ending.GUEST_ERROR) == 0
        assert status_of(there.ask("shop")) == 200


def test_a_cgi_response_over_its_limit_is_counted_as_that(tmp_path: Path) -> None:
    text = b"Content-Type: text/plain\n\n" + b"x" * 2000
    data = "".join(f"\\{byte:02x}" for byte in text)
    cgi = program(
        "(i32.store (i32.const 0) (i32.const 1024))"
        f" (i32.store (i32.const 4) (i32.const {len(text)}))"
        " (drop (call $wasi.fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))",
        "wasi.fd_write",
        extra=f'(data (i32.const 1024) "{data}")',
    )
    with town(POOL) as there:
        there.deploy(tmp_path, "cgi", cgi, replace(WHOLE, response=1000))
        client = there.ask("cgi")
        there.until(client)
        assert (status_of(client), outcome_of(client)) == (500, "output_limit")
        assert there.count("cgi", Ending.OUTPUT_LIMIT) == 1
        assert there.count("cgi", Ending.OK) == 0


def test_responses_that_nobody_takes_give_way_when_their_guests_have_ended(tmp_path: Path) -> None:
    # What is held for them is charged to sandboxes that are gone: there is no guest to end.
    answer = program(
        "(call $must (call $http_resp.new (i32.const 204)))"
        " (call $must (call $http_body.new (i32.const 200)))"
        " (call $must (call $http_body.write (i32.load (i32.const 200)) (i32.const 0)"
        "  (i32.const 4000000) (i32.const 0) (i32.const 208)))"
        " (call $must (call $http_resp.send_downstream (i32.load (i32.const 204))"
        "  (i32.load (i32.const 200)) (i32.const 0)))",
        "http_body.new",
        "http_body.write",
        "http_resp.new",
        "http_resp.send_downstream",
        memory="64",
    )
    with town(POOL, memory_budget=40 * MIB) as there:
        there.deploy(tmp_path, "slow", answer, replace(WHOLE, cpu=5))
        there.deploy(tmp_path, "modest", SLEEP, WHOLE)
        modest = there.ask("modest")
        slow = [there.ask("slow", reads=False) for _ in range(4)]
        for _ in range(100):
            there.settle()
        assert len(there.dispatcher.streaming) == len(slow), "their guests have ended"
        there.dispatcher.memory_budget = 10 * MIB  # it was others who took the rest
        there.ask("modest")
        there.settle()
        assert there.arena.runtime.live == 2, "both that are modest, and nobody else"
        assert there.count("slow", Ending.MEMORY_PRESSURE) > 0
        assert there.count("modest", Ending.MEMORY_PRESSURE) == 0
        assert modest.received == b""
        assert there.arena.runtime.memory_bytes + there.dispatcher.ledger.held <= 10 * MIB

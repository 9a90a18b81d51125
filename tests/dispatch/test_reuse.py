"""Sandboxes that serve further requests: who is given one, what begins anew, who has to go."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.dispatch import succession
from edge.dispatch.idle import MOST_IDLE
from edge.dispatch.succession import Succession
from edge.model.limits import DEFAULT_LIMITS, Limits
from edge.outcome import Ending
from edge.runtime.engine import MIB
from edge.runtime.guest import Guest
from edge.telemetry.layout import SoftLimit
from tests.support.downstream import Town, outcome_of, status_of, town
from tests.support.guests import GUESTS
from tests.support.reusing import (
    ANSWER,
    ASK,
    BODY,
    BURN,
    CONTENT,
    LOG,
    OUT,
    PROMISE,
    REQUEST,
    RESPONSE,
    SELECT,
    SPIN,
    WAIT,
    ask_for,
    fetch,
    live,
    load,
    must,
    on,
    one_record_each,
    said,
    serving,
    settle,
    sleep_for,
)

HELLO = (GUESTS / "wat" / "hello.wat").read_text()
WHOLE = replace(DEFAULT_LIMITS, slots=1.0)
# The least that BURN takes: a cycle for each turn, at 6 GHz. How much more is the load's doing.
BURN_NS = 2_000_000


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Town, Path]]:
    with town() as made:
        yield made, tmp_path
        one_record_each(made)


def deploy(place: tuple[Town, Path], wat: str, limits: Limits = WHOLE) -> Town:
    """A town with one service, `shop`."""
    there, directory = place
    there.deploy(directory, "shop", wat, limits)
    return there


# How many, and which ---------------------------------------------------------------------------


def test_a_sandbox_serves_five_further_requests_and_then_a_fresh_one_begins(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving())
    answers = [said(fetch(there, "shop")) for _ in range(8)]
    assert answers == [b"1", b"2", b"3", b"4", b"5", b"6", b"1", b"2"]
    assert there.count("shop", Ending.OK) == 8, "each has its record, that it was served again too"


def test_zero_further_requests_is_a_fresh_sandbox_each_time(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(), replace(WHOLE, reuse_requests=0))
    assert [said(fetch(there, "shop")) for _ in range(3)] == [b"1"] * 3
    assert live(there) == 0


def test_a_guest_that_does_not_ask_gets_no_further_request(place: tuple[Town, Path]) -> None:
    there = deploy(place, HELLO)
    fetch(there, "shop")
    assert live(there) == len(there.dispatcher.idle) == 0


def test_beyond_its_age_a_sandbox_gets_no_further_request(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(), replace(WHOLE, reuse_age=0.05))
    began = there.arena.loop.time()
    fetch(there, "shop")
    there.arena.until(lambda: live(there) == 0)
    assert there.arena.loop.time() - began < 5, "sooner than any promise is refused"
    assert said(fetch(there, "shop")) == b"1"


def test_a_promise_is_refused_after_the_time_that_the_guest_names(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(ask=ask_for(20)))
    client = there.ask("shop")
    there.until(client)
    assert live(there) == 1
    there.arena.until(lambda: live(there) == 0)
    assert there.count("shop", Ending.OK) == 1


def test_the_one_that_came_last_gets_the_next_request(place: tuple[Town, Path]) -> None:
    # Only a fresh sandbox reads: the first two wait for their bodies and answer out of order.
    there = deploy(place, serving(on(1, must("http_body.read", load(BODY), 128, 64, OUT))))
    first, second = (there.ask("shop", POST) for _ in range(2))
    there.say(second, b"x")
    there.until(second)
    settle(there)
    fetch(there, "shop")  # the second sandbox's second request
    there.say(first, b"x")
    there.until(first)
    settle(there)
    assert len(there.dispatcher.idle) == 2
    assert said(fetch(there, "shop")) == b"2", "the first sandbox has come to rest after the other"


def test_of_one_version_five_wait_and_the_sixth_ends(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(must("http_body.read", load(BODY), 128, 64, OUT)))
    clients = [there.ask("shop", POST) for _ in range(MOST_IDLE + 2)]
    for client in clients:
        there.say(client, b"x")
    there.until(*clients)
    settle(there)
    assert live(there) == len(there.dispatcher.idle) == MOST_IDLE
    assert there.count("shop", Ending.OK) == MOST_IDLE + 2


POST = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n"


# Budgets -----------------------------------------------------------------------------------------


def test_cpu_time_is_counted_for_each_request(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(BURN), replace(WHOLE, cpu=10.0))
    fetch(there, "shop")
    (guest,) = there.arena.runtime.lasting
    each = guest.cpu_used / 1e9
    assert each > BURN_NS / 1e9
    with town() as other:
        other.deploy(place[1], "shop", serving(BURN), replace(WHOLE, cpu=3 * each))
        clients = [fetch(other, "shop") for _ in range(6)]
        assert [said(client) for client in clients] == [b"%d" % n for n in range(1, 7)]
        assert other.count("shop", Ending.OK) == 6


def test_the_meter_of_the_guest_tells_what_the_sandbox_has_used_in_all(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving(BURN), replace(WHOLE, cpu=10.0))
    fetch(there, "shop")
    (guest,) = there.arena.runtime.lasting
    first = guest.cpu_ns()
    fetch(there, "shop")
    assert guest.cpu_ns() - first > BURN_NS, "the second is added"
    assert guest.cpu_ns() - guest.cpu_used > BURN_NS, "the first is not of the present request"
    assert guest.cpu_used > BURN_NS


def test_work_between_two_requests_is_charged_to_the_next(place: tuple[Town, Path]) -> None:
    # Asks, is refused, computes, and asks again: nothing of that is free.
    again = f"(i32.ne {WAIT} (i32.const 10))"
    there = deploy(place, serving(BURN, answer=on(1, ANSWER), ask=ask_for(0), wait=again))
    first = there.ask("shop")
    there.until(first)
    (guest,) = there.arena.runtime.lasting
    there.arena.until(lambda: live(there) == 0)
    assert there.count("shop", Ending.OK) == 1
    assert guest.cpu_ns() < 0.1e9, "one request's limit, and not one for each promise"


def test_wall_time_is_counted_for_each_request_and_not_between_them(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving(), replace(WHOLE, wall=0.05))
    loop = there.arena.loop
    for number in range(1, 4):
        began = loop.time()
        assert said(fetch(there, "shop")) == b"%d" % number
        there.arena.until(lambda: loop.time() > began + 0.07)  # noqa: B023 - runs at once
        assert live(there) == 1


def test_a_further_request_has_its_own_wall_limit(place: tuple[Town, Path]) -> None:
    there = deploy(
        place,
        serving(on(2, must("http_body.read", load(BODY), 128, 64, OUT))),
        replace(WHOLE, wall=0.1),
    )
    fetch(there, "shop")
    client = there.ask("shop", POST)
    there.until(client)
    assert (status_of(client), outcome_of(client)) == (504, "wall_limit")
    assert there.count("shop", Ending.OK) == 1
    assert live(there) == 0


def test_log_bytes_are_counted_for_each_request(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(LOG), replace(WHOLE, log_bytes=100))
    for _ in range(4):
        fetch(there, "shop")
    assert there.refusals("shop", SoftLimit.LOG_BYTES) == 0
    assert there.count("shop", Ending.OK) == 4


# Failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "status", "ending"),
    [
        ("unreachable", 500, Ending.TRAP),
        (SPIN, 503, Ending.CPU_LIMIT),
        ("(call $wasi.proc_exit (i32.const 3))", 500, Ending.GUEST_ERROR),
    ],
)
def test_a_failure_is_that_of_the_request_under_way_alone(
    place: tuple[Town, Path], act: str, status: int, ending: Ending
) -> None:
    there = deploy(place, serving(on(3, act)))
    clients = [fetch(there, "shop") for _ in range(4)]
    assert [status_of(client) for client in clients] == [200, 200, status, 200]
    assert outcome_of(clients[2]) == ending.value
    assert said(clients[3]) == b"1", "the one after it has a fresh sandbox"
    assert (there.count("shop", Ending.OK), there.count("shop", ending)) == (3, 1)


@pytest.mark.parametrize("after", ["(call $wasi.proc_exit (i32.const -1))", "unreachable", SPIN])
def test_what_happens_after_the_last_request_is_no_request_s_failure(
    place: tuple[Town, Path], after: str
) -> None:
    there = deploy(place, serving(after=after), replace(WHOLE, reuse_requests=1))
    assert [status_of(fetch(there, "shop")) for _ in range(2)] == [200, 200]
    there.arena.until(lambda: live(there) == 0)
    assert there.count("shop", Ending.OK) == 2


def test_an_exit_with_a_code_after_every_answer_is_no_failure(place: tuple[Town, Path]) -> None:
    leave = on(2, "(call $wasi.proc_exit (i32.const -1))")
    there = deploy(place, serving(answer=ANSWER + leave))
    assert [status_of(fetch(there, "shop")) for _ in range(2)] == [200, 200]
    assert there.count("shop", Ending.OK) == 2
    assert live(there) == 0


def test_a_guest_that_ends_without_answering_a_further_request_has_answered_nothing(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving(on(2, "(call $wasi.proc_exit (i32.const 0))")))
    fetch(there, "shop")
    client = fetch(there, "shop")
    assert (status_of(client), said(client)) == (200, b"")
    assert there.count("shop", Ending.OK) == 2


# Whose is whose ----------------------------------------------------------------------------------


def test_the_handles_of_the_last_client_are_invalid(place: tuple[Town, Path]) -> None:
    keep = f"(i32.store (i32.const 80) {load(REQUEST)}) (i32.store (i32.const 84) {load(BODY)})"
    old_request = (
        f"(if (i32.ne (call $http_req.method_get {load(80)} (i32.const 128) (i32.const 64)"
        f" (i32.const {OUT})) (i32.const 3)) (then unreachable))"
    )
    old_body = (
        f"(if (i32.ne (call $http_body.read {load(84)} (i32.const 128) (i32.const 64)"
        f" (i32.const {OUT})) (i32.const 3)) (then unreachable))"
    )
    same = (
        must("http_req.body_downstream_get", 88, 92)
        + f"(if (i32.ne {load(88)} {load(REQUEST)}) (then unreachable))"
        f"(if (i32.ne {load(92)} {load(BODY)}) (then unreachable))"
    )
    there = deploy(place, serving(on(1, keep) + on(2, old_request + old_body + same)))
    assert [status_of(fetch(there, "shop")) for _ in range(2)] == [200, 200]
    assert there.count("shop", Ending.OK) == 2


STREAM = (
    must("http_resp.new", RESPONSE)
    + must("http_body.new", CONTENT)
    + must("http_resp.send_downstream", load(RESPONSE), load(CONTENT), 1)
    + f"(i32.store (i32.const 80) {load(CONTENT)})"
    + must("http_body.write", load(80), 96, 3, 0, OUT)
)
MORE = must("http_body.write", load(80), 96, 3, 0, OUT) + must("http_body.close", load(80))
TEXT = "(i32.store (i32.const 96) (i32.const 0x21616c61))"


def test_a_response_streams_on_while_its_guest_serves_another(place: tuple[Town, Path]) -> None:
    answer = TEXT + on(1, STREAM) + on(2, MORE + ANSWER)
    there = deploy(place, serving(answer=answer))
    first = there.ask("shop")
    settle(there)
    assert there.count("shop", Ending.OK) == 0
    second = fetch(there, "shop")
    there.until(first)
    assert said(second) == b"2"
    assert said(first) == b"3\r\nala\r\n3\r\nala\r\n0\r\n\r\n"
    assert there.count("shop", Ending.OK) == 2


def test_a_crash_cuts_an_earlier_response_that_was_still_being_written_and_says_so(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving(answer=TEXT + on(1, STREAM) + on(2, "unreachable")))
    first = there.ask("shop")
    settle(there)
    second = there.ask("shop")
    there.until(first, second)
    assert status_of(second) == 500
    assert first.transport.aborted, "what is cut off must not look complete"
    assert there.count("shop", Ending.TRAP) == 2


def test_a_client_that_leaves_does_not_take_another_s_response_along(
    place: tuple[Town, Path],
) -> None:
    read = must("http_body.read", load(BODY), 128, 64, OUT)
    ignore = read.replace("call $must", "drop")
    there = deploy(place, serving(answer=TEXT + on(1, STREAM) + on(2, ignore + MORE + ANSWER)))
    first = there.ask("shop")
    settle(there)
    second = there.ask("shop", POST)
    settle(there)
    second.connection.connection_lost(None)
    there.until(first)
    assert said(first).endswith(b"\r\n0\r\n\r\n")
    settle(there)
    assert (there.count("shop", Ending.OK), there.count("shop", Ending.CLIENT_GONE)) == (1, 1)


def test_a_client_that_leaves_takes_a_guest_along_that_serves_nobody_else(
    place: tuple[Town, Path],
) -> None:
    there = deploy(place, serving(on(2, must("http_body.read", load(BODY), 128, 64, OUT))))
    fetch(there, "shop")
    client = there.ask("shop", POST)
    settle(there)
    client.connection.connection_lost(None)
    assert live(there) == 0
    assert there.count("shop", Ending.CLIENT_GONE) == 1


# Given and not taken -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instead",
    [
        must("http_downstream.next_request_abandon", load(PROMISE)) + SPIN,
        sleep_for(60_000),  # for as long as the test lasts
        "(call $wasi.proc_exit (i32.const 0))",
        "unreachable",
    ],
    ids=["abandons", "sleeps", "ends", "traps"],
)
def test_a_request_that_a_guest_was_given_and_never_took_goes_to_a_fresh_sandbox(
    place: tuple[Town, Path], instead: str
) -> None:
    there = deploy(place, serving(wait=SELECT + instead + WAIT), replace(WHOLE, cpu=0.3))
    first = there.ask("shop")
    there.until(first)
    settle(there)
    assert len(there.dispatcher.idle) == 1
    began = there.arena.loop.time()
    second = there.ask("shop")
    there.until(second)
    assert (status_of(second), said(second)) == (200, b"1")
    assert there.arena.loop.time() - began < 5, "long before the promise would be refused"


def test_a_guest_may_wait_for_its_promise_among_other_things(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving(wait=SELECT + WAIT))
    assert [said(fetch(there, "shop")) for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_request_whose_client_left_is_not_taken(place: tuple[Town, Path]) -> None:
    refused = f"(if (i32.ne {WAIT} (i32.const 10)) (then unreachable))"
    there = deploy(place, serving(wait=SELECT + sleep_for(20) + refused + "(i32.const 10)"))
    fetch(there, "shop")
    there.ask("shop").connection.connection_lost(None)
    there.arena.until(lambda: live(there) == 0)
    assert (there.count("shop", Ending.OK), there.count("shop", Ending.CLIENT_GONE)) == (1, 1)
    assert there.count("shop", Ending.TRAP) == 0


def test_a_guest_that_has_not_answered_is_given_nothing(place: tuple[Town, Path]) -> None:
    select = must("async_io.select", PROMISE, 1, 30, OUT)
    there = deploy(place, serving(ASK + select, ask=""))
    first, second = there.ask("shop"), there.ask("shop")
    there.until(first, second)
    assert (said(first), said(second)) == (b"1", b"1")


def test_a_client_that_leaves_before_its_request_is_taken_is_recorded(
    place: tuple[Town, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "TAKE_SECONDS", 60)
    there = deploy(place, serving(wait=SELECT + sleep_for(60_000) + WAIT))
    first = there.ask("shop")
    there.until(first)
    settle(there)
    second = there.ask("shop")
    settle(there)
    assert not second.received
    second.connection.connection_lost(None)
    assert there.count("shop", Ending.CLIENT_GONE) == 1
    assert live(there) == 1, "the guest works on for its first request"


@pytest.mark.parametrize("wait", [WAIT, SELECT + WAIT], ids=["rests", "selects"])
def test_a_request_whose_body_the_sandbox_may_not_hold_goes_to_a_fresh_one(
    place: tuple[Town, Path], wait: str
) -> None:
    # The first request fills a body up to what the host holds for a sandbox, and keeps it.
    fill = (
        "(drop (memory.grow (i32.const 16)))"
        + must("http_body.new", 84)
        + "(loop $fill (br_if $fill (i32.eqz (call $http_body.write"
        f" {load(84)} (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const {OUT})))))"
    )
    there = deploy(
        place, serving(answer=ANSWER + on(1, fill), wait=wait), replace(WHOLE, host_memory=MIB)
    )
    first = there.ask("shop")
    there.until(first)
    settle(there)
    assert len(there.dispatcher.idle) == 1
    large = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 200000\r\n\r\n" + b"x" * 199_999
    second = there.ask("shop", large)
    settle(there)
    there.say(second, b"x")
    there.until(second)
    assert said(second) == b"1"
    there.dispatcher.draining = True
    settle(there)
    assert there.count("shop", Ending.OK) == 2


def traces(guest: Guest) -> list[weakref.ref[Any]]:
    """What a guest that has asked for requests leaves behind, if it leaves anything."""
    asked = guest.box.requests
    assert isinstance(asked, Succession)
    return [weakref.ref(asked), weakref.ref(asked.visit)]


def test_nothing_of_a_sandbox_is_left_to_the_garbage_collector(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving())
    for _ in range(13):
        fetch(there, "shop")
    gc.collect()
    gc.disable()
    try:
        watched: list[weakref.ref[Any]] = []
        for _ in range(5):
            fetch(there, "shop")
            for guest in there.arena.runtime.lasting:
                watched += traces(guest)
                del guest
        there.dispatcher.draining = True
        settle(there)
        assert [each() for each in watched] == [None] * len(watched)
        assert len(watched) >= 8
    finally:
        gc.enable()

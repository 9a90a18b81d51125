"""Sandboxes that wait for a further request give way: to other services, for memory, at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.model.limits import DEFAULT_LIMITS, Limits
from edge.outcome import Ending
from edge.runtime.engine import MIB
from edge.telemetry.layout import Gauge, Rejection
from tests.support.downstream import Town, outcome_of, status_of, town
from tests.support.guests import GUESTS
from tests.support.reusing import (
    BODY,
    OUT,
    SPIN,
    fetch,
    live,
    load,
    must,
    on,
    said,
    serving,
    settle,
)
from tests.support.runtime import SMALL_POOL

HELLO = (GUESTS / "wat" / "hello.wat").read_text()
WHOLE = replace(DEFAULT_LIMITS, slots=1.0)
POST = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Town, Path]]:
    with town() as made:
        yield made, tmp_path


def deploy(place: tuple[Town, Path], wat: str, limits: Limits = WHOLE) -> Town:
    """A town with one service, `shop`."""
    there, directory = place
    there.deploy(directory, "shop", wat, limits)
    return there


def test_an_idle_sandbox_gives_its_slot_to_whoever_needs_one(tmp_path: Path) -> None:
    with town(replace(SMALL_POOL, slots=1)) as there:
        there.deploy(tmp_path, "shop", serving(), WHOLE)
        there.deploy(tmp_path, "hello", HELLO, WHOLE)
        fetch(there, "shop")
        assert live(there) == 1
        client = there.ask("hello")
        assert status_of(client) == 200, "without a turn of the loop, let alone in the queue"
        assert live(there) == 0
        assert there.count("shop", Ending.OK) == 1


def test_a_sandbox_that_has_answered_takes_what_waits_for_its_service(tmp_path: Path) -> None:
    with town(replace(SMALL_POOL, slots=1)) as there:
        read = must("http_body.read", load(BODY), 128, 64, OUT)
        there.deploy(tmp_path, "shop", serving(on(1, read)), WHOLE)
        first = there.ask("shop", POST)
        waiting = [there.ask("shop") for _ in range(1)]
        settle(there)
        there.say(first, b"x")
        there.until(first, *waiting)
        assert said(waiting[0]) == b"2"


def test_a_sandbox_ends_when_another_service_waits_for_its_slot(tmp_path: Path) -> None:
    with town(replace(SMALL_POOL, slots=1)) as there:
        read = must("http_body.read", load(BODY), 128, 64, OUT)
        there.deploy(tmp_path, "shop", serving(on(1, read)), WHOLE)
        there.deploy(tmp_path, "hello", HELLO, WHOLE)
        first, other = there.ask("shop", POST), there.ask("hello")
        there.say(first, b"x")
        there.until(first, other)
        settle(there)
        assert status_of(other) == 200
        assert live(there) == 0


def test_idle_sandboxes_are_the_first_to_go_when_memory_is_short(tmp_path: Path) -> None:
    hold = "(drop (memory.grow (i32.const 63)))"
    with town(memory_budget=6 * MIB) as there:
        there.deploy(tmp_path, "shop", serving(on(1, hold)), WHOLE)
        there.deploy(tmp_path, "greedy", serving(on(1, hold) + SPIN), replace(WHOLE, cpu=0.05))
        fetch(there, "shop")
        assert len(there.dispatcher.idle) == 1
        client = there.ask("greedy")
        there.until(client)
        assert outcome_of(client) == "cpu_limit", "and not memory_pressure"
        assert len(there.dispatcher.idle) == 0
        assert there.rejections(Rejection.MEMORY) == 0


def test_a_new_snapshot_ends_what_waits_for_the_old_one(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving())
    fetch(there, "shop")
    assert live(there) == 1
    there.deploy(place[1], "hello", HELLO, WHOLE)
    settle(there)
    assert live(there) == 0
    assert said(fetch(there, "shop")) == b"1"


def test_a_drain_ends_what_waits_and_lets_nobody_wait(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving())
    fetch(there, "shop")
    there.dispatcher.draining = True
    settle(there)
    assert live(there) == 0
    assert said(fetch(there, "shop")) == b"1"
    assert live(there) == 0


def test_an_idle_sandbox_is_no_request_in_flight(place: tuple[Town, Path]) -> None:
    there = deploy(place, serving())
    fetch(there, "shop")
    there.dispatcher.publish()
    assert there.in_flight("shop") == 0
    assert there.cells.get(Gauge.SANDBOXES_LIVE) == 1
    assert there.cells.get(Gauge.GUEST_MEMORY_BYTES) >= 65536, "what it holds is counted"

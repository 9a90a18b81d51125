"""Who runs next: the scheduler with guests and a loop that are not there.  No Wasm, no clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest

from edge.runtime import scheduler as module
from edge.runtime.scheduler import BURST_NS, SETBACK_NS, TURN_NS, Scheduler

SLICE_NS = 1_000_000


class StepLoop:
    """`call_soon` only; `turn` runs what was queued before it, as a loop iteration does."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.ready.append(lambda: callback(*args))

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()


@dataclass(eq=False)
class FakeGuest:
    """Runs for ever, or for `slices` more."""

    share_key: str
    name: str = ""
    cpu_used: int = 0
    queued: bool = False
    ended: bool = False
    deadline: float = 0.0
    slices: int = 1 << 60


class Bench:
    """A scheduler whose slices take exactly 1 ms of a clock that only they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(module, "perf_counter_ns", lambda: self.now)
        self.loop = StepLoop()
        self.ran: list[FakeGuest] = []
        self.scheduler: Scheduler[FakeGuest] = Scheduler(
            cast("asyncio.AbstractEventLoop", self.loop), self.run
        )

    def run(self, guest: FakeGuest) -> None:
        self.ran.append(guest)
        self.now += SLICE_NS
        guest.cpu_used += SLICE_NS
        guest.slices -= 1
        if guest.slices <= 0:
            guest.ended = True
        else:
            self.scheduler.add(guest)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.turn()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_two_services_share_the_thread_whatever_their_numbers(bench: Bench) -> None:
    for _ in range(250):
        bench.scheduler.add(FakeGuest("hostile"))
    bench.scheduler.add(FakeGuest("neighbour"))
    bench.turns(100)
    shares = Counter(guest.share_key for guest in bench.ran)
    assert shares["neighbour"] == shares["hostile"] == 100


def test_a_new_guest_goes_before_those_of_its_service_that_have_burnt_a_slice(
    bench: Bench,
) -> None:
    for _ in range(8):
        bench.scheduler.add(FakeGuest("shop"))
    bench.turns(20)
    late = FakeGuest("shop", "late", slices=1)
    bench.scheduler.add(late)
    bench.ran.clear()
    bench.turns(1)
    assert bench.ran[0] is late


def test_a_short_guest_that_a_tick_interrupted_does_not_wait_for_all_that_come_later(
    bench: Bench,
) -> None:
    interrupted = FakeGuest("shop", "interrupted", cpu_used=9_000, slices=1)
    bench.scheduler.add(FakeGuest("shop", "earlier", slices=1))
    bench.scheduler.add(interrupted)
    for _ in range(5):
        bench.scheduler.add(FakeGuest("shop", "later", slices=1))
    bench.turns(1)
    assert [guest.name for guest in bench.ran] == ["earlier", "interrupted"]


def test_newcomers_do_not_starve_a_guest_that_has_burnt_a_slice(bench: Bench) -> None:
    # A saturated service: each millisecond another short request arrives and takes one.
    long = FakeGuest("shop", "long", slices=2)
    bench.scheduler.add(long)
    bench.turns(1)
    started = bench.now
    while not long.ended:
        bench.scheduler.add(FakeGuest("shop", slices=1))
        bench.scheduler.add(FakeGuest("shop", slices=1))
        bench.turns(1)
        assert bench.now - started <= SETBACK_NS + 2 * TURN_NS


def test_guests_of_one_service_advance_evenly(bench: Bench) -> None:
    guests = [FakeGuest("shop") for _ in range(8)]
    for guest in guests:
        bench.scheduler.add(guest)
    bench.turns(40)
    assert {guest.cpu_used for guest in guests} == {10 * SLICE_NS}


def test_equal_guests_run_in_the_order_they_came(bench: Bench) -> None:
    guests = [FakeGuest("shop", str(number), slices=1) for number in range(4)]
    for guest in guests:
        bench.scheduler.add(guest)
    bench.turns(2)
    assert bench.ran == guests


def test_a_turn_ends_after_two_milliseconds_of_guest_time(bench: Bench) -> None:
    for _ in range(8):
        bench.scheduler.add(FakeGuest("shop"))
    bench.turns(1)
    assert len(bench.ran) == TURN_NS // SLICE_NS
    assert bench.loop.ready, "the rest goes on after the sockets"


def test_an_idle_scheduler_queues_no_turn(bench: Bench) -> None:
    bench.scheduler.add(FakeGuest("shop", slices=1))
    bench.turns(1)
    assert bench.scheduler.is_idle
    assert not bench.loop.ready


def test_a_guest_that_ended_while_queued_is_passed_over(bench: Bench) -> None:
    gone, next_one = FakeGuest("shop", slices=1), FakeGuest("shop", slices=1)
    bench.scheduler.add(gone)
    bench.scheduler.add(next_one)
    gone.ended = True
    bench.turns(1)
    assert bench.ran == [next_one]


def test_adding_twice_queues_once(bench: Bench) -> None:
    guest = FakeGuest("shop", slices=1)
    bench.scheduler.add(guest)
    bench.scheduler.add(guest)
    assert len(bench.scheduler) == 1
    bench.turns(2)
    assert bench.ran == [guest]


def test_what_a_burst_used_is_forgotten_with_the_next_turn(bench: Bench) -> None:
    bench.scheduler.spent(TURN_NS)
    assert bench.scheduler.burst_ns == TURN_NS
    bench.turns(1)
    assert bench.scheduler.burst_ns == 0


def test_small_bursts_need_no_turn_of_their_own(bench: Bench) -> None:
    bench.scheduler.spent(BURST_NS)
    assert not bench.loop.ready
    bench.scheduler.spent(1)
    assert bench.loop.ready


def test_a_bug_in_one_guest_s_ending_strands_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    broken = FakeGuest("shop", slices=1)
    run = bench.run

    def run_or_raise(guest: FakeGuest) -> None:
        if guest is broken:
            raise ZeroDivisionError
        run(guest)

    bench.scheduler = Scheduler(cast("asyncio.AbstractEventLoop", bench.loop), run_or_raise)
    other = FakeGuest("shop", slices=1)
    bench.scheduler.add(broken)
    bench.scheduler.add(other)
    with pytest.raises(ZeroDivisionError):
        bench.turns(1)
    bench.turns(1)
    assert bench.ran == [other]

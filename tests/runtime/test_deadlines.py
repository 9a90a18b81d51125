"""Wall deadlines: one heap and one timer, on a loop whose clock is moved by hand."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest

from edge.runtime.scheduler import Deadlines


@dataclass(eq=False)
class Timer:
    at: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """`time` and `call_at`; `advance` fires what is due, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(at, callback)
        self.timers.append(timer)
        return timer

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, to: float) -> None:
        self.now = to
        while due := [timer for timer in self.pending if timer.at <= to]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            first.callback()


@dataclass(eq=False)
class FakeGuest:
    name: str = ""
    share_key: str = "shop"
    cpu_used: int = 0
    queued: bool = False
    ended: bool = False
    deadline: float = 0.0


class Bench:
    def __init__(self) -> None:
        self.loop = HandLoop()
        self.expired: list[FakeGuest] = []
        self.deadlines: Deadlines[FakeGuest] = Deadlines(
            cast("asyncio.AbstractEventLoop", self.loop), self.expire
        )

    def expire(self, guest: FakeGuest) -> None:
        self.expired.append(guest)
        self.end(guest)

    def end(self, guest: FakeGuest) -> None:
        guest.ended = True
        self.deadlines.forget()

    def add(self, at: float) -> FakeGuest:
        guest = FakeGuest(str(at))
        self.deadlines.add(at, guest)
        return guest


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_guests_expire_in_the_order_of_their_deadlines(bench: Bench) -> None:
    late, early, middle = bench.add(3.0), bench.add(1.0), bench.add(2.0)
    bench.loop.advance(1.5)
    assert bench.expired == [early]
    bench.loop.advance(9.0)
    assert bench.expired == [early, middle, late]


def test_one_timer_serves_all(bench: Bench) -> None:
    for at in (5.0, 4.0, 3.0, 6.0):
        bench.add(at)
    assert [timer.at for timer in bench.loop.pending] == [3.0]


def test_a_guest_that_has_ended_is_not_expired(bench: Bench) -> None:
    bench.end(bench.add(1.0))
    other = bench.add(2.0)
    bench.loop.advance(1.0)
    assert bench.expired == []
    bench.loop.advance(2.0)
    assert bench.expired == [other]


def test_nothing_left_leaves_no_timer(bench: Bench) -> None:
    bench.add(1.0)
    bench.loop.advance(1.0)
    assert bench.loop.pending == []


def test_guests_that_end_early_do_not_pile_up(bench: Bench) -> None:
    for _ in range(100_000):
        bench.end(bench.add(120.0))
    assert len(bench.deadlines._heap) <= 300


def test_a_guest_that_serves_another_request_has_another_deadline(bench: Bench) -> None:
    guest = bench.add(1.0)
    bench.deadlines.move(3.0, guest)
    bench.loop.advance(2.0)
    assert bench.expired == []
    bench.loop.advance(3.0)
    assert bench.expired == [guest]


def test_a_guest_that_waits_for_a_request_has_no_deadline(bench: Bench) -> None:
    guest = bench.add(1.0)
    bench.loop.advance(0.25)
    assert bench.deadlines.hold(guest) == 0.75
    bench.loop.advance(50.0)
    assert bench.expired == []
    bench.deadlines.move(50.75, guest)
    bench.loop.advance(50.75)
    assert bench.expired == [guest]


def test_deadlines_that_were_moved_do_not_pile_up(bench: Bench) -> None:
    guest = bench.add(120.0)
    for number in range(100_000):
        bench.deadlines.move(120.0 + number, guest)
    assert len(bench.deadlines._heap) <= 300


def test_a_bug_in_one_guest_s_ending_leaves_the_others_their_deadlines(bench: Bench) -> None:
    broken, other = bench.add(1.0), bench.add(2.0)
    expire = bench.expire

    def expire_or_raise(guest: FakeGuest) -> None:
        if guest is broken:
            raise ZeroDivisionError
        expire(guest)

    bench.deadlines._expire = expire_or_raise
    with pytest.raises(ZeroDivisionError):
        bench.loop.advance(1.0)
    bench.loop.advance(2.0)
    assert bench.expired == [other]


def test_closing_cancels_the_timer(bench: Bench) -> None:
    bench.add(1.0)
    bench.deadlines.close()
    bench.loop.advance(5.0)
    assert bench.expired == []


def test_nothing_keeps_a_guest_when_all_have_ended(bench: Bench) -> None:
    guests = [bench.add(120.0) for _ in range(3)]
    left = [weakref.ref(guest) for guest in guests]
    while guests:
        bench.end(guests.pop())
    assert [one() for one in left] == [None] * 3
    bench.loop.advance(120.0)
    assert bench.expired == []

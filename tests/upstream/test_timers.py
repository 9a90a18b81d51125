"""Deadlines on a stepped clock: never early, late by a tick, and no timer when nothing is due."""

from __future__ import annotations

from collections.abc import Callable

from edge.upstream.timers import NEVER, TICK, Deadlines
from tests.support.clock import SteppedClock


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Hand:
    """A clock and the one timer method of a loop."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.timers: list[Timer] = []
        self.scheduled = 0

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        self.scheduled += 1
        timer = Timer(self.clock.monotonic() + delay, callback)
        self.timers.append(timer)
        return timer

    def step(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        due = [timer for timer in self.timers if timer.at <= now]
        self.timers = [timer for timer in self.timers if timer.at > now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()

    @property
    def armed(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Member:
    def __init__(self, deadlines: Deadlines, name: str, told: list[str]) -> None:
        self.deadline = NEVER
        self._deadlines = deadlines
        self._name = name
        self._told = told

    def on_due(self) -> None:
        assert self.deadline == NEVER
        self._told.append(self._name)

    def within(self, seconds: float) -> None:
        self.deadline = self._deadlines.now() + seconds
        if self.deadline < self._deadlines.next:
            self._deadlines.soon(self.deadline)


def make(count: int) -> tuple[Hand, Deadlines, list[Member], list[str]]:
    hand, told = Hand(), list[str]()
    deadlines = Deadlines(hand, hand.clock.monotonic)
    members = [Member(deadlines, str(number), told) for number in range(count)]
    for member in members:
        deadlines.add(member)
    return hand, deadlines, members, told


def test_nothing_is_scheduled_while_nothing_can_be_due() -> None:
    hand, deadlines, members, _ = make(3)
    assert (len(deadlines), hand.armed) == (3, [])
    members[0].within(1)
    assert len(hand.armed) == 1
    for member in members:
        deadlines.remove(member)
    assert (len(deadlines), hand.armed) == (0, [])


def test_a_deadline_is_never_early_and_a_tick_late_at_most() -> None:
    hand, _, members, told = make(40)
    for number, member in enumerate(members):
        member.within(0.01 * (number + 1))
    for step in range(1, 500):
        hand.step(0.001)
        on_time = [str(number) for number in range(40) if 0.01 * (number + 1) <= step * 0.001]
        late = [name for name in on_time if name not in told]
        assert set(told) <= {*on_time, str(len(on_time))}  # the next one: rounding of the steps
        assert all(step * 0.001 - 0.01 * (int(name) + 1) <= TICK + 0.002 for name in late)
    assert len(told) == 40


def test_a_deadline_that_moved_later_is_not_due_and_costs_no_timer() -> None:
    hand, _, members, told = make(1)
    members[0].within(1)
    scheduled = hand.scheduled
    for _ in range(9):
        hand.step(0.1)
        members[0].within(1)
    assert hand.scheduled == scheduled
    hand.step(0.15)
    assert told == []
    hand.step(1)
    assert told == ["0"]
    assert hand.armed == []


def test_an_earlier_deadline_is_seen_in_time() -> None:
    hand, _, members, told = make(2)
    members[0].within(10)
    members[1].within(0.05)
    hand.step(0.06)
    assert told == ["1"]
    assert len(hand.armed) == 1
    hand.step(10)
    assert told == ["1", "0"]


def test_one_that_is_due_may_save_or_remove_the_others() -> None:
    hand, told = Hand(), list[str]()
    deadlines = Deadlines(hand, hand.clock.monotonic)
    members: list[Member] = []

    class Saving(Member):
        def on_due(self) -> None:
            super().on_due()
            for member in members:
                if member is not self:
                    member.deadline = NEVER

    members += [Saving(deadlines, str(number), told) for number in range(3)]
    for member in members:
        deadlines.add(member)
        member.within(1)
    hand.step(1.1)
    assert len(told) == 1

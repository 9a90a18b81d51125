"""Deadlines of many connections with one timer, late by 25 ms at most and never early.

A member writes an instant into `deadline`; only one that lies before the next look must be told of
(`soon`).  Under load deadlines move later all the time and nothing is scheduled: a timer handle per
request would cost 1.1 us.  When nothing is due the loop is not woken.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

NEVER = inf
# Two looks are at least this far apart, so that a thousand deadlines in a row cost forty looks a
# second and not a thousand.
TICK = 0.025


class Timed(Protocol):
    """What is looked at: `on_due` is called once `deadline` has passed, which is then NEVER."""

    deadline: float

    def on_due(self) -> None: ...


class Handle(Protocol):
    """What `call_later` gives."""

    def cancel(self) -> None: ...


class TimerLoop(Protocol):
    """The one method of an event loop that is needed here."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Handle: ...


class Deadlines:
    """All members and the next instant at which they are looked at."""

    __slots__ = ("_handle", "_loop", "_members", "next", "now")

    def __init__(self, loop: TimerLoop, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._loop = loop
        self.now = now
        self.next = NEVER  # when the timer goes off
        self._handle: Handle | None = None
        self._members: set[Timed] = set()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Timed) -> None:
        """Look at `member` from now on."""
        self._members.add(member)
        if member.deadline < self.next:
            self.soon(member.deadline)

    def remove(self, member: Timed) -> None:
        """Look at it no more.  With the last one the timer goes."""
        self._members.discard(member)
        if not self._members:
            self._disarm()

    def soon(self, deadline: float) -> None:
        """A member's deadline lies before `next`."""
        if deadline < self.next:
            self._disarm()
            self._arm(deadline, self.now())

    def _arm(self, deadline: float, now: float) -> None:
        delay = max(deadline - now, 0.0)
        self.next = now + delay
        self._handle = self._loop.call_later(delay, self._look)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.next = NEVER

    def _look(self) -> None:
        self._handle = None
        self.next = NEVER
        now = self.now()
        due = [member for member in self._members if member.deadline <= now]
        for member in due:
            # Looked at again: what the ones before it did may have moved its deadline.
            if member.deadline <= now:
                member.deadline = NEVER
                member.on_due()
        earliest = min((member.deadline for member in self._members), default=NEVER)
        if earliest < self.next:
            self._disarm()
            self._arm(max(earliest, now + TICK), now)

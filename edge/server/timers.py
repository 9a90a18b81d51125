"""Coarse deadlines for thousands of connections with one timer.  Not for anything below 250 ms.

A connection writes an instant into `deadline` and says when it has written bytes; four times a
second one sweep looks at all of them.  A timer handle per request would cost more than the whole
parse (call_later and cancel: 1.1 us), and nobody needs an idle timeout to the millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from math import inf
from typing import Protocol

from edge.clock import Clock

TICK = 0.25
NEVER = inf


class Swept(Protocol):
    """What is looked at: sooner than never when `deadline` passed, always while `wrote`."""

    deadline: float
    wrote: bool

    def on_sweep(self, now: float) -> None: ...


class TimerLoop(Protocol):
    """The one method of an event loop that is needed here."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class Sweeper:
    """The coarse clock of a process and the sweep over its connections.

    `now` is a monotonic instant at most a tick old (older if the loop was held up).  `tail_keep`
    and `tail_close` end a response head: Date, Connection, the empty line, made once per tick.
    """

    __slots__ = ("_armed", "_clock", "_loop", "_members", "now", "tail_close", "tail_keep")

    def __init__(self, loop: TimerLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._members: set[Swept] = set()
        self._armed = False
        self._refresh()

    def __len__(self) -> int:
        return len(self._members)

    def after(self, seconds: float) -> float:
        """The deadline `seconds` from now; late by up to two ticks, never early."""
        return self.now + seconds + TICK

    def add(self, member: Swept) -> None:
        """Look at `member` from now on.  The timer runs only while there is somebody to look at."""
        if not self._members:
            self._refresh()
        self._members.add(member)
        if not self._armed:
            self._armed = True
            self._loop.call_later(TICK, self.sweep)

    def remove(self, member: Swept) -> None:
        self._members.discard(member)

    def sweep(self) -> None:
        """Look at everybody once, and come again if anybody is left."""
        self._refresh()
        now = self.now
        for member in tuple(self._members):
            if member.deadline <= now or member.wrote:
                member.on_sweep(now)
        self._armed = bool(self._members)
        if self._armed:
            self._loop.call_later(TICK, self.sweep)

    def _refresh(self) -> None:
        self.now = self._clock.monotonic()
        date = formatdate(self._clock.wall(), usegmt=True).encode()
        self.tail_keep = b"date: %b\r\n\r\n" % date
        self.tail_close = b"date: %b\r\nconnection: close\r\n\r\n" % date

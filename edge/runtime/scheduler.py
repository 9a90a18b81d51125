"""Who runs next, and for how long; and when a guest's wall time is over.  Knows nothing of Wasm.

Round robin over services, so that a tenant's hundred loops weigh as much as a neighbour's one.  In
a service, first come first served, but each millisecond of CPU that a guest has used puts it back
by eight: one never yet run goes before those that have burnt slices, which it yet does not starve.
(Least CPU first, without age, was tried: in a busy JavaScript service one request in a
hundred waited half a second.)  With plain round robin eight endless loops cost a neighbour 32 ms.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from time import perf_counter_ns
from typing import Generic, Protocol, TypeVar

# Guest time per loop turn before sockets are served again.
TURN_NS = 2_000_000
# What counts is whole milliseconds of CPU: to the nanosecond, a guest that a tick met in the middle
# of its 10 us would stand behind others that come later.
COUNTED_NS = 1_000_000
# How much later a guest stands in the queue for each of them.
SETBACK_NS = 8_000_000
# Below this, a burst of guests started straight from sockets needs no turn of its own.
BURST_NS = 500_000


class Runnable(Protocol):
    """What the queue needs to know of a guest."""

    cpu_used: int  # nanoseconds
    queued: bool
    ended: bool
    deadline: float  # loop time; set by Deadlines

    @property
    def share_key(self) -> str: ...


R = TypeVar("R", bound=Runnable)


class Scheduler(Generic[R]):
    """The queue of guests that could run now.  `run(guest)` gives one of them a slice."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[R], None]) -> None:
        self._loop = loop
        self._run = run
        self._heaps: dict[str, list[tuple[int, int, R]]] = {}
        self._rotation: deque[str] = deque()
        self._sequence = 0
        self._turn_pending = False
        self.burst_ns = 0  # guest time used in this loop turn, outside `_turn`

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    @property
    def is_idle(self) -> bool:
        """True when nobody waits for a slice."""
        return not self._rotation

    def spent(self, nanoseconds: int) -> None:
        """Account guest time that was used outside a turn."""
        self.burst_ns += nanoseconds
        if self.burst_ns > BURST_NS:
            self._wake()

    def add(self, guest: R) -> None:
        """Queue a guest; it will be run in a turn unless it has ended by then."""
        if guest.queued:
            return
        guest.queued = True
        self._sequence += 1
        key = guest.share_key
        heap = self._heaps.get(key)
        if heap is None:
            heap = self._heaps[key] = []
            self._rotation.append(key)
        due = perf_counter_ns() + guest.cpu_used // COUNTED_NS * SETBACK_NS
        heappush(heap, (due, self._sequence, guest))
        self._wake()

    def _wake(self) -> None:
        """See that a turn comes: it runs who waits, and a new burst may begin."""
        if not self._turn_pending:
            self._turn_pending = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_pending = False
        self.burst_ns = 0
        stop = perf_counter_ns() + TURN_NS
        try:
            while self._rotation:
                guest = self._next()
                if not guest.ended:
                    self._run(guest)
                    if perf_counter_ns() >= stop:
                        break
        finally:  # a bug met in one guest's ending must not strand the others
            if self._rotation:
                self._wake()

    def _next(self) -> R:
        key = self._rotation.popleft()
        heap = self._heaps[key]
        _, _, guest = heappop(heap)
        guest.queued = False
        if heap:
            self._rotation.append(key)
        else:
            del self._heaps[key]
        return guest


class Deadlines(Generic[R]):
    """Wall-clock ends of the guests that did not finish at once: one heap, one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[R], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, R]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._live = 0

    def add(self, deadline: float, guest: R) -> None:
        """Expire `guest` at `deadline` (loop time) unless `forget` comes first."""
        self._live += 1
        self._push(deadline, guest)

    def move(self, deadline: float, guest: R) -> None:
        """Another deadline for a guest that was added: it serves a further request."""
        self._push(deadline, guest)
        self._tidy()

    def hold(self, guest: R) -> float:
        """No deadline until `move`: the guest has nothing to do.  Seconds that it had left."""
        left = guest.deadline - self._loop.time()
        guest.deadline = inf
        return left

    def forget(self) -> None:
        """One of the guests added has ended."""
        self._live -= 1
        self._tidy()

    def _push(self, deadline: float, guest: R) -> None:
        """An entry counts as long as it has the guest's own deadline."""
        guest.deadline = deadline
        self._sequence += 1
        heappush(self._heap, (deadline, self._sequence, guest))
        if self._timer is None or deadline < self._timer_at:
            self._schedule(deadline)

    def _tidy(self) -> None:
        """Entries that are dead go when the heap is mostly made of them, and when all are.

        A guest that has ended keeps its version from going, stores and machine code included.
        """
        if not self._live:
            self._heap.clear()
        elif len(self._heap) > 256 and len(self._heap) > 4 * self._live:
            self._heap = [entry for entry in self._heap if _counts(entry)]
            heapify(self._heap)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._heap.clear()

    def _schedule(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._heap and (self._heap[0][0] <= now or not _counts(self._heap[0])):
                entry = heappop(self._heap)
                if _counts(entry):
                    self._expire(entry[2])
        finally:
            if self._heap:
                self._schedule(self._heap[0][0])


def _counts(entry: tuple[float, int, R]) -> bool:
    deadline, _, guest = entry
    return not guest.ended and guest.deadline == deadline

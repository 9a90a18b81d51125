"""A lane: one thread, the queue before it, and the way back to the loop.  Knows no storage.

The queue has no bound of its own: whoever puts jobs into it counts them (`Gate`).
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

J = TypeVar("J")

Outcome = object  # a result, or the exception that stands in its place


class Lane(Generic[J]):
    """`work(batch, more)` runs on the thread.

    `batch` is a list with one job; `more()` takes one that waits, if any does, and adds it.  It
    returns an outcome for each; what it raises is the outcome of all.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[J], Callable[[], J | None]], list[Outcome]],
        deliver: Callable[[list[tuple[J, Outcome]]], None],
    ) -> None:
        self._work = work
        self._deliver = deliver  # called on the loop
        self._queue: SimpleQueue[J | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: a disk that hangs must not keep a process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """In the loop that outcomes are delivered on."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def put(self, job: J) -> None:
        """Never waits."""
        self._queue.put(job)

    async def aclose(self, seconds: float) -> bool:
        """Let it finish what waits; False when it has not within `seconds`."""
        if not self._thread.is_alive():
            return True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        ended = False
        while not ended:
            job = self._queue.get()
            if job is None:
                return
            batch = [job]

            def more(batch: list[J] = batch) -> J | None:
                nonlocal ended
                if ended:
                    return None
                try:
                    job = self._queue.get_nowait()
                except Empty:
                    return None
                if job is None:
                    ended = True
                    return None
                batch.append(job)
                return job

            try:
                outcomes = self._work(batch, more)
            except BaseException as error:  # whatever it is, somebody waits for an answer
                outcomes = [error] * len(batch)
            assert self._loop is not None
            try:
                done = list(zip(batch, outcomes, strict=True))
                self._loop.call_soon_threadsafe(self._deliver, done)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


class Gate:
    """How much may wait: in all, and of one store, so that no tenant fills the queue alone."""

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._counts: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self.count = 0
        self.size = 0

    def enter(self, who: str, size: int) -> bool:
        """False when it is full, or full for `who`, who may have half of it."""
        if (
            self.count >= self._count
            or self.size + size > self._size
            or self._counts[who] >= self._count // 2
            or self._sizes[who] + size > self._size // 2
        ):
            return False
        self.count += 1
        self.size += size
        self._counts[who] += 1
        self._sizes[who] += size
        return True

    def leave(self, who: str, size: int) -> None:
        self.count -= 1
        self.size -= size
        self._counts[who] -= 1
        self._sizes[who] -= size
        if not self._counts[who]:
            del self._counts[who], self._sizes[who]

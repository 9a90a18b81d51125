"""A few threads for calls that block and cannot be stopped: DNS, building TLS contexts.

Not an executor of the standard library: those are joined when the process ends, so one name server
that never answers would hold a worker up for half a minute.  These are daemons.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TooMany(Exception):
    """As many calls wait as may wait."""


class Job(Generic[T]):
    """A call that waits for a thread, runs, or has run.  `result` is set on the loop."""

    __slots__ = ("guarded", "result", "started", "work")

    def __init__(self, work: Callable[[], T], result: asyncio.Future[T], guarded: bool) -> None:
        self.work = work
        self.result = result
        self.guarded = guarded
        self.started = False


class Lanes:
    """Runs calls on at most `count` threads, of which `reserved` never run guarded ones.

    Guarded calls are those that a guest can cause at will: however many there are, and however long
    each takes, the operator's own have a lane.  All bookkeeping is done on the loop.
    """

    def __init__(self, name: str, *, count: int, reserved: int, most_waiting: int) -> None:
        self._name = name
        self._count = count
        self._guarded_most = count - reserved
        self._most_waiting = most_waiting
        self._calls: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._free: deque[Job[object]] = deque()
        self._guarded: deque[Job[object]] = deque()
        self._running = self._running_guarded = self._threads = 0
        self._closed = False

    @property
    def running(self) -> int:
        """Calls that a thread is busy with."""
        return self._running

    def submit(self, work: Callable[[], T], *, guarded: bool) -> Job[T]:
        """Run `work` on a thread, soon.  To give up a call that has not started, cancel `result`.

        Raises TooMany at once when the line is full, or when no thread can be had at all.
        """
        line = self._guarded if guarded else self._free
        if len(line) >= self._most_waiting:
            while line and line[0].result.cancelled():
                line.popleft()
            if len(line) >= self._most_waiting:
                raise TooMany(f"{len(line)} calls wait for {self._name}")
        if self._closed:
            raise TooMany(f"{self._name} is closed")
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = Job(work, result, guarded)
        line.append(job)  # type: ignore[arg-type]  # deques are invariant; results are not mixed up
        self._dispatch()
        if not self._threads:
            line.remove(job)  # type: ignore[arg-type]
            raise TooMany(f"no thread can be started for {self._name}")
        return job

    def close(self) -> None:
        """Let the threads go; what still runs is left to end by itself, unheard."""
        self._closed = True
        for line in (self._free, self._guarded):
            for job in line:
                job.result.cancel()
            line.clear()
        for _ in range(self._threads):
            self._calls.put(None)
        self._threads = 0

    def _dispatch(self) -> None:
        while self._running < self._count:
            job = self._next()
            if job is None:
                return
            if self._running >= self._threads and not self._start_thread():
                return  # when a call ends, the next one has its thread
            (self._guarded if job.guarded else self._free).popleft()
            job.started = True
            self._running += 1
            self._running_guarded += job.guarded
            self._calls.put(job)

    def _next(self) -> Job[object] | None:
        """The next call that may run; it stays in its line."""
        for line in (self._free, self._guarded):
            if line is self._guarded and self._running_guarded >= self._guarded_most:
                continue
            while line and line[0].result.cancelled():
                line.popleft()
            if line:
                return line[0]
        return None

    def _start_thread(self) -> bool:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(
            target=self._serve, args=(loop,), name=f"edge-{self._name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # threads are exhausted
            return False
        self._threads += 1
        return True

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._calls.get()) is not None:
            outcome: object = None
            error: BaseException | None = None
            try:
                outcome = job.work()
            except BaseException as raised:  # carried to the loop, where somebody waits for it
                error = raised
            try:
                loop.call_soon_threadsafe(self._finish, job, outcome, error)
            except RuntimeError:  # the loop has been closed: nobody waits any more
                return

    def _finish(self, job: Job[object], outcome: object, error: BaseException | None) -> None:
        self._running -= 1
        self._running_guarded -= job.guarded
        if not job.result.done():
            if error is None:
                job.result.set_result(outcome)
            else:
                job.result.set_exception(error)
        if not self._closed:
            self._dispatch()

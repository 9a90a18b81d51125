"""A lane: one thread that runs the catalogue's jobs in turn, so that no loop waits for the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from edge.errors import ApiRefused, Refusal

T = TypeVar("T")

MOST_WAITING = 256  # jobs; each is a request to the control API that waits as well


class Lane:
    """Used from one event loop.  A job whose caller gave up before it began is not run."""

    def __init__(self, name: str, most: int = MOST_WAITING) -> None:
        self.waiting = 0  # jobs that are not done
        self._most = most
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._open = False
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._open = True
        self._thread.start()

    def close(self, seconds: float) -> bool:
        """Let it finish what waits; False when it has not within `seconds`.  Blocks."""
        self._open = False
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(seconds)
        return not self._thread.is_alive()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises.

        ApiRefused BUSY when too many wait, STOPPING once it is closed.
        """
        if not self._open:
            raise ApiRefused(Refusal.STOPPING, "the server stops; nothing more is stored")
        if self.waiting >= self._most:
            raise ApiRefused(
                Refusal.BUSY, f"{self.waiting} requests wait for the catalogue; try again later"
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            self.waiting -= 1
            if answer.done():  # its caller was cancelled
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]  # what `work` gave: a T

        def job() -> None:
            value, failed = None, None
            if not answer.cancelled():
                try:
                    value = work()
                except BaseException as error:  # whatever it is, somebody waits for an answer
                    failed = error
            try:
                loop.call_soon_threadsafe(settle, value, failed)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        self.waiting += 1
        self._queue.put(job)
        return await answer

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

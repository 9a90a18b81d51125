"""Changes under way: tasks that end properly even when whoever asked for them has left.

Each runs under one owner, one at a time for each service, and a bounded number in all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from edge.errors import ApiRefused, Refusal

log = logging.getLogger("edge.rollout")

T = TypeVar("T")

MOST: Final = 256  # changes under way or waiting, in all
MOST_OF_ONE: Final = 16  # of one service: the rest would wait for longer than anybody does
STOP_SECONDS: Final = 2.0  # for those that only have to finish; a compilation is not waited for


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Errands:
    """The owner of all changes.  `run` must be under way for `do` to do anything."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: dict[str, _Turn] = {}
        self._stopping = False

    async def run(self) -> None:
        """Own them until cancelled, and end them then."""
        async with asyncio.TaskGroup() as self._group:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._stopping = True
                for task in self._tasks:
                    task.cancel()

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `work()`, which goes on when the caller is cancelled.

        ApiRefused BUSY when there are too many, STOPPING when the server stops first.
        """
        if self._stopping:
            raise _stopping()
        if self._group is None:
            raise ApiRefused(Refusal.BUSY, "the server is starting; try again in a moment")
        if len(self._tasks) >= MOST:
            raise ApiRefused(Refusal.BUSY, f"{MOST} changes are under way; try again later")
        done: list[T | BaseException] = []
        task = self._group.create_task(_run(work, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: _tell_fault(done))
            raise
        if not done:
            raise _stopping()
        (outcome,) = done
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @asynccontextmanager
    async def turn(self, service_id: str) -> AsyncIterator[None]:
        """One at a time for each service, in order of arrival."""
        turn = self._turns.setdefault(service_id, _Turn())
        if turn.wanted >= MOST_OF_ONE:
            raise ApiRefused(
                Refusal.BUSY, f"{MOST_OF_ONE} changes of this service are under way; try later"
            )
        turn.wanted += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[service_id]

    @property
    def changing(self) -> frozenset[str]:
        """Ids of the services whose turn it is, or that wait for one."""
        return frozenset(self._turns)

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Take no more; let those finish that do so soon, and end the others."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:  # not for ever: one may wait for a disk that does not answer; `run` ends it
            await asyncio.wait(left, timeout=seconds)


async def _run(work: Callable[[], Awaitable[T]], done: list[T | BaseException]) -> None:
    """Never raises: one change that fails must not end its neighbours in the group."""
    try:
        done.append(await work())
    except asyncio.CancelledError:
        raise
    except Exception as error:
        done.append(error)


def _tell_fault(done: list[T | BaseException]) -> None:
    """Nobody is left to be told: a refusal is forgotten, a bug of ours is not."""
    for outcome in done:
        if isinstance(outcome, Exception) and not isinstance(outcome, ApiRefused):
            log.error("a change failed after its client had left", exc_info=outcome)


def _stopping() -> ApiRefused:
    return ApiRefused(
        Refusal.STOPPING, "the server is stopping; look at what is active when it is back"
    )

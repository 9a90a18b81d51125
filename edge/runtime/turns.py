"""Turns at something scarce, fairly: who queues much waits for the own, and nobody else does."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most so many at once.  Names that wait come one after another, each in its own order."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def locked(self) -> bool:
        """Whether the next one has to wait."""
        return self._free == 0

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """One turn."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(name)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, name: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had come just then
                self._pass_on()
            else:
                self._forget(name, turn)
            raise

    def _forget(self, name: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(name)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[name]

    def _pass_on(self) -> None:
        while self._waiting:
            name, queue = self._waiting.popitem(last=False)
            while queue:
                turn = queue.popleft()
                if turn.done():  # cancelled, and about to find that out
                    continue
                if queue:
                    self._waiting[name] = queue  # behind all others
                turn.set_result(None)
                return
        self._free += 1

"""The promise of a further client request: a guest on one side, on the other who has requests.

Neither knows the other.  Hostcalls hold a `Further`; the dispatcher is its `Giver`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol


class Source(Protocol):
    """Where a sandbox asks for a further request."""

    def ask(self, seconds: float) -> Further:
        """A promise that is kept or refused within `seconds`.  One at a time, please."""
        ...


class Giver(Protocol):
    """What a promise tells of its guest.  Each may give or refuse before it returns."""

    def watched(self) -> None:
        """The guest waits for the promise, perhaps among other things."""
        ...

    def unwatched(self) -> None:
        """It waits no more."""
        ...

    def rest(self) -> None:
        """The guest has done with its last request, and waits for the promise alone."""
        ...

    def wake(self) -> None:
        """It rests no more: there will be no request."""
        ...

    def dropped(self) -> None:
        """The guest let go of the promise.  What it was given and did not take is free again."""
        ...


class State(Enum):
    """Of a promise.  From OPEN on there is no way back."""

    OPEN = "open"
    GIVEN = "given"  # a request is there to be taken
    REFUSED = "refused"
    GONE = "gone"  # taken, or dropped


_OPEN = State.OPEN


class Further:
    """One promise.  `give` and `refuse` are the dispatcher's, everything else is the guest's."""

    __slots__ = ("_giver", "_watchers", "state")

    def __init__(self, giver: Giver | None) -> None:
        """`giver`: None for a promise that is refused at once."""
        self.state = State.REFUSED if giver is None else _OPEN
        self._giver = giver
        self._watchers: list[Callable[[], None]] = []

    # The dispatcher's side ------------------------------------------------------------------

    def give(self) -> None:
        """A request is there."""
        self._settle(State.GIVEN)

    def refuse(self) -> None:
        """There will be none; a request that was given and not taken is taken back."""
        self._settle(State.REFUSED)

    def _settle(self, state: State) -> None:
        if self.state is State.GONE:
            return
        self.state = state
        watchers, self._watchers = self._watchers, []
        for callback in watchers:
            callback()

    # The guest's side -----------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        return self.state is not _OPEN

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, at the next change."""
        self._watchers.append(callback)
        if self.state is _OPEN and self._giver is not None and len(self._watchers) == 1:
            self._giver.watched()

    def unwatch(self, callback: Callable[[], None]) -> None:
        if callback in self._watchers:
            self._watchers.remove(callback)
            if self.state is _OPEN and self._giver is not None and not self._watchers:
                self._giver.unwatched()

    async def wait(self) -> bool:
        """Rest until a request is there (True), or until there will be none."""
        giver = self._giver
        if giver is None:
            return False
        giver.rest()
        if self.state is _OPEN:
            await self._change()
        if self.state is State.GIVEN:
            self.state = State.GONE
            self._giver = None
            return True
        giver.wake()
        return False

    async def _change(self) -> None:
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not changed.done():
                changed.set_result(None)

        self._watchers.append(wake)
        await changed

    def drop(self) -> None:
        """The guest has no use for it any more.  Doing that twice does nothing."""
        self.state = State.GONE
        self._watchers.clear()
        giver, self._giver = self._giver, None
        if giver is not None:
            giver.dropped()

"""Waiting for whichever of several items is ready first.  Event-driven: nothing polls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge.abi.fastly.ready import Item, is_ready


def first_ready(items: Sequence[Item]) -> int | None:
    """Index of the first item that is ready now."""
    for index, item in enumerate(items):
        if is_ready(item):
            return index
    return None


async def wait_any(items: Sequence[Item], timeout_ms: int = 0) -> int | None:
    """Index of the first item to become ready (none is yet); None after the timeout (0: never)."""
    loop = asyncio.get_running_loop()
    selection = _Selection(items, loop.create_future())
    timer = loop.call_later(timeout_ms / 1000, selection.expire) if timeout_ms else None
    try:
        selection.watch_all()
        while True:
            await selection.changed
            selection.changed = loop.create_future()
            index = selection.look()
            if index is not None:
                return index
            if selection.expired:
                return None
    finally:
        if timer is not None:
            timer.cancel()
        selection.unwatch_all()


class _Watch:
    """What one item is given to call: it says which item that was."""

    __slots__ = ("index", "item", "selection")

    def __init__(self, selection: _Selection, index: int, item: Item) -> None:
        self.selection = selection
        self.index = index
        self.item = item

    def __call__(self) -> None:
        self.selection.fired.append(self)
        self.selection.wake()


class _Selection:
    """The items of one wait.  A change costs a look at what changed, not at all of them."""

    def __init__(self, items: Sequence[Item], changed: asyncio.Future[None]) -> None:
        self.changed = changed
        self.expired = False
        self.fired: list[_Watch] = []
        # A hostile guest may name one body ten thousand times: watch it once, in its first place.
        places: dict[int, int] = {}
        for index, item in enumerate(items):
            places.setdefault(id(item), index)
        self._watches = [_Watch(self, index, items[index]) for index in places.values()]

    def wake(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)

    def expire(self) -> None:
        self.expired = True
        self.wake()

    def watch_all(self) -> None:
        for watch in self._watches:
            watch.item.watch(watch)

    def unwatch_all(self) -> None:
        for watch in self._watches:
            watch.item.unwatch(watch)
        self._watches.clear()  # no cycle is left behind
        self.fired.clear()

    def look(self) -> int | None:
        """The lowest index of what changed and is ready; the rest is watched again."""
        fired, self.fired = self.fired, []
        ready = [watch.index for watch in fired if is_ready(watch.item)]
        if ready:
            return min(ready)
        for watch in fired:
            watch.item.watch(watch)
        return None

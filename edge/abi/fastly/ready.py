"""What a guest can wait for with `select`: the objects in `box.items`, and their readiness.

Bodies are waited for through their own `watch`; everything else in the table answers to `Waitable`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.errors import Incomplete
from edge.http.body import Body


class Waitable(Protocol):
    """A handle's object that is not a plain body."""

    @property
    def is_ready(self) -> bool:
        """True when its `..._wait` would not wait."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, at the next change."""
        ...

    def unwatch(self, callback: Callable[[], None]) -> None: ...

    def abandon(self) -> None:
        """The guest dropped the handle, or is gone."""
        ...


Item = Body | Waitable


def is_ready(item: Item) -> bool:
    """Bodies: bytes, EOF or an error; others: as they say."""
    return item.is_readable if isinstance(item, Body) else item.is_ready


class StreamingBody:
    """The write side of a body that is being sent while the guest still makes it."""

    __slots__ = ("body",)

    def __init__(self, body: Body) -> None:
        self.body = body

    @property
    def is_ready(self) -> bool:
        """True when a write would not wait."""
        return not self.body.is_full or self.body.error is not None

    def watch(self, callback: Callable[[], None]) -> None:
        self.body.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self.body.unwatch(callback)

    def abandon(self) -> None:
        """The reader must see that the message is unfinished."""
        self.body.fail(Incomplete("the guest gave up this body"))


class RequestPromise:
    """A promise of another request, already known to be empty: a sandbox serves one request."""

    __slots__ = ()

    is_ready = True

    def watch(self, callback: Callable[[], None]) -> None:
        """Nothing will ever change."""

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Nothing is watched."""

    def abandon(self) -> None:
        """Nobody else holds it."""

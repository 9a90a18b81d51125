"""What a guest can wait for with `select`: the objects in `box.items`, and their readiness.

Bodies are waited for through their own `watch`; everything else that can be is a `Waitable`.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.abi.further import Further
from edge.errors import BadHandle, Incomplete
from edge.http.body import Body


class Waitable:
    """A handle's object that a guest can wait for and that is not a plain body: a base class."""

    __slots__ = ()

    @property
    def is_ready(self) -> bool:
        """True when its `..._wait` would not wait."""
        raise NotImplementedError

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, at the next change."""
        raise NotImplementedError

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Forget a callback that `watch` was given, if it has not been called."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The guest dropped the handle, or has been ended."""

    def leave(self) -> None:
        """The guest has ended by itself, without having waited for this."""
        self.abandon()


Item = Body | Waitable


def is_ready(item: Item) -> bool:
    """Bodies: bytes, EOF or an error; others: as they say."""
    return item.is_readable if isinstance(item, Body) else item.is_ready


def waitable(item: object) -> Item:
    """Raises BadHandle for a handle that nothing can be waited for with: a head, a store."""
    if isinstance(item, Body | Waitable):
        return item
    raise BadHandle(f"a {type(item).__name__} cannot be waited for")


class StreamingBody(Waitable):
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


class RequestPromise(Waitable):
    """A promise of another client request."""

    __slots__ = ("further",)

    def __init__(self, further: Further) -> None:
        self.further = further

    @property
    def is_ready(self) -> bool:
        """True when a request is there, and when it is known that none will come."""
        return self.further.is_settled

    def watch(self, callback: Callable[[], None]) -> None:
        self.further.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self.further.unwatch(callback)

    def abandon(self) -> None:
        self.further.drop()

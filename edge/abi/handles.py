"""Handle tables: the only way a guest can name a host object."""

from __future__ import annotations

from typing import TypeVar

from edge.errors import BadHandle, LimitExceeded

T = TypeVar("T")

INVALID_HANDLE = 0xFFFF_FFFE  # abi: every kind of handle uses this one as "none"


class HandleTable(dict[int, T]):
    """Integers out, objects in; `table[handle]` raises BadHandle.  Numbers are never used twice.

    Numbers start at 1: one SDK ignores handle 0 where a handle is optional.
    """

    next = 1  # the number of the next item
    ceiling: int

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling

    def __missing__(self, handle: int) -> T:
        raise BadHandle(f"no handle {handle}")

    def insert(self, item: T) -> int:
        """Raises LimitExceeded when `ceiling` handles are open."""
        if len(self) >= self.ceiling:
            raise LimitExceeded(f"{self.ceiling} handles are open", limit="limits.handles")
        handle = self.next
        self.next = handle + 1
        self[handle] = item
        return handle

    def take(self, handle: int) -> T:
        """Remove and return: the handle is consumed."""
        item = self[handle]
        del self[handle]
        return item

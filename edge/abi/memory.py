"""Bounds-checked access to a guest's linear memory.

The window it is given may reach all of the process, so the check here is the wall: no other code
indexes the window.  A guest's memory never moves and never shrinks while its sandbox lives (the
pool reserves its whole address range), so only the size has to be asked again, and only when a
range seems not to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from edge.errors import InvalidArgument

_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")


def _no_growth() -> int:
    return 0


class GuestMemory:
    """`size` bytes at `base` of `window`; `measure` tells the size anew after a `memory.grow`.

    `window` reads (slices give bytes), `view` writes (slice assignment); both cover the same bytes.
    """

    # No slots: the engine's side has a class of its own with what all guests share.
    window: Any
    view: memoryview
    base: int
    size: int
    measure: Callable[[], int]

    def __init__(
        self,
        window: Any,
        view: memoryview,
        base: int,
        size: int,
        measure: Callable[[], int] = _no_growth,
    ) -> None:
        self.window = window
        self.view = view
        self.base = base
        self.size = size
        self.measure = measure

    def require(self, ptr: int, length: int) -> None:
        """Raise InvalidArgument unless the range lies inside.  Guest integers are unsigned here."""
        if ptr + length > self.size:
            self.size = max(self.size, self.measure())
            if ptr + length > self.size:
                raise InvalidArgument(
                    f"guest range {ptr:#x}+{length} is outside its {self.size} bytes of memory"
                )

    def read(self, ptr: int, length: int) -> bytes:
        self.require(ptr, length)
        at = self.base + ptr
        data: bytes = self.window[at : at + length]
        return data

    def write(self, ptr: int, data: bytes) -> None:
        self.require(ptr, len(data))
        at = self.base + ptr
        self.view[at : at + len(data)] = data

    def u32(self, ptr: int) -> int:
        self.require(ptr, 4)
        value: int = _U32.unpack_from(self.window, self.base + ptr)[0]
        return value

    def u64(self, ptr: int) -> int:
        self.require(ptr, 8)
        value: int = _U64.unpack_from(self.window, self.base + ptr)[0]
        return value

    def u32_list(self, ptr: int, count: int) -> tuple[int, ...]:
        self.require(ptr, 4 * count)
        return Struct(f"<{count}I").unpack_from(self.window, self.base + ptr)

    def write_u16(self, ptr: int, value: int) -> None:
        self.require(ptr, 2)
        _U16.pack_into(self.window, self.base + ptr, value)

    def write_u32(self, ptr: int, value: int) -> None:
        self.require(ptr, 4)
        _U32.pack_into(self.window, self.base + ptr, value)

    def write_u64(self, ptr: int, value: int) -> None:
        self.require(ptr, 8)
        _U64.pack_into(self.window, self.base + ptr, value)

    def close(self) -> None:
        """The guest is gone: every later access is out of bounds, not a read of freed memory."""
        self.size = 0
        self.measure = _no_growth


NO_MEMORY = GuestMemory(b"", memoryview(bytearray()), 0, 0)
"""The memory of a guest that has no instance yet: everything is out of bounds."""

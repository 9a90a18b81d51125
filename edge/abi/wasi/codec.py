"""Codecs that only WASI has: structs by value, scatter and gather lists; no calls here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edge.abi.codec import MAX_MOVE, Codec, Names, Wrapped
from edge.abi.memory import GuestMemory

# wasi-libc's IOV_MAX; entries after it are left to the guest's next call (a short write).
MAX_IOVECS = 1024


@dataclass(frozen=True, slots=True)
class Record(Codec):
    """A result that is a whole struct: the handler gives its `width` bytes."""

    width: int = 0

    def lower(self, ptr: str, value: str, names: Names) -> list[str]:
        return [f"m.write({ptr}, {value})"]


class Iovecs:
    """A list of (pointer, length) in guest memory, cut off after MAX_MOVE bytes in all.

    Every range that takes part is checked before any byte moves.
    """

    __slots__ = ("_memory", "_ranges", "total")

    def __init__(self, memory: GuestMemory, ptr: int, count: int) -> None:
        self._memory = memory
        if count == 1:  # as most calls are: 0.7 us less than the general way
            word = memory.u64(ptr)
            base, length = word & 0xFFFF_FFFF, word >> 32
            if length:
                memory.require(base, length)
            self.total = min(length, MAX_MOVE)
            self._ranges = [(base, self.total)] if length else []
            return
        words = memory.u32_list(ptr, 2 * min(count, MAX_IOVECS))
        ranges: list[tuple[int, int]] = []
        room = MAX_MOVE
        for at in range(0, len(words), 2):
            length = words[at + 1]
            if not length:
                continue
            memory.require(words[at], length)
            taken = min(room, length)
            ranges.append((words[at], taken))
            room -= taken
            if not room:
                break
        self._ranges = ranges
        self.total = MAX_MOVE - room  # bytes this call may move

    def gather(self) -> bytes:
        """Copy the bytes out of the guest."""
        read = self._memory.read
        if len(self._ranges) == 1:
            return read(*self._ranges[0])
        return b"".join([read(ptr, length) for ptr, length in self._ranges])

    def scatter(self, data: bytes) -> None:
        """Copy at most `total` bytes into the guest."""
        at = 0
        for ptr, length in self._ranges:
            if at >= len(data):
                return
            self._memory.write(ptr, data[at : at + length])
            at += length


Fdstat = Annotated[bytes, Record(24)]
Filestat = Annotated[bytes, Record(64)]
IovecList = Annotated[Iovecs, Wrapped(Iovecs, "ii")]

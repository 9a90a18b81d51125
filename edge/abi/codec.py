"""Codecs: how one Python value crosses the ABI, as source text for the trampoline generator.

A codec says which core wasm parameters it consumes (`wasm`: `i` for i32, `I` for i64) and writes
the lines that turn them into one Python value (`lift`), or that store one Python value through an
out pointer (`lower`).  Lines see `box` (the sandbox), `m` (its memory) and `w` (the window).
Interpreting codecs on each call cost 7 us; the generated lines cost about 0.1 us each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any

from edge.abi.memory import GuestMemory
from edge.errors import BadHandle, BufferTooSmall, InvalidArgument

if TYPE_CHECKING:
    from edge.abi.sandbox import Sandbox

# Names, keys, URLs: nothing legitimate is longer, and a copy of it must not take a time slice.
MAX_TEXT = 65_535
# The most a hostcall moves without suspending: about 25 us of copying.
MAX_MOVE = 256 * 1024


class Names:
    """The namespace of one generated function: `bind` gives an object a name in it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def bind(self, value: Any, hint: str) -> str:
        name = f"{hint}_{len(self.values)}"
        self.values[name] = value
        return name


class Codec:
    """One parameter or one result.  `width` is the bytes a result takes in guest memory."""

    wasm = "i"
    width = 4

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        """Lines that set `target` from the raw parameters.  They may raise HostcallError."""
        raise NotImplementedError(f"{type(self).__name__} is not a parameter")

    def lower(self, ptr: str, value: str, names: Names) -> list[str]:
        """Lines that store `value` at the checked guest address `ptr`."""
        raise NotImplementedError(f"{type(self).__name__} is not a result")


@dataclass(frozen=True, slots=True)
class Int(Codec):
    """A plain number: parameters are unsigned; `width` is 2, 4 or 8 for results."""

    wasm: str = "i"
    width: int = 4

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        return [f"{target} = {raw[0]}"]

    def lower(self, ptr: str, value: str, names: Names) -> list[str]:
        pack = names.bind(
            Struct({1: "<B", 2: "<H", 4: "<I", 8: "<Q"}[self.width]).pack_into, "pack"
        )
        return [f"{pack}(w, m.base + {ptr}, {value})"]


@dataclass(frozen=True, slots=True)
class Span(Codec):
    """Bytes copied out of the guest, at most `limit` of them; longer raises InvalidArgument."""

    limit: int = MAX_TEXT
    wasm: str = "ii"

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        ptr, length = raw
        too_long = names.bind(_too_long, "too_long")
        return [
            f"if {length} > {self.limit}: {too_long}({length}, {self.limit})",
            f"if {ptr} + {length} > m.size: m.require({ptr}, {length})",
            f"at = m.base + {ptr}",
            f"{target} = w[at : at + {length}]",
        ]


def _too_long(length: int, limit: int) -> None:
    raise InvalidArgument(f"{length} bytes where at most {limit} are allowed")


@dataclass(frozen=True, slots=True)
class Text(Span):
    """UTF-8 text."""

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        decode = names.bind(_decode, "decode")
        return [*Span.lift(self, raw, target, names), f"{target} = {decode}({target})"]


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("expected UTF-8") from None


@dataclass(frozen=True, slots=True)
class Handle(Codec):
    """A host object of exactly the class `kind`, by its number; as a result, a new number for one.

    All kinds share one table (`box.items`), so a guest that mixes them up gets BadHandle.
    """

    kind: type
    consumed: bool = False  # the call takes the handle away, even when it then fails

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        kind, other = names.bind(self.kind, "kind"), names.bind(_other_kind, "other_kind")
        lines = [
            f"{target} = box.items[{raw[0]}]",
            f"if {target}.__class__ is not {kind}: {other}({raw[0]}, {kind})",
        ]
        return [*lines, f"del box.items[{raw[0]}]"] if self.consumed else lines

    def lower(self, ptr: str, value: str, names: Names) -> list[str]:
        # `HandleTable.insert`, spelt out: the call would cost as much as the work.
        pack, full = names.bind(Struct("<I").pack_into, "pack"), names.bind(_full, "full")
        return [
            "table = box.items",
            "handle = table.next",
            # Numbers only grow: below the ceiling there cannot be more items than were paid for.
            f"if handle > table.ceiling and len(table) >= table.ceiling: {full}(box)",
            "table.next = handle + 1",
            f"table[handle] = {value}",
            f"{pack}(w, m.base + {ptr}, handle)",
        ]


def _other_kind(handle: int, kind: type) -> None:
    raise BadHandle(f"handle {handle} is not a {kind.__name__}")


def _full(box: Sandbox) -> None:
    box.make_room()


@dataclass(frozen=True, slots=True)
class Choice(Codec):
    """One of an IntEnum's values; others raise InvalidArgument."""

    values: type[IntEnum]
    width: int = 4

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        table = names.bind(_ChoiceTable(self.values), "choices")
        return [f"{target} = {table}[{raw[0]}]"]

    def lower(self, ptr: str, value: str, names: Names) -> list[str]:
        return Int(width=self.width).lower(ptr, value, names)


class _ChoiceTable(dict[int, IntEnum]):
    def __init__(self, values: type[IntEnum]) -> None:
        super().__init__({int(value): value for value in values})
        self._name = values.__name__

    def __missing__(self, number: int) -> IntEnum:
        raise InvalidArgument(f"{number} is not a {self._name}")


@dataclass(frozen=True, slots=True)
class Bits(Codec):
    """A flags word; bits outside `known` raise InvalidArgument."""

    known: int

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        unknown = names.bind(_unknown_bits, "unknown_bits")
        return [f"{target} = {raw[0]}", f"if {target} & {~self.known}: {unknown}({target})"]


def _unknown_bits(word: int) -> None:
    raise InvalidArgument(f"reserved or unknown bits in {word:#x}")


class Region:
    """A range of guest memory that a handler reads or writes piece by piece (already checked)."""

    __slots__ = ("_mem", "_ptr", "length")

    def __init__(self, mem: GuestMemory, ptr: int, length: int) -> None:
        mem.require(ptr, length)
        self._mem, self._ptr, self.length = mem, ptr, length

    def read(self, offset: int, count: int) -> bytes:
        """At most MAX_MOVE bytes a turn, please: callers suspend between pieces."""
        return self._mem.read(self._ptr + offset, min(count, self.length - offset))

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self.length:
            raise InvalidArgument("write past the guest's buffer")
        self._mem.write(self._ptr + offset, data)


@dataclass(frozen=True, slots=True)
class Bulk(Codec):
    """Bytes of any length: copied at once when they are few, otherwise a Region to go through."""

    wasm: str = "ii"

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        ptr, length = raw
        region = names.bind(Region, "Region")
        return [
            f"if {length} > {MAX_MOVE}: {target} = {region}(m, {ptr}, {length})",
            "else:",
            f"    if {ptr} + {length} > m.size: m.require({ptr}, {length})",
            f"    at = m.base + {ptr}",
            f"    {target} = w[at : at + {length}]",
        ]


class OutBuffer:
    """A guest buffer: pointer, capacity, and where the size goes.  Holds the ABI's etiquette."""

    __slots__ = ("_cap", "_mem", "_nwritten", "_ptr")

    def __init__(self, mem: GuestMemory, ptr: int, cap: int, nwritten: int) -> None:
        self._mem, self._ptr, self._cap, self._nwritten = mem, ptr, cap, nwritten

    def fill(self, data: bytes) -> None:
        """Copy `data` out whole, or write the size it needs and raise BufferTooSmall."""
        mem = self._mem
        if len(data) > self._cap:
            mem.write_u32(self._nwritten, len(data))
            raise BufferTooSmall(f"{len(data)} bytes, the guest offered {self._cap}")
        mem.require(self._nwritten, 4)
        mem.write(self._ptr, data)
        mem.write_u32(self._nwritten, len(data))


class OutValues:
    """A guest buffer filled with NUL-ended values, resumable by cursor (ABI page, section 2)."""

    __slots__ = ("_cap", "_cursor", "_end", "_mem", "_nwritten", "_ptr")

    def __init__(
        self, mem: GuestMemory, ptr: int, cap: int, cursor: int, end: int, nwritten: int
    ) -> None:
        self._mem, self._ptr, self._cap = mem, ptr, cap
        self._cursor, self._end, self._nwritten = cursor, end, nwritten

    def fill(self, values: Sequence[bytes]) -> None:
        """As many whole values as fit; BufferTooSmall with the first one's size if none does."""
        mem, cursor, room = self._mem, self._cursor, self._cap
        page: list[bytes] = []
        while cursor < len(values) and len(values[cursor]) + 1 <= room:
            page.append(values[cursor] + b"\0")
            room -= len(page[-1])
            cursor += 1
        if not page and cursor < len(values):
            self._finish(len(values[cursor]) + 1, -1)
            raise BufferTooSmall(f"{len(values[cursor]) + 1} bytes, the guest offered {self._cap}")
        mem.write(self._ptr, b"".join(page))
        self._finish(self._cap - room, -1 if cursor >= len(values) else cursor)

    def _finish(self, written: int, end: int) -> None:
        if self._end:  # a null pointer means: do not tell me
            self._mem.write_u64(self._end, end & 0xFFFF_FFFF_FFFF_FFFF)
        self._mem.write_u32(self._nwritten, written)


class OutArray:
    """A guest buffer without a size pointer: the call returns the count itself."""

    __slots__ = ("_cap", "_mem", "_ptr")

    def __init__(self, mem: GuestMemory, ptr: int, cap: int) -> None:
        self._mem, self._ptr, self._cap = mem, ptr, cap

    @property
    def capacity(self) -> int:
        return self._cap

    def fill(self, data: bytes) -> int:
        """Copy out and return the count; BufferTooSmall (telling no size) if it does not fit."""
        if len(data) > self._cap:
            raise BufferTooSmall(f"{len(data)} bytes, the guest offered {self._cap}")
        self._mem.write(self._ptr, data)
        return len(data)


@dataclass(frozen=True, slots=True)
class Wrapped(Codec):
    """Raw parameters handed to a small class along with the memory: `cls(m, *raw, *extra)`."""

    cls: type
    wasm: str
    extra: tuple[int, ...] = ()

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        cls = names.bind(self.cls, self.cls.__name__)
        extra = "".join(f", {value}" for value in self.extra)
        return [f"{target} = {cls}(m, {', '.join(raw)}{extra})"]


@dataclass(frozen=True, slots=True)
class U32List(Codec):
    """`list<handle>`: the length counts elements of four bytes.  At most 10,000 of them."""

    wasm: str = "ii"

    def lift(self, raw: Sequence[str], target: str, names: Names) -> list[str]:
        ptr, count = raw
        too_long = names.bind(_too_long, "too_long")
        return [
            f"if {count} > 10000: {too_long}({count}, 10000)",
            f"{target} = m.u32_list({ptr}, {count})",
        ]


U16 = Annotated[int, Int(width=2)]
U32 = Annotated[int, Int()]
U64 = Annotated[int, Int(wasm="I", width=8)]  # parameter: i64; result: 8 bytes
Bytes = Annotated[bytes, Span()]
Str = Annotated[str, Text()]
Input = Annotated[Region, Wrapped(Region, "ii")]  # read in pieces
Data = Annotated[bytes | Region, Bulk()]  # bytes up to MAX_MOVE, a Region above
Output = Annotated[Region, Wrapped(Region, "ii")]  # written in pieces
Out = Annotated[OutBuffer, Wrapped(OutBuffer, "iii")]
OutList = Annotated[OutValues, Wrapped(OutValues, "iiiii")]
OutBytes = Annotated[OutArray, Wrapped(OutArray, "ii")]
OutOctets = Annotated[OutArray, Wrapped(OutArray, "i", (16,))]  # an address: 16 bytes by contract
Handles = Annotated[tuple[int, ...], U32List()]

"""Has a module count the growth that the engine refuses it.  It changes nothing else it does.

The engine answers -1 to a refused `memory.grow` or `table.grow` and tells nobody, so that a guest
which then gives up looks like any other trap.  Each such instruction becomes a call of an added
function that does it and counts refusals in an added, exported, mutable i32 global.

Added types, functions, globals and exports come last in their index spaces: nothing is renumbered.
A guest cannot reach them, because its module was validated before they existed, and a module that
exports their names is refused (`edge.runtime.inspect`).  Growth beyond a maximum that the module
itself declares is not counted: no limit of ours would have allowed it.

Only bodies that hold the bytes of a growing instruction are read: 39 of the 13,851 in an 11.5 MB
JavaScript service, which takes 80 ms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edge.runtime.instructions import find_grows, read_number
from edge.runtime.sections import Kind, MalformedModule, Sections, read_sections

MEMORY_REFUSALS: Final = "edge:memory-refusals"
TABLE_REFUSALS: Final = "edge:table-refusals"
# Exports by these names are ours.
RESERVED_EXPORTS: Final = frozenset({MEMORY_REFUSALS, TABLE_REFUSALS})

_CUSTOM, _TYPE, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _CODE = 0, 1, 3, 4, 5, 6, 7, 10
# Section numbers in the order in which sections come (5.5.2; 13 is tags, 12 the data count).
_ORDER: Final = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
_I32: Final = b"\x7f"
_GLOBAL_KIND: Final = b"\x03"
_COUNTER: Final = _I32 + b"\x01\x41\x00\x0b"  # mutable, initially i32.const 0

# The bytes of memory.grow and table.grow, the second with the padding an LEB128 may have.
# The index in memory.grow cannot be padded without multi-memory.
_SUSPECT: Final = re.compile(rb"\x40\x00|\xfc(?:\x0f|\x8f\x80{0,3}\x00)")


@dataclass(slots=True)
class _Section:
    """A section: its number and its content as a range of the module or, once changed, as bytes."""

    number: int
    start: int
    end: int
    changed: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Growable:
    """What a memory or table declares: its element type (empty for memory) and its maximum."""

    element: bytes
    maximum: int | None


def count_refusals(wasm: bytes) -> bytes:
    """The validated core module `wasm`, with counters of refused growth.

    It exports MEMORY_REFUSALS and, where it grows a table, TABLE_REFUSALS.  Raises MalformedModule
    when it holds what validation should have refused, or grows an imported table: such a module
    can only be compiled as it is, and `edge.runtime.endings` then goes by its memory's size.
    """
    try:
        return _Rewriter(wasm, read_sections(wasm)).rewrite()
    except IndexError:
        raise MalformedModule("ends early") from None


class _Rewriter:
    """One module on its way through; `calls` maps a table's index, or None, to the new function."""

    def __init__(self, wasm: bytes, found: Sections) -> None:
        self._wasm = wasm
        self._sections = _split(wasm)
        kinds = [item.kind for item in found.imports]
        self._functions = kinds.count(Kind.FUNCTION) + self._count(_FUNCTION)
        self._globals = kinds.count(Kind.GLOBAL) + self._count(_GLOBAL)
        self._imported_tables = kinds.count(Kind.TABLE)
        self._calls: dict[int | None, int] = {}

    def rewrite(self) -> bytes:
        self._replace_grows()
        if self._calls:
            self._add_functions()
        names = [MEMORY_REFUSALS]
        if any(table is not None for table in self._calls):
            names.append(TABLE_REFUSALS)
        exports = [
            _name(name) + _GLOBAL_KIND + number(self._globals + at) for at, name in enumerate(names)
        ]
        self._append(_GLOBAL, [_COUNTER] * len(names))
        self._append(_EXPORT, exports)
        pieces = [self._wasm[:8]]
        for section in self._sections:
            content = section.changed
            if content is None:
                content = self._wasm[section.start : section.end]
            pieces += (bytes([section.number]), number(len(content)), content)
        return b"".join(pieces)

    def _replace_grows(self) -> None:
        """Put calls in the place of growing instructions, and new sizes before their bodies."""
        code, wasm = self._find(_CODE), self._wasm
        if code is None:
            return
        pieces: list[bytes] = []
        bodies, at = read_number(wasm, code.start)
        copied = at
        suspect = _next_suspect(wasm, at, code.end)
        for _ in range(bodies):
            if suspect >= code.end:
                break  # nothing in the bodies that are left
            head = at
            size, start = read_number(wasm, head)
            at = start + size
            if suspect >= at:
                continue
            body = self._replaced(start, at)
            if body is not None:
                pieces += (wasm[copied:head], number(len(body)), body)
                copied = at
            suspect = _next_suspect(wasm, at, code.end)
        if pieces:
            pieces.append(wasm[copied : code.end])
            code.changed = number(bodies) + b"".join(pieces)

    def _replaced(self, start: int, end: int) -> bytes | None:
        """The body from `start` to `end` with calls; None when it does not grow anything."""
        grows = find_grows(self._wasm, start, end)
        if not grows:
            return None
        pieces: list[bytes] = []
        for grow in grows:
            index = self._calls.setdefault(grow.table, self._functions + len(self._calls))
            pieces += (self._wasm[start : grow.start], b"\x10", number(index))
            start = grow.end
        pieces.append(self._wasm[start:end])
        return b"".join(pieces)

    def _add_functions(self) -> None:
        memories, tables = self._growables(_MEMORY), self._growables(_TABLE)
        types: list[bytes] = []
        functions: list[bytes] = []
        bodies: list[bytes] = []
        for table in self._calls:
            if table is None:
                # Without an own memory section the memory is imported; its maximum is its owner's.
                thing = memories[0] if memories else _Growable(b"", None)
                body = _counting(b"\x40\x00", b"\x3f\x00", thing, self._globals)
            elif table < self._imported_tables:
                raise MalformedModule(f"grows table {table}, which is imported")
            else:
                thing, index = tables[table - self._imported_tables], number(table)
                body = _counting(b"\xfc\x0f" + index, b"\xfc\x10" + index, thing, self._globals + 1)
            params = thing.element + _I32
            functions.append(number(self._count(_TYPE) + len(types)))
            types.append(b"\x60" + number(len(params)) + params + b"\x01" + _I32)
            bodies.append(number(len(body)) + body)
        self._append(_TYPE, types)
        self._append(_FUNCTION, functions)
        self._append(_CODE, bodies)

    def _growables(self, which: int) -> list[_Growable]:
        section, wasm = self._find(which), self._wasm
        if section is None:
            return []
        found = []
        count, at = read_number(wasm, section.start)
        for _ in range(count):
            element = b""
            if which == _TABLE:
                element = wasm[at : at + 1]
                at += 1
            bounded = wasm[at] == 1
            _, at = read_number(wasm, at + 1)
            maximum = None
            if bounded:
                maximum, at = read_number(wasm, at)
            found.append(_Growable(element, maximum))
        return found

    def _find(self, which: int) -> _Section | None:
        return next((section for section in self._sections if section.number == which), None)

    def _count(self, which: int) -> int:
        """How many entries a section has in the original."""
        section = self._find(which)
        return read_number(self._wasm, section.start)[0] if section else 0

    def _append(self, which: int, entries: list[bytes]) -> None:
        """Add entries to the end of a section, which is made where it is missing."""
        section = self._find(which)
        if section is None:
            section = _Section(which, 0, 0, b"\x00")
            later = _ORDER[_ORDER.index(which) :]
            places = (at for at, other in enumerate(self._sections) if other.number in later)
            self._sections.insert(next(places, len(self._sections)), section)
        content = section.changed
        if content is None:
            content = self._wasm[section.start : section.end]
        count, at = read_number(content, 0)
        section.changed = number(count + len(entries)) + content[at:] + b"".join(entries)


def _split(wasm: bytes) -> list[_Section]:
    sections, at = [], 8
    while at < len(wasm):
        size, start = read_number(wasm, at + 1)
        sections.append(_Section(wasm[at], start, start + size))
        at = start + size
    return sections


def _next_suspect(wasm: bytes, at: int, end: int) -> int:
    match = _SUSPECT.search(wasm, at, end)
    return match.start() if match else end


def _counting(grow: bytes, size: bytes, thing: _Growable, counter: int) -> bytes:
    """The body of a function that does `grow` and adds 1 to a global when it is refused.

    The count wraps after 2**32 refusals, by which a guest could only hide its own fault.
    """
    delta, result = (b"\1", b"\2") if thing.element else (b"\0", b"\1")
    at = number(counter)
    count = b"\x23" + at + b"\x41\x01\x6a\x24" + at  # global.get; i32.const 1; i32.add; global.set
    if thing.maximum is not None:
        # Only when maximum - size >= delta: then the module's own maximum was not the reason.
        room = b"\x41" + _signed(thing.maximum) + size + b"\x6b"  # i32.const; size; i32.sub
        count = b"\x20" + delta + room + b"\x4d\x04\x40" + count + b"\x0b"  # i32.le_u; if; end
    return b"".join(
        (
            b"\x01\x01" + _I32,  # one local: the result
            b"\x20\x00" if thing.element else b"",  # what to fill the table with
            b"\x20" + delta + grow + b"\x22" + result,  # local.get; the growth; local.tee
            b"\x41\x7f\x46\x04\x40" + count + b"\x0b",  # i32.const -1; i32.eq; if; end
            b"\x20" + result + b"\x0b",  # local.get; end
        )
    )


def _name(text: str) -> bytes:
    return number(len(text.encode())) + text.encode()


def number(value: int) -> bytes:
    """The shortest unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    """A u32 as the LEB128 of the i32 with the same bits."""
    value -= (value & 0x8000_0000) << 1
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)

"""Finds the growing instructions in a validated function body.  It decodes nothing else.

The grammar below is exactly what the engine's allow list lets through: MVP, sign extension,
saturating conversions, bulk memory, reference types, multi-value, SIMD, tail calls.  Instructions
are told apart by their first byte and then only measured, by one regular expression that takes a
run of them at a time: about 40 MB/s, where a loop in Python makes 2.  Core specification, 5.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.runtime.sections import MalformedModule

_BR_TABLE, _SELECT_TYPED, _MEMORY_GROW, _MISCELLANEOUS, _TABLE_GROW = 0x0E, 0x1C, 0x40, 0xFC, 15
_LONG_REFERENCES: Final = (0x63, 0x64)  # `(ref null? heap)` spelled out, which the engine accepts
_CONTINUED: Final = bytes(range(0x80, 0x100))


@dataclass(frozen=True, slots=True)
class Grow:
    """One growing instruction, the bytes `start` to `end`; `table` is None for memory.grow."""

    start: int
    end: int
    table: int | None


def read_number(wasm: bytes, at: int) -> tuple[int, int]:
    """The unsigned LEB128 at `at`, and where it ends (5.2.2).  IndexError past the end."""
    value = shift = 0
    while True:
        byte = wasm[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def find_grows(wasm: bytes, at: int, end: int) -> list[Grow]:
    """Growing instructions of the body between `at` (its locals) and `end`, in order.

    Raises MalformedModule for an instruction that the engine should have refused.
    """
    grows: list[Grow] = []
    at = _skip_locals(wasm, at)
    while at < end:
        run = _RUN.match(wasm, at, end)
        if run is not None:
            at = run.end()
            continue
        start, opcode = at, wasm[at]
        at += 1
        if opcode == _MEMORY_GROW:
            _, at = read_number(wasm, at)
            grows.append(Grow(start, at, None))
        elif opcode == _BR_TABLE:
            labels, at = read_number(wasm, at)
            at = _skip_numbers(wasm, at, labels + 1)
        elif opcode == _SELECT_TYPED:
            count, at = read_number(wasm, at)
            for _ in range(count):
                at = _skip_type(wasm, at)
        elif opcode == _MISCELLANEOUS:
            operation, at = read_number(wasm, at)
            if operation != _TABLE_GROW:
                raise MalformedModule(f"instruction 0xfc {operation} at byte {start}")
            table, at = read_number(wasm, at)
            grows.append(Grow(start, at, table))
        else:
            raise MalformedModule(f"instruction {opcode:#x} at byte {start}")
    if at != end:
        raise MalformedModule(f"an instruction that passes the end of its function, byte {end}")
    return grows


def _skip_locals(wasm: bytes, at: int) -> int:
    groups, at = read_number(wasm, at)
    for _ in range(groups):
        _, at = read_number(wasm, at)
        at = _skip_type(wasm, at)
    return at


def _skip_type(wasm: bytes, at: int) -> int:
    return _skip_numbers(wasm, at + 1, 1) if wasm[at] in _LONG_REFERENCES else at + 1


def _skip_numbers(wasm: bytes, at: int, count: int) -> int:
    """Skip `count` LEB128s at the speed of C: a jump table may hold millions."""
    while count:
        chunk = wasm[at : at + count]
        if not chunk:
            raise MalformedModule(f"ends early at byte {at}")
        at += len(chunk)
        count -= len(chunk.translate(None, _CONTINUED))  # as many have ended
    return at


# The grammar -------------------------------------------------------------------------------------

_NUMBER = rb"[\x80-\xff]{0,9}[\x00-\x7f]"


def _any_of(*values: int | range) -> bytes:
    """A character class."""
    single = sorted(v for value in values for v in ([value] if isinstance(value, int) else value))
    return b"[" + b"".join(re.escape(bytes([value])) for value in single) + b"]"


def _operation(*values: int | range) -> bytes:
    """The second opcode behind a prefix: an LEB128, which the engine also takes padded to 5 bytes.

    Values below 256.
    """
    flat = [v for value in values for v in ([value] if isinstance(value, int) else value)]
    low, high = [v for v in flat if v < 0x80], [v for v in flat if v >= 0x80]
    forms = []
    if low:
        padded = _any_of(*(v | 0x80 for v in low))
        forms += [_any_of(*low), padded + rb"\x80{0,3}\x00"]
    if high:
        forms += [_any_of(*high) + rb"(?:\x01|\x81\x80{0,2}\x00)"]
    return b"(?:" + b"|".join(forms) + b")"


def _instructions() -> Iterable[bytes]:
    # First bytes differ, so that nothing is ever tried twice; most frequent first.
    yield _any_of(range(0x20, 0x27), 0x41, 0x42, 0x0C, 0x0D, 0x10, 0x12, 0x3F, 0xD0, 0xD2) + _NUMBER
    yield _any_of(0, 1, 5, 0x0B, 0x0F, 0x1A, 0x1B, range(0x45, 0xC5), 0xD1)
    yield _any_of(range(0x28, 0x3F), 0x11, 0x13) + _NUMBER * 2  # memarg; type and table
    # A block type: a number, as single-byte value types are, or a reference spelled out.
    yield _any_of(2, 3, 4) + b"(?:" + _any_of(*_LONG_REFERENCES) + b")?" + _NUMBER
    yield rb"\x43.{4}"
    yield rb"\x44.{8}"
    miscellaneous = (
        _operation(range(8)),
        _operation(9, 11, 13, 16, 17) + _NUMBER,
        _operation(8, 10, 12, 14) + _NUMBER * 2,
    )
    yield rb"\xfc(?:" + b"|".join(miscellaneous) + b")"
    vector = (
        _operation(range(14, 21), range(35, 84), range(94, 256)),
        _operation(range(12), 92, 93) + _NUMBER * 2,  # loads and stores
        _operation(12, 13) + b".{16}",  # constant, shuffle
        _operation(range(21, 35)) + b".",  # a lane
        _operation(range(84, 92)) + _NUMBER * 2 + b".",  # loads and stores of a lane
    )
    yield rb"\xfd(?:" + b"|".join(vector) + b")"


# A bounded run: the expression keeps a record of every repetition until it is done.
_RUN: Final = re.compile(b"(?:" + b"|".join(_instructions()) + b"){1,256}", re.DOTALL)

"""Reads the sections of a core module that say what it needs and offers.  It validates nothing.

The engine has accepted the module before this reads it, so anything odd found here is a bug of ours
or of the engine's, and `MalformedModule` says which byte.  Code and data are skipped unread: an
11.5 MB module takes under a millisecond.  Core specification, chapter 5 (binary format).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

MAGIC: Final = b"\0asm"
CORE_VERSION: Final = b"\1\0\0\0"
PAGE: Final = 64 * 1024

_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _EXPORT, _START = 1, 2, 3, 4, 5, 7, 8
_VALUE_TYPES: Final = {
    0x7F: "i",  # i32
    0x7E: "I",  # i64
    0x7D: "f",  # f32
    0x7C: "F",  # f64
    0x7B: "V",  # v128
    0x70: "r",  # funcref
    0x6F: "e",  # externref
    0x69: "x",  # exnref
}


class MalformedModule(ValueError):
    """The bytes end early or hold something that validation should have refused."""


class Kind(Enum):
    """What an import or export is."""

    FUNCTION = "function"
    TABLE = "table"
    MEMORY = "memory"
    GLOBAL = "global"
    TAG = "tag"


_KINDS: Final = tuple(Kind)


@dataclass(frozen=True, slots=True)
class Import:
    """One import.  `signature` is letters, such as `iiI->i`, and empty unless it is a function."""

    module: str
    name: str
    kind: Kind
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """One export.  `signature` as in `Import`."""

    name: str
    kind: Kind
    signature: str = ""


@dataclass(slots=True)
class Sections:
    """What was found.  Sizes: memories in bytes, tables in elements; minima, imports included."""

    imports: list[Import] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    memories: list[int] = field(default_factory=list)
    memory_maxima: list[int | None] = field(default_factory=list)  # as declared, if it is
    tables: list[int] = field(default_factory=list)
    start: bool = False


def read_sections(wasm: bytes) -> Sections:
    """Sections of a valid core module.  Raises MalformedModule."""
    if wasm[:8] != MAGIC + CORE_VERSION:
        raise MalformedModule("not a core module of version 1")
    return _Reader(wasm).read()


class _Reader:
    """A cursor over the bytes, and the index spaces that exports refer to."""

    def __init__(self, wasm: bytes) -> None:
        self._wasm = wasm
        self._at = 8
        self._end = len(wasm)
        self._types: list[str] = []
        self._functions: list[int] = []  # type of each function
        self._found = Sections()

    def read(self) -> Sections:
        readers = {
            _TYPE: self._type,
            _IMPORT: self._import,
            _FUNCTION: self._function,
            _TABLE: self._table,
            _MEMORY: self._memory,
            _EXPORT: self._export,
        }
        while self._at < len(self._wasm):
            self._end = len(self._wasm)
            section = self._byte()
            self._end = self._number() + self._at  # evaluated left to right: size, then where
            if self._end > len(self._wasm):
                raise MalformedModule(f"section {section} ends after the module does")
            if section == _START:
                self._found.start = True
            elif section in readers:
                for _ in range(self._number()):
                    readers[section]()
            self._at = self._end
        return self._found

    # Sections ------------------------------------------------------------------------------

    def _type(self) -> None:
        form = self._byte()
        if form != 0x60:
            raise MalformedModule(f"type form {form:#x} at byte {self._at - 1}")
        params = "".join(self._value_type() for _ in range(self._number()))
        results = "".join(self._value_type() for _ in range(self._number()))
        self._types.append(f"{params}->{results}")

    def _import(self) -> None:
        module, name, kind = self._name(), self._name(), self._kind()
        signature = ""
        match kind:
            case Kind.FUNCTION:
                index = self._number()
                self._functions.append(index)
                signature = self._signature_of_type(index)
            case Kind.TABLE:
                self._table()
            case Kind.MEMORY:
                self._memory()
            case Kind.GLOBAL:
                self._value_type()
                self._byte()
            case Kind.TAG:
                self._byte()
                self._number()
        self._found.imports.append(Import(module, name, kind, signature))

    def _function(self) -> None:
        self._functions.append(self._number())

    def _table(self) -> None:
        self._value_type()
        least, _ = self._limits()
        self._found.tables.append(least)

    def _memory(self) -> None:
        least, most = self._limits()
        self._found.memories.append(least * PAGE)
        self._found.memory_maxima.append(None if most is None else most * PAGE)

    def _export(self) -> None:
        name, kind, index = self._name(), self._kind(), self._number()
        signature = ""
        if kind is Kind.FUNCTION:
            if index >= len(self._functions):
                raise MalformedModule(f"export {name!r} of function {index}, which is not there")
            signature = self._signature_of_type(self._functions[index])
        self._found.exports.append(Export(name, kind, signature))

    # Pieces --------------------------------------------------------------------------------

    def _signature_of_type(self, index: int) -> str:
        if index >= len(self._types):
            raise MalformedModule(f"type {index} of {len(self._types)}")
        return self._types[index]

    def _limits(self) -> tuple[int, int | None]:
        flags = self._byte()
        if flags > 1:
            raise MalformedModule(f"limits with flags {flags:#x} at byte {self._at - 1}")
        least = self._number()
        return least, self._number() if flags else None

    def _value_type(self) -> str:
        byte = self._byte()
        if byte not in _VALUE_TYPES:
            raise MalformedModule(f"value type {byte:#x} at byte {self._at - 1}")
        return _VALUE_TYPES[byte]

    def _kind(self) -> Kind:
        byte = self._byte()
        if byte >= len(_KINDS):
            raise MalformedModule(f"external kind {byte:#x} at byte {self._at - 1}")
        return _KINDS[byte]

    def _name(self) -> str:
        size = self._number()
        if size > self._end - self._at:
            raise MalformedModule(f"a name of {size} bytes at byte {self._at}")
        raw = self._wasm[self._at : self._at + size]
        self._at += size
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MalformedModule(f"a name that is not UTF-8 before byte {self._at}") from None

    def _byte(self) -> int:
        if self._at >= self._end:
            raise MalformedModule(f"ends early at byte {self._at}")
        self._at += 1
        return self._wasm[self._at - 1]

    def _number(self) -> int:
        """An unsigned LEB128 of at most 32 bits (5.2.2)."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise MalformedModule(f"a number of more than 32 bits before byte {self._at}")

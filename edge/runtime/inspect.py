"""What a compiled module needs and offers, and the rules by which we refuse to load one.

Pure: no engine, no files.  The compile child makes a `ModuleInfo`, the supervisor checks it against
the limits of a service and the hostcalls that we have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edge.errors import ModuleRefused
from edge.runtime.rewrite import RESERVED_EXPORTS
from edge.runtime.sections import (
    CORE_VERSION,
    MAGIC,
    Import,
    Kind,
    MalformedModule,
    read_sections,
)

START: Final = "_start"
REACTOR_START: Final = "_initialize"
MEMORY: Final = "memory"
MAX_TABLES: Final = 1  # the instance pool holds one table per sandbox
MAX_EXPORTS: Final = 200  # that are told of; a guest needs two
MAX_REASON: Final = 16_384  # characters of one refusal; names come from the module

# The second four bytes of a binary: the version, then the layer; 1 is a component
# (component model, Binary.md).
_COMPONENT_LAYER: Final = b"\1\0"

_WORDS: Final = {
    "i": "i32", "I": "i64", "f": "f32", "F": "f64", "V": "v128", "r": "funcref", "e": "externref",
    "x": "exnref",
}  # fmt: skip

# What the engine's validator says, and the name under which its users know the feature.  The first
# match wins: messages about tables name memory64, and those about exception types name references.
_FEATURES: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"shared-everything", "shared-everything threads"),
        (r"shared memories", "shared memory (threads)"),
        (r"threads", "threads (atomic instructions)"),
        (r"64-bit tables", "memory64 (64-bit tables)"),
        (r"memory64|64-bit memor", "memory64 (64-bit memories)"),
        (r"multiple memories|multi-memory", "multi-memory (more than one memory)"),
        (r"exception|exnref", "exception handling"),
        (r"continuation|stack switching", "stack switching"),
        (r"custom page sizes|page size", "custom page sizes"),
        (r"wide arithmetic", "wide arithmetic"),
        (r"relaxed SIMD", "relaxed SIMD"),
        (r"memory control", "memory control"),
        (r"function[- ]references", "function references"),
        (r"\bgc\b|heap types", "garbage collection (GC types)"),
        (r"compact imports", "compact imports"),
        (r"component model", "the component model"),
    )
)
_LOCATION: Final = re.compile(r"\s*\(at offset 0x([0-9a-f]+)\)")
_MISSING_FEATURE: Final = re.compile(
    r"not enabled|not supported without|must be enabled|required? (for|the)|is disabled|disallowed|"
    r"feature required|multiple memories|proposal disabled|requires .* proposal"
)


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """The facts of one core module.  `sha256` is that of the file as given, text or binary."""

    sha256: str
    size: int  # bytes as given
    family: str  # "fastly" or "wasi", by its imports
    imports: tuple[Import, ...]
    memory_bytes: int  # minimum of the exported memory
    tables: tuple[int, ...]  # minimum elements of each
    start_function: bool  # guest code runs while it is instantiated
    memory_max_bytes: int | None = None  # that it declares
    exports: tuple[str, ...] = ()  # names, the first so many

    def to_plain(self) -> dict[str, object]:
        """Plain types for JSON."""
        return {
            "sha256": self.sha256,
            "size": self.size,
            "family": self.family,
            "imports": [[i.module, i.name, i.kind.value, i.signature] for i in self.imports],
            "memory_bytes": self.memory_bytes,
            "tables": list(self.tables),
            "start_function": self.start_function,
            "memory_max_bytes": self.memory_max_bytes,
            "exports": list(self.exports),
        }

    @classmethod
    def from_plain(cls, data: object) -> ModuleInfo:
        """Read what `to_plain` made; ValueError for anything else, for it may come from a child."""
        if not isinstance(data, dict) or not isinstance(data.get("imports"), list):
            raise ValueError("module info: not an object with a list of imports")
        return cls(
            sha256=_text(data, "sha256"),
            size=_count(data, "size"),
            family=_text(data, "family"),
            imports=tuple(_import(item) for item in data["imports"]),
            memory_bytes=_count(data, "memory_bytes"),
            tables=tuple(_tables(data.get("tables"))),
            start_function=data.get("start_function") is True,
            memory_max_bytes=(
                None if data.get("memory_max_bytes") is None else _count(data, "memory_max_bytes")
            ),
            exports=tuple(_names(data.get("exports"))),
        )


def recognise(data: bytes, *, max_bytes: int) -> bool:
    """True for a binary core module, False for text; raises ModuleRefused for anything else."""
    if not data:
        raise ModuleRefused("the file is empty")
    if len(data) > max_bytes:
        raise ModuleRefused(f"the file has {len(data)} bytes; at most {max_bytes} are taken")
    if data[:4] == MAGIC:
        if len(data) < 8:
            raise ModuleRefused(
                f"truncated: a module has a header of 8 bytes, this has {len(data)}"
            )
        if data[6:8] == _COMPONENT_LAYER:
            raise ModuleRefused(
                "this is a WebAssembly component; only core modules are served: build for "
                "wasm32-wasip1 (WASI preview 1) or for Fastly Compute"
            )
        if data[4:8] != CORE_VERSION:
            raise ModuleRefused(
                f"unknown WebAssembly version {int.from_bytes(data[4:8], 'little')}"
            )
        return True
    if MAGIC.startswith(data[:4]):
        raise ModuleRefused(f"truncated: a module has a header of 8 bytes, this has {len(data)}")
    # The text format begins with a parenthesis or a comment (core specification, chapter 6).
    if data.lstrip()[:1] == b"(" or data.lstrip()[:2] == b";;":
        return False
    raise ModuleRefused(
        "neither WebAssembly (which begins with 00 61 73 6d) nor its text format; it begins with "
        + data[:8].hex(" ")
    )


def inspect(wasm: bytes, *, sha256: str, size: int) -> ModuleInfo:
    """Facts of a validated binary.  Raises ModuleRefused when it is no program for us."""
    try:
        found = read_sections(wasm)
    except MalformedModule as error:
        raise ModuleRefused(f"cannot be read: {one_line(str(error))}") from error
    exports = {export.name: export for export in found.exports}
    reserved = sorted(RESERVED_EXPORTS.intersection(exports))
    if reserved:
        raise ModuleRefused(
            f"exports {reserved[0]}, a name that this server adds itself: rename it"
        )
    start, memory = exports.get(START), exports.get(MEMORY)
    if start is None and REACTOR_START in exports:
        raise ModuleRefused(
            f"a reactor: it exports {REACTOR_START} and no {START}; build it as a command "
            "(a program with main)"
        )
    if start is None or start.kind is not Kind.FUNCTION:
        raise ModuleRefused(f"exports no function {START}; build it as a program, not a library")
    if start.signature != "->":
        raise ModuleRefused(f"{START} is {spell(start.signature)}, but must be {spell('->')}")
    if memory is None or memory.kind is not Kind.MEMORY:
        raise ModuleRefused(f"exports no memory under the name {MEMORY}")
    return ModuleInfo(
        sha256=sha256,
        size=size,
        family=guess_family(found.imports),
        imports=tuple(found.imports),
        memory_bytes=found.memories[0],
        tables=tuple(found.tables),
        start_function=found.start,
        memory_max_bytes=found.memory_maxima[0],
        exports=tuple(one_line(export.name) for export in found.exports[:MAX_EXPORTS]),
    )


def guess_family(imports: Iterable[Import]) -> str:
    """`fastly` when anything of that interface is imported, else `wasi`."""
    for item in imports:
        if item.module.startswith("fastly_"):
            return "fastly"
        if item.module == "env" and item.name.startswith("xqd_"):
            return "fastly"
    return "wasi"


def explain(message: str) -> str:
    """One line for the module's author, from what the engine said about it."""
    place = _LOCATION.search(message)
    text = _LOCATION.sub("", message)
    for line in reversed(text.splitlines()):
        detail = re.sub(r"^\d+: ", "", line.strip())
        if detail:
            break
    else:
        detail = "refused by the engine without a reason"
    if _MISSING_FEATURE.search(message):
        for pattern, name in _FEATURES:
            if pattern.search(message):
                return f"needs {name}, which this server does not offer"
    if "unexpected end" in message or "section out of" in message:
        detail = f"truncated or broken: {detail}"
    where = f" at byte {int(place[1], 16)}" if place else ""
    return one_line(f"not valid WebAssembly: {detail}{where}")


def check(
    info: ModuleInfo,
    *,
    memory: int,
    table_elements: int,
    known_imports: Mapping[tuple[str, str], str],
    trap_unknown: bool = False,
) -> None:
    """Raise ModuleRefused, with every reason in one line, if a service cannot run this module.

    `memory` is in bytes; `known_imports` maps (module, name) to a signature such as `iiI->i`;
    with `trap_unknown` missing functions are allowed, to trap when they are called.
    """
    reasons = list(_size_reasons(info, memory, table_elements))
    reasons += _import_reasons(info, known_imports, trap_unknown)
    if reasons:
        raise ModuleRefused(one_line("; ".join(reasons)))


def _size_reasons(info: ModuleInfo, memory: int, table_elements: int) -> Iterator[str]:
    if info.memory_bytes > memory:
        yield (
            f"its memory starts at {info.memory_bytes} bytes, above limits.memory of {memory} bytes"
        )
    if len(info.tables) > MAX_TABLES:
        yield f"it has {len(info.tables)} tables; a sandbox has {MAX_TABLES}"
    for size in info.tables:
        if size > table_elements:
            yield (
                f"its table starts at {size} elements, above limits.table_elements of "
                f"{table_elements}"
            )


def _import_reasons(
    info: ModuleInfo, known: Mapping[tuple[str, str], str], trap_unknown: bool
) -> Iterator[str]:
    missing: dict[str, None] = {}  # a module may import one function twice
    wrong: dict[str, None] = {}
    for item in info.imports:
        name = f"{item.module}.{item.name}"
        if item.kind is not Kind.FUNCTION:
            wrong[f"imports the {item.kind.value} {name}; only functions can be imported"] = None
            continue
        ours = known.get((item.module, item.name))
        if ours is None:
            missing[name] = None
        elif ours != item.signature:
            wrong[f"imports {name} as {spell(item.signature)}, but it is {spell(ours)}"] = None
    yield from wrong
    if missing and not trap_unknown:
        yield (
            "imports functions that this server does not have: "
            + ", ".join(missing)
            + " (unknown_imports: trap loads it all the same)"
        )


def spell(signature: str) -> str:
    """`iI->i` as people write it: `(i32, i64) -> i32`."""
    params, _, results = signature.partition("->")
    left = ", ".join(_WORDS[letter] for letter in params)
    right = ", ".join(_WORDS[letter] for letter in results)
    return f"({left}) -> {right if len(results) == 1 else f'({right})'}"


def one_line(text: str) -> str:
    """Printable, without line breaks, bounded: names in a module are whatever its author likes."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= MAX_REASON else line[:MAX_REASON] + " ..."


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"module info: {key} is not text")
    return value


def _count(data: Mapping[str, object], key: str) -> int:
    value = data.get(key)
    if type(value) is not int or value < 0:
        raise ValueError(f"module info: {key} is not a count")
    return value


def _tables(data: object) -> Iterator[int]:
    if not isinstance(data, list):
        raise ValueError("module info: tables is not a list")
    for size in data:
        if type(size) is not int or size < 0:
            raise ValueError("module info: a table's size is not a count")
        yield size


def _names(data: object) -> Iterator[str]:
    if not isinstance(data, list) or len(data) > MAX_EXPORTS:
        raise ValueError("module info: exports is not a short list")
    for name in data:
        if not isinstance(name, str):
            raise ValueError("module info: the name of an export is not text")
        yield name


def _import(data: object) -> Import:
    if not isinstance(data, list) or len(data) != 4 or not all(isinstance(v, str) for v in data):
        raise ValueError("module info: an import is not four texts")
    module, name, kind, signature = data
    return Import(module, name, Kind(kind), signature)

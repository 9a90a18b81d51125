"""Takes modules apart and asks the engine about them, for tests of rewriting.  Runs none."""

from __future__ import annotations

from collections.abc import Iterator

import wasmtime

from edge.runtime.engine import compiling_engine
from edge.runtime.instructions import read_number

ENGINE = compiling_engine()


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {text})"))


def is_valid(wasm: bytes) -> bool:
    try:
        wasmtime.Module.validate(ENGINE, wasm)
    except wasmtime.WasmtimeError:
        return False
    return True


def section(wasm: bytes, which: int) -> bytes:
    return next((body for found, body in sections(wasm) if found == which), b"")


def sections(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    at = 8
    while at < len(wasm):
        size, start = read_number(wasm, at + 1)
        yield wasm[at], wasm[start : start + size]
        at = start + size


def bodies(wasm: bytes) -> Iterator[tuple[int, int]]:
    code = section(wasm, 10)
    offset = wasm.index(code)
    count, at = read_number(code, 0)
    for _ in range(count):
        size, at = read_number(code, at)
        yield offset + at, offset + at + size
        at += size

"""One module in, one compiled artifact out: the work of the compile child, without its confinement.

Runs where compilers may: in that child, in tests, never on a serving loop.
"""

from __future__ import annotations

import hashlib
from typing import Any

import wasmtime

from edge.errors import ModuleRefused
from edge.runtime.engine import compiling_engine
from edge.runtime.inspect import ModuleInfo, explain, inspect, recognise
from edge.runtime.rewrite import count_refusals
from edge.runtime.sections import MalformedModule


def prepare(wasm: bytes) -> bytes:
    """The binary that is compiled instead of `wasm`; facts are read from the original.

    `wasm` itself when refused growth cannot be counted in it.  The artifact then lacks the counters
    and `edge.runtime.endings` infers memory limits from the size of the memory.
    """
    try:
        return count_refusals(wasm)
    except MalformedModule:
        return wasm


def compile_module(
    data: bytes, *, max_bytes: int, exceptions: bool = False
) -> tuple[ModuleInfo, bytes]:
    """Facts and artifact of a module, text or binary.  Raises ModuleRefused with one line."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        wasm = data if recognise(data, max_bytes=max_bytes) else _from_text(data)
        engine = compiling_engine(exceptions=exceptions)
        # First the module as it is, so that the author's own bytes are what a refusal talks about.
        wasmtime.Module.validate(engine, wasm)
        info = inspect(wasm, sha256=digest, size=len(data))
        artifact = _compile(engine, wasm).serialize()
    except wasmtime.WasmtimeError as error:
        raise ModuleRefused(explain(str(error))) from error
    return info, bytes(artifact)


def _compile(engine: Any, wasm: bytes) -> Any:
    prepared = prepare(wasm)
    try:
        return wasmtime.Module(engine, prepared)
    except wasmtime.WasmtimeError:
        # What we add may be one function, export or global more than the engine takes.
        if prepared is wasm:
            raise
        return wasmtime.Module(engine, wasm)


def _from_text(data: bytes) -> bytes:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ModuleRefused(f"text that is not UTF-8 at byte {error.start}") from None
    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise ModuleRefused(_explain_text(str(error))) from None


def _explain_text(message: str) -> str:
    """The assembler answers with a picture of the line; its first line and the place say it all."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    place = next((line for line in lines if line.startswith("-->")), "")
    numbers = place.rpartition(">:")[2].split(":")
    where = f" at line {numbers[0]}, column {numbers[1]}" if len(numbers) == 2 else ""
    return f"not valid WebAssembly text: {lines[0] if lines else 'no reason given'}{where}"

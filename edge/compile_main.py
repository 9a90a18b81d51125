"""The compile child: one module in on stdin, one compiled artifact out on stdout, then it is gone.

Compilers are large and their input is hostile, so this process has nothing to lose: an empty
environment, no network, hard limits on CPU, address space, files and descriptors, and no keys.
Its parent (`edge.runtime.compile`) bounds the wall time and everything it reads from here.

Out comes a header, a big-endian u32 length and JSON, and then the artifact to the end of the
stream: `{"info": ..., "bytes": n, "notes": [...]}` or `{"refused": "one line"}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sys
from collections.abc import Sequence
from typing import Any

from edge.errors import ModuleRefused
from edge.runtime.compile_bounds import EXIT_OK, EXIT_REFUSED, Bounds
from edge.runtime.inspect import ModuleInfo, explain, inspect, recognise
from edge.runtime.rewrite import count_refusals
from edge.runtime.sections import MalformedModule

# stdin, stdout, stderr and what the engine opens for itself while it starts (measured: 3).
MAX_DESCRIPTORS = 32


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
    import wasmtime

    from edge.runtime.engine import compiling_engine

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
    import wasmtime

    prepared = prepare(wasm)
    try:
        return wasmtime.Module(engine, prepared)
    except wasmtime.WasmtimeError:
        # What we add may be one function, export or global more than the engine takes.
        if prepared is wasm:
            raise
        return wasmtime.Module(engine, wasm)


def _from_text(data: bytes) -> bytes:
    import wasmtime

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the child; the parent passes `Bounds.arguments()`."""
    bounds = Bounds.read(sys.argv[1:] if arguments is None else arguments)
    notes = confine(bounds)
    # One byte more than is taken: `recognise` says that there is too much.
    data = sys.stdin.buffer.read(bounds.module_bytes + 1)
    try:
        info, artifact = compile_module(
            data, max_bytes=bounds.module_bytes, exceptions=bounds.exceptions
        )
    except ModuleRefused as refusal:
        _answer({"refused": str(refusal)}, b"")
        return EXIT_REFUSED
    except MemoryError:
        _answer({"refused": f"compiling needs more memory than {bounds.address_bytes} bytes"}, b"")
        return EXIT_REFUSED
    _answer({"info": info.to_plain(), "bytes": len(artifact), "notes": notes}, artifact)
    return EXIT_OK


def confine(bounds: Bounds) -> list[str]:
    """Give up what compiling does not need.  Returns what the kernel did not let us give up."""
    # Before the limits: loading the engine's library maps far more than it uses.
    from edge.runtime import capi, engine

    assert engine.CODE_GENERATION  # imported for its side effect of being loaded
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # results go through a pipe, which this does not bound
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_AS, bounds.address_bytes),
    ):
        _, hard = resource.getrlimit(limit)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # A second more for CPU: SIGXCPU, which comes first, tells the parent which limit it was.
        more = 1 if limit == resource.RLIMIT_CPU and allowed == value else 0
        resource.setrlimit(limit, (allowed, allowed + more))
    refused = capi.unshare_network()  # while there is one thread: the kernel asks for that
    if refused:
        return [f"compiling with the network still in reach: {os.strerror(refused)}"]
    return []


def _answer(header: dict[str, object], artifact: bytes) -> None:
    encoded = json.dumps(header).encode()
    with contextlib.suppress(BrokenPipeError):  # a parent that gave up has killed us as well
        sys.stdout.buffer.write(len(encoded).to_bytes(4, "big") + encoded)
        sys.stdout.buffer.write(artifact)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

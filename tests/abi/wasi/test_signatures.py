"""Every function of preview1 links with the signature of the standard."""

from __future__ import annotations

import wasmtime

from edge.abi.wasi.preview1 import WASI_PREVIEW1
from tests.abi.wasi.golden import SIGNATURES


def test_all_46_functions_have_the_standard_signature() -> None:
    derived = {name: call.signature for name, call in WASI_PREVIEW1.hostcalls.items()}
    assert derived == SIGNATURES
    assert len(SIGNATURES) == 46


def test_only_proc_exit_has_no_result() -> None:
    without = {name for name, call in WASI_PREVIEW1.hostcalls.items() if not call.returns}
    assert without == {"proc_exit"}


def test_what_can_take_long_suspends() -> None:
    suspending = {name for name, call in WASI_PREVIEW1.hostcalls.items() if call.suspends}
    assert suspending == {"fd_read", "fd_write", "poll_oneoff", "random_get", "sched_yield"}


def test_the_golden_table_agrees_with_the_engines_own_wasi() -> None:
    """The engine's implementation is only asked for types here; we never link it."""
    letters = {"i": "i32", "I": "i64"}
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func '
        + "".join(f"(param {letters[letter]})" for letter in signature)
        + ("" if name == "proc_exit" else "(result i32)")
        + "))"
        for name, signature in SIGNATURES.items()
    )
    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    linker.instantiate(store, wasmtime.Module(engine, f"(module {imports})"))

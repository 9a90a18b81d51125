"""The engine: which WebAssembly we accept, how its code is compiled, and how instances are pooled.

One serving engine per worker (with the pool) and one compiling engine per compile child (without):
their code settings are the same, or the artifact of one would not load in the other.
"""

from __future__ import annotations

import hashlib
import platform
import resource
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import wasmtime
from wasmtime import _bindings as raw

from edge.errors import ConfigError, Problem

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# Guests call hostcalls, and hostcalls run on the guest's stack: the fiber holds both.
MAX_WASM_STACK = 1 * MIB
FIBER_STACK = 2 * MIB
# What stays mapped in a slot between requests.  More makes instantiation slower (29 us at 1 MiB),
# less costs an madvise and an IPI per request (16k against 29k requests/s).
KEEP_RESIDENT = 64 * KIB
# The compiled code leaves out bounds checks because each memory has 4 GiB of address space of its
# own plus a guard.
MEMORY_RESERVATION = 4 * GIB
GUARD = 32 * MIB
INSTANCE_BYTES = 1 * MIB

# Bump when a rewrite or anything else outside Wasmtime's own settings changes what we compile.
CODE_GENERATION = 3

_FEATURES: dict[str, bool] = {
    # Allowed: what the toolchains of our guests emit.
    "wasm_bulk_memory": True,
    "wasm_reference_types": True,
    "wasm_multi_value": True,
    "wasm_simd": True,
    "wasm_tail_call": True,
    # Refused: each widens what a guest can do to the host, or escapes a limit (DESIGN traps).
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "wasm_exceptions": False,
    "wasm_relaxed_simd": False,
    "wasm_stack_switching": False,
    "wasm_custom_page_sizes": False,
    "wasm_wide_arithmetic": False,
    "wasm_component_model": False,
    "wasm_compact_imports": False,
    "wasm_branch_hinting": False,
}


def _features(exceptions: bool) -> dict[str, bool]:
    return {**_FEATURES, "wasm_exceptions": exceptions}


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many guests one worker holds at once, and how large the largest of them may be."""

    slots: int
    memory_bytes: int  # ceiling of one linear memory, over all services
    table_elements: int
    exceptions: bool = False  # the operator allows the exception handling proposal


def _config(exceptions: bool) -> Any:
    config = wasmtime.Config()
    config.epoch_interruption = True
    for feature, allowed in _features(exceptions).items():
        getattr(raw, f"wasmtime_config_{feature}_set")(config.ptr(), allowed)
    raw.wasmtime_config_max_wasm_stack_set(config.ptr(), MAX_WASM_STACK)
    raw.wasmtime_config_async_stack_size_set(config.ptr(), FIBER_STACK)
    raw.wasmtime_config_memory_reservation_set(config.ptr(), MEMORY_RESERVATION)
    raw.wasmtime_config_memory_guard_size_set(config.ptr(), GUARD)
    raw.wasmtime_config_memory_init_cow_set(config.ptr(), True)
    # Off: results with NaN bits may differ between machines, never between runs on one.
    raw.wasmtime_config_cranelift_nan_canonicalization_set(config.ptr(), False)
    return config


def compiling_engine(*, exceptions: bool = False) -> wasmtime.Engine:
    """Same code settings, no pool: for the compile child."""
    return wasmtime.Engine(_config(exceptions))


def serving_engine(pool: PoolSettings) -> wasmtime.Engine:
    """The engine that runs guests.  Raises ConfigError when the pool cannot fit (see `needed`)."""
    refuse_what_cannot_fit(pool)
    config = _config(pool.exceptions)
    settings = raw.wasmtime_pooling_allocation_config_new()

    def put(name: str, value: int) -> None:
        getattr(raw, f"wasmtime_pooling_allocation_config_{name}_set")(settings, value)

    for total in ("core_instances", "memories", "tables", "stacks"):
        put(f"total_{total}", pool.slots)
    put("total_gc_heaps", 0)
    put("total_component_instances", 0)
    put("max_memory_size", pool.memory_bytes)
    put("table_elements", pool.table_elements)
    put("max_memories_per_module", 1)
    put("max_tables_per_module", 1)
    put("max_core_instance_size", INSTANCE_BYTES)
    put("linear_memory_keep_resident", KEEP_RESIDENT)
    put("table_keep_resident", KEEP_RESIDENT)
    put("async_stack_keep_resident", KEEP_RESIDENT)
    raw.wasmtime_pooling_allocation_strategy_set(config.ptr(), settings)
    raw.wasmtime_pooling_allocation_config_delete(settings)
    return wasmtime.Engine(config)


def address_space(pool: PoolSettings) -> int:
    """Bytes of address space the pool reserves at start; nearly none of it is memory."""
    per_slot = (
        MEMORY_RESERVATION
        + 2 * GUARD
        + FIBER_STACK
        + 64 * KIB
        + 8 * pool.table_elements
        + INSTANCE_BYTES
    )
    return pool.slots * per_slot


def refuse_what_cannot_fit(pool: PoolSettings) -> None:
    """Say in words what the engine would say with SIGABRT."""
    needed = address_space(pool)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    available = 2**47 - 2**40 if soft == resource.RLIM_INFINITY else soft - 2 * GIB
    if needed > available:
        fits = max(0, available * pool.slots // needed)
        cause = (
            "of the 128 TiB this machine's addresses reach"
            if soft == resource.RLIM_INFINITY
            else f"under the address space limit (ulimit -v) of {soft // MIB} MiB"
        )
        raise ConfigError(
            Problem(
                "pool.slots",
                f"{pool.slots} slots need {needed // GIB} GiB of address space, "
                f"{max(available, 0) // GIB} GiB are free {cause}: "
                f"set pool.slots to {fits} or less, or raise the limit",
            )
        )


def fingerprint(*, exceptions: bool = False) -> str:
    """Changes whenever an artifact compiled elsewhere or earlier might not be valid here."""
    facts = [
        metadata.version("wasmtime"),
        platform.machine(),
        str(CODE_GENERATION),
        *(f"{name}={value}" for name, value in sorted(_features(exceptions).items())),
        *map(str, (MAX_WASM_STACK, FIBER_STACK, MEMORY_RESERVATION, GUARD)),
        _cpu_flags(),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _cpu_flags() -> str:
    """Cranelift uses what the processor has: a state_dir moved to another machine compiles anew."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            return next((line for line in info if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ""

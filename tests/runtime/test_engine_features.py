"""What the serving engine compiles, feature by feature, and what each refused feature says.

Messages for developers are made at deployment; this is the wall behind them.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest
import wasmtime
from wasmtime import _bindings

from edge.errors import ConfigError
from edge.runtime import engine
from edge.runtime.engine import (
    MIB,
    PoolSettings,
    address_space,
    compiling_engine,
    fingerprint,
    refuse_what_cannot_fit,
    serving_engine,
)

POOL = PoolSettings(slots=4, memory_bytes=MIB, table_elements=1000)

REFUSED = {
    "threads_atomics": (
        "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))", "threads"),
    "threads_shared_memory": ("(module (memory 1 1 shared))", "threads|shared"),
    "memory64": ("(module (memory i64 1))", "memory64"),
    "table64": ("(module (table i64 1 funcref))", "memory64"),
    "multi_memory": ("(module (memory 1) (memory 1))", "multiple memories"),
    "garbage_collection": ("(module (type (struct (field i32))))", "gc"),
    "i31_references": ("(module (func (param i31ref)))", "gc|heap types"),
    "function_references": ("(module (func (param (ref func))))", "function references|reference"),
    "call_ref": (
        "(module (type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0))))",
        "function references|reference|gc"),
    "exception_tags": ("(module (tag))", "exceptions"),
    "exception_references": ("(module (func (param exnref)))", "exceptions|exception"),
    "relaxed_simd": (
        "(module (func (param v128) (result v128)"
        " (i32x4.relaxed_trunc_f32x4_s (local.get 0))))", "relaxed SIMD"),
    "stack_switching": (
        "(module (type $f (func)) (type $c (cont $f)))", "stack.switching"),
    "custom_page_sizes": ("(module (memory 1 (pagesize 1)))", "custom page sizes"),
    "wide_arithmetic": (
        "(module (func (param i64 i64) (result i64 i64)"
        " (i64.mul_wide_u (local.get 0) (local.get 1))))", "wide arithmetic"),
    "components": ("(component)", "component"),
}  # fmt: skip

ALLOWED = {
    "mutable_globals": '(module (global (export "g") (mut i32) (i32.const 0)))',
    "sign_extension": "(module (func (drop (i32.extend8_s (i32.const 1)))))",
    "saturating_conversion": "(module (func (drop (i32.trunc_sat_f32_s (f32.const 1)))))",
    "bulk_memory": "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0)"
    " (i32.const 1))))",
    "reference_types": "(module (table 1 externref) (table 1 funcref))",
    "multi_value": "(module (func (result i32 i32) (i32.const 0) (i32.const 1)))",
    "simd": "(module (func (drop (v128.const i64x2 0 0))))",
    "tail_calls": "(module (func $f (return_call $f)))",
    "extended_constants": "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
}


@pytest.fixture(scope="module")
def serving() -> Iterator[wasmtime.Engine]:
    return serving_engine(POOL)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def compiling() -> wasmtime.Engine:
    return compiling_engine()


@pytest.mark.parametrize("feature", REFUSED)
def test_a_refused_feature_does_not_compile(
    serving: wasmtime.Engine, compiling: wasmtime.Engine, feature: str
) -> None:
    wat, message = REFUSED[feature]
    wasm = bytes(wasmtime.wat2wasm(wat))
    for each in (serving, compiling):
        with pytest.raises(wasmtime.WasmtimeError, match=f"(?i){message}"):
            wasmtime.Module(each, wasm)


@pytest.mark.parametrize("feature", ALLOWED)
def test_an_allowed_feature_compiles(compiling: wasmtime.Engine, feature: str) -> None:
    wasmtime.Module(compiling, ALLOWED[feature])


def test_what_the_compile_child_makes_loads_in_the_serving_engine(
    serving: wasmtime.Engine, compiling: wasmtime.Engine
) -> None:
    code = wasmtime.Module(compiling, ALLOWED["simd"]).serialize()
    wasmtime.Module.deserialize(serving, code)


def test_every_feature_is_decided_and_none_is_left_to_a_default() -> None:
    declared = {
        name.removeprefix("wasmtime_config_").removesuffix("_set")
        for name in dir(_bindings)
        if name.startswith("wasmtime_config_wasm_") and name.endswith("_set")
    }
    # Off by default: an encoding of imports, and a custom section of advice.  The third means
    # nothing without relaxed SIMD; the last name a part of components, which are off as a whole.
    left = {"wasm_compact_imports", "wasm_branch_hinting", "wasm_relaxed_simd_deterministic"}
    open_questions = declared - set(engine._FEATURES) - left
    assert all(name.startswith("wasm_component_model_") for name in open_questions)


def test_a_second_memory_or_table_cannot_slip_into_the_pool(serving: wasmtime.Engine) -> None:
    with pytest.raises(wasmtime.WasmtimeError, match="tables"):
        wasmtime.Module(serving, ALLOWED["reference_types"])


# Fitting -------------------------------------------------------------------------------------


def test_a_thousand_slots_reserve_about_4_tib_of_addresses() -> None:
    pool = PoolSettings(slots=1000, memory_bytes=128 * MIB, table_elements=98_765)
    assert 4 * 2**40 < address_space(pool) + 2**38 < 5 * 2**40


def test_a_pool_that_cannot_fit_is_refused_in_words_with_a_number_that_does() -> None:
    pool = PoolSettings(slots=40_000, memory_bytes=128 * MIB, table_elements=98_765)
    with pytest.raises(ConfigError, match=r"pool\.slots") as refused:
        refuse_what_cannot_fit(pool)
    message = str(refused.value)
    fits = int(message.split("set pool.slots to ")[1].split()[0])
    assert 1000 < fits < 40_000
    refuse_what_cannot_fit(PoolSettings(fits, 128 * MIB, 98_765))


def test_an_address_space_limit_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 * 2**30, 64 * 2**30))
    with pytest.raises(ConfigError, match="ulimit -v"):
        refuse_what_cannot_fit(PoolSettings(slots=100, memory_bytes=MIB, table_elements=1000))
    refuse_what_cannot_fit(PoolSettings(slots=10, memory_bytes=MIB, table_elements=1000))


# Fingerprint ---------------------------------------------------------------------------------


def test_the_fingerprint_is_stable_and_follows_the_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fingerprint()
    assert fingerprint() == before
    monkeypatch.setitem(engine._FEATURES, "wasm_tail_call", False)
    assert fingerprint() != before


def test_the_fingerprint_follows_the_generation_of_our_own_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = fingerprint()
    monkeypatch.setattr(engine, "CODE_GENERATION", engine.CODE_GENERATION + 1)
    assert fingerprint() != before

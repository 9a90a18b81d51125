"""Counting refused growth: rewritten modules run as before, and count exactly what was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import wasmtime

from edge.errors import ModuleRefused
from edge.model.limits import Limits
from edge.outcome import Ending
from edge.runtime import translate
from edge.runtime.instructions import find_grows
from edge.runtime.rewrite import MEMORY_REFUSALS, TABLE_REFUSALS, count_refusals, number
from edge.runtime.sections import MalformedModule, read_sections
from edge.runtime.translate import compile_module, prepare
from tests.support.guests import build, guests
from tests.support.runtime import Arena, arena
from tests.support.wasm_code import ENGINE, binary, bodies, is_valid, section, sections

MIB = 1024 * 1024
PAGE = 64 * 1024


class Instance:
    """A module run by the plain engine, with at most four pages and eight table elements."""

    def __init__(self, wasm: bytes) -> None:
        self.store = wasmtime.Store(ENGINE)
        self.store.set_limits(memory_size=4 * PAGE, table_elements=8)
        self.store.set_epoch_deadline(1_000_000)
        instance = wasmtime.Instance(self.store, wasmtime.Module(ENGINE, wasm), [])
        self.exports: Any = instance.exports(self.store)

    def call(self, *arguments: int) -> Any:
        """What `f` returns; a trap's message if it does."""
        try:
            return self.exports["f"](self.store, *arguments)
        except wasmtime.Trap as trap:
            return trap.message.splitlines()[-1]

    def count(self, name: str = MEMORY_REFUSALS) -> int:
        """The value of a counter."""
        value: int = self.exports[name].value(self.store)
        return value


def both(text: str) -> tuple[Instance, Instance]:
    wasm = binary(text)
    return Instance(wasm), Instance(count_refusals(wasm))


# What growing means ------------------------------------------------------------------------------

GROW = '(memory 1) (func (export "f") (param i32) (result i32) (memory.grow (local.get 0)))'


def test_growth_answers_as_before_and_only_refusals_are_counted() -> None:
    plain, counted = both(GROW)
    expected = 0
    for delta in (0, 1, 0, 2, 1, 0, -1, 65_535, 1 << 31):
        answer = counted.call(delta)
        assert answer == plain.call(delta)
        expected += answer == -1
        assert counted.count() == expected
    assert expected == 4


def test_growth_past_the_modules_own_maximum_is_no_refusal_of_ours() -> None:
    plain, counted = both(GROW.replace("(memory 1)", "(memory 1 6)"))
    for delta, count in ((6, 0), (-1, 0), (5, 1), (3, 1), (2, 2), (3, 2), (1, 3)):
        assert counted.call(delta) == plain.call(delta)
        assert counted.count() == count


@pytest.mark.parametrize("kind", ["func", "extern"])
def test_table_growth_is_counted_apart_from_memory(kind: str) -> None:
    plain, counted = both(
        f'(table 2 {kind}ref) (func (export "f") (param i32) (result i32)'
        f" (table.grow 0 (ref.null {kind}) (local.get 0)))"
    )
    for delta, count in ((3, 0), (4, 1), (0, 1), (-1, 2), (3, 2)):
        assert counted.call(delta) == plain.call(delta)
        assert (counted.count(TABLE_REFUSALS), counted.count()) == (count, 0)


def test_tables_of_either_type_grow_by_functions_of_their_own() -> None:
    plain, counted = both(
        "(table 1 funcref) (table 1 5 externref) (memory 1)"
        ' (func (export "f") (param i32) (result i32 i32 i32)'
        " (table.grow 1 (ref.null extern) (local.get 0))"
        " (table.grow 0 (ref.null func) (local.get 0)) (memory.grow (local.get 0)))"
    )
    for delta in (1, 2, 3, 4, 8):
        assert counted.call(delta) == plain.call(delta)
    # 3, 4 and 8 pass the second table's own maximum; the first has none and may not pass 8.
    assert counted.count(TABLE_REFUSALS) == 2
    assert counted.count() == 3


def test_a_table_may_declare_a_maximum_above_two_billion() -> None:
    plain, counted = both(
        '(table 1 4294967295 funcref) (func (export "f") (param i32) (result i32)'
        " (table.grow 0 (ref.null func) (local.get 0)))"
    )
    for delta, count in ((1 << 31, 1), (-2, 2), (-1, 2), (3, 2)):
        assert counted.call(delta) == plain.call(delta)
        assert counted.count(TABLE_REFUSALS) == count


def test_what_a_table_is_filled_with_arrives() -> None:
    _, counted = both(
        "(table 1 funcref) (type $t (func (result i32))) (elem declare func $seven)"
        " (func $seven (result i32) (i32.const 7))"
        ' (func (export "f") (param i32) (result i32)'
        " (drop (table.grow 0 (ref.func $seven) (local.get 0)))"
        " (call_indirect (type $t) (i32.const 1)))"
    )
    assert counted.call(2) == 7


# Code around it ----------------------------------------------------------------------------------

LOOKALIKES = {
    "a void block that begins with unreachable": "(if (i32.const 0) (then unreachable))"
    " (block (br_if 0 (i32.const 1)) unreachable) (if (local.get 0) (then) (else))",
    "a void block of nothing else": "(block (br 0) (block unreachable))",
    "the number 64": "(drop (i32.const 64)) (drop (i32.const 8192)) (drop (i64.const 1048640))",
    "the number 64 as an offset": "(drop (i32.load offset=64 (i32.const 0)))"
    " (i64.store8 offset=8256 (i32.const 0) (i64.const 64))",
    "floats made of it": "(drop (f32.const 2.0)) (drop (f64.const 2.0)) (drop (f64.const 32.0))",
    "a vector made of it": "(drop (v128.const i16x8 64 64 64 64 64 64 64 64))"
    " (drop (v128.const i32x4 0x0ffc400 0x40 0xfc0f00fc 0x40))",
    "vector lanes and shuffles": "(drop (i8x16.shuffle 0 1 2 3 28 29 30 31 0 0 0 0 1 1 1 1"
    " (v128.const i64x2 1 2) (v128.const i64x2 3 4)))"
    " (drop (i16x8.extract_lane_u 7 (v128.load16x4_s offset=64 (i32.const 0))))"
    " (v128.store32_lane offset=64 3 (i32.const 0) (v128.const i64x2 64 0))"
    " (drop (f64x2.mul (v128.load64_zero (i32.const 64)) (f64x2.splat (f64.const 2))))",
    "a jump table": "(block $a (block $b (block $c"
    " (br_table $a $b $c $a $b $c $a (i32.and (local.get 0) (i32.const 7))))))",
    "a jump table of a hundred": f"(block $a (br_table {'$a ' * 100} (local.get 0)))",
    "types in select": "(drop (select (result funcref) (ref.null func) (ref.null func)"
    " (local.get 0))) (drop (select (result i64) (i64.const 64) (i64.const 0) (local.get 0)))",
    "bulk memory": "(memory.fill (i32.const 0) (i32.const 64) (i32.const 8))"
    " (memory.copy (i32.const 64) (i32.const 0) (i32.const 8))"
    " (drop (i32.trunc_sat_f64_u (f64.const 64)))",
    "nested growth": "(drop (memory.grow (i32.sub (memory.grow (i32.const 0)) (memory.size))))",
}


@pytest.mark.parametrize("around", LOOKALIKES.values(), ids=LOOKALIKES)
def test_code_that_looks_like_growth_stays_as_it_is(around: str) -> None:
    plain, counted = both(
        '(memory 1) (func (export "f") (param i32) (result i32)'
        f" {around} (drop (memory.grow (i32.const 1))) {around} (memory.grow (local.get 0)))"
    )
    for delta in (0, 1, 5, 64):
        assert counted.call(delta) == plain.call(delta)
    assert counted.count() == 4  # one each of the last two calls by 1, then by 5 and 64


def test_a_body_without_growth_is_kept_byte_for_byte() -> None:
    wasm = binary("(memory 1) (func (block unreachable)) (func (drop (i32.const 8192)))")
    counted = count_refusals(wasm)
    assert section(counted, 10) == section(wasm, 10)
    assert [item.name for item in read_sections(counted).exports] == [MEMORY_REFUSALS]


@pytest.mark.parametrize("padding", [0, 60, 110, 115, 116, 117, 118, 119, 120, 126, 16_370, 16_380])
@pytest.mark.parametrize("others", [0, 126, 127, 128, 16_383])
def test_sizes_and_indices_may_need_another_byte(padding: int, others: int) -> None:
    plain, counted = both(
        "(func) " * others + GROW.replace("(result i32)", "(result i32) " + "nop " * padding)
    )
    for delta in (2, 3):
        assert counted.call(delta) == plain.call(delta)
    assert counted.count() == 1


def test_numbers_padded_to_five_bytes_are_understood() -> None:
    pad = b"\x80\x80\x80\x00"
    grow = b"\xd0\x70\x41\x09\xfc\x8f\x80\x80\x80\x00" + b"\x80" + pad + b"\x1a"
    load = b"\x41\x00\x28\x82" + pad[1:] + b"\xc0" + pad + b"\x1a"
    vector = b"\x41\x00\xfd\x8f\x80\x80\x80\x00\x1a"  # i8x16.splat
    body = b"\x80" + pad + vector + load + grow + b"\x0b"
    wasm = b"".join(
        (
            binary("")[:8],
            b"\x01\x84" + pad + b"\x01\x60\x00\x00",
            b"\x03\x02\x01\x00",
            b"\x04\x04\x01\x70\x00\x01",
            b"\x05\x03\x01\x00\x01",
            b"\x07\x05\x01\x01f\x00\x00",
            b"\x0a" + number(len(body) + 6) + b"\x01",
            bytes([len(body) | 0x80]) + pad + body,
        )
    )
    instance = Instance(count_refusals(wasm))
    instance.call()
    assert instance.count(TABLE_REFUSALS) == 1


# Sections ----------------------------------------------------------------------------------------


def test_other_sections_are_kept_in_their_places() -> None:
    wasm = binary(
        '(@custom "one" (before first) "1") (@custom "two" (after code) "2")'
        " (type $t (func)) (table 2 funcref) (memory 1) (global i32 (i32.const 5))"
        ' (func $start (drop (memory.grow (i32.const 9)))) (start $start) (export "f" (func $f))'
        ' (elem funcref (ref.func $f)) (data "abc")'
        " (func $f (result i32) (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 3))"
        " (drop (table.grow 0 (ref.null func) (i32.const 9))) (i32.load8_u (i32.const 2)))"
    )
    counted = count_refusals(wasm)
    before, after = list(sections(wasm)), list(sections(counted))
    assert [which for which, _ in before] == [which for which, _ in after]
    changed = {which for (which, old), (_, new) in zip(before, after, strict=True) if old != new}
    assert changed == {1, 3, 6, 7, 10}
    instance = Instance(counted)
    assert instance.count() == 1  # by the start function
    assert instance.call() == ord("c")
    assert instance.count(TABLE_REFUSALS) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(func)",
        "(memory 1) (func (drop (memory.grow (i32.const 0))))",
        '(func $f) (start $f) (memory 1) (data (i32.const 0) "x")',
        "(table 1 funcref) (elem (i32.const 0) $f) (func $f)",
        '(import "a" "f" (func)) (import "a" "g" (global i32)) (memory 1)'
        " (func (drop (memory.grow (i32.const 0))))",
        '(import "a" "m" (memory 1)) (func (drop (memory.grow (i32.const 0))))',
    ],
)
def test_missing_sections_are_put_where_they_belong(text: str) -> None:
    counted = count_refusals(binary(text))
    assert is_valid(counted)
    assert MEMORY_REFUSALS in {item.name for item in read_sections(counted).exports}


def test_growth_of_an_imported_table_cannot_be_counted() -> None:
    wasm = binary(
        '(import "a" "t" (table 1 funcref))'
        " (func (drop (table.grow 0 (ref.null func) (i32.const 1))))"
    )
    with pytest.raises(MalformedModule, match="grows table 0, which is imported"):
        count_refusals(wasm)
    assert prepare(wasm) is wasm


def test_a_module_cut_short_anywhere_is_malformed_or_refused_by_the_engine() -> None:
    wasm = binary(GROW)
    for size in range(8, len(wasm)):
        try:
            counted = count_refusals(wasm[:size])
        except MalformedModule:
            continue
        assert is_valid(counted) == is_valid(wasm[:size])


# The guest cannot reach the counters -------------------------------------------------------------

PROGRAM = '(memory (export "memory") 1) (func (export "_start"))'


@pytest.mark.parametrize("name", [MEMORY_REFUSALS, TABLE_REFUSALS])
def test_a_module_that_exports_a_counters_name_is_refused(name: str) -> None:
    text = f'(module {PROGRAM} (global (export "{name}") (mut i32) (i32.const 0)))'
    with pytest.raises(ModuleRefused, match=f"exports {name}, a name that this server adds"):
        compile_module(text.encode(), max_bytes=MIB)


def test_a_module_that_uses_the_index_of_the_counter_to_come_is_refused() -> None:
    for code in ("(global.set 0 (i32.const 0))", "(drop (call 2 (i32.const 1)))"):
        text = f"(module {PROGRAM} (func {code} (drop (memory.grow (i32.const 1)))))"
        with pytest.raises(ModuleRefused, match=r"unknown (global|function)"):
            compile_module(text.encode(), max_bytes=MIB)


def test_the_compile_child_compiles_the_counting_module() -> None:
    info, artifact = compile_module(f"(module {PROGRAM})".encode(), max_bytes=MIB)
    exports = {item.name for item in wasmtime.Module.deserialize(ENGINE, artifact).exports}
    assert exports == {"memory", "_start", MEMORY_REFUSALS}
    assert info.size == len(f"(module {PROGRAM})")


def test_what_the_engine_takes_only_without_counters_is_compiled_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(translate, "prepare", lambda wasm: wasm[:-1])
    _, artifact = compile_module(f"(module {PROGRAM})".encode(), max_bytes=MIB)
    exports = {item.name for item in wasmtime.Module.deserialize(ENGINE, artifact).exports}
    assert exports == {"memory", "_start"}


# What the operator sees --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[Arena]:
    with arena() as made:
        yield made


def ending(place: Arena, code: str, *, memory: int = 1, limits: Limits | None = None) -> Ending:
    text = f'(memory (export "memory") {memory}) (table 1 funcref) (func (export "_start") {code})'
    return place.run(binary(text), limits=limits).ending  # an arena has refusals counted


def test_one_huge_refused_growth_in_a_small_module_is_a_memory_limit(place: Arena) -> None:
    code = "(if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))"
    assert ending(place, code) is Ending.MEMORY_LIMIT


def test_a_memory_bomb_is_a_memory_limit(place: Arena) -> None:
    code = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
    assert ending(place, code) is Ending.MEMORY_LIMIT


def test_a_table_bomb_is_a_table_limit(place: Arena) -> None:
    code = (
        "(loop (br_if 0 (i32.ne (table.grow 0 (ref.null func) (i32.const 1000)) (i32.const -1))))"
        " unreachable"
    )
    assert ending(place, code) is Ending.TABLE_LIMIT


def test_a_guest_that_lives_with_a_refusal_is_well(place: Arena) -> None:
    assert ending(place, "(drop (memory.grow (i32.const 60000)))") is Ending.OK


def test_a_trap_in_a_memory_near_its_limit_is_a_trap_when_nothing_was_refused(
    place: Arena,
) -> None:
    limits = Limits(memory=16 * PAGE)
    assert ending(place, "unreachable", memory=16, limits=limits) is Ending.TRAP
    grown = "(drop (memory.grow (i32.const 15))) unreachable"
    assert ending(place, grown, limits=limits) is Ending.TRAP


# Real programs -----------------------------------------------------------------------------------


@pytest.mark.toolchain
@pytest.mark.parametrize("name", [guest.name for guest in guests()])
def test_built_guests_are_walked_whole_and_stay_valid(name: str) -> None:
    wasm = build(name).read_bytes()
    grows = sum(len(find_grows(wasm, start, end)) for start, end in bodies(wasm))
    began = time.thread_time()
    counted = count_refusals(wasm)
    assert time.thread_time() - began < 1.5  # 0.08 s for 11.5 MB of JavaScript engine
    assert is_valid(counted)
    left = sum(len(find_grows(counted, start, end)) for start, end in bodies(counted))
    assert left == len(list(bodies(counted))) - len(list(bodies(wasm)))
    assert (left > 0) == (grows > 0)

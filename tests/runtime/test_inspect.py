"""Which modules are refused and in which words.  Every text here goes through the real compiler."""

from __future__ import annotations

import dataclasses
import json

import pytest
import wasmtime

from edge.errors import ModuleRefused
from edge.runtime.inspect import ModuleInfo, check, explain, recognise, spell
from edge.runtime.sections import MalformedModule, read_sections
from edge.runtime.translate import compile_module

MIB = 1024 * 1024
PROGRAM = '(memory (export "memory") 1) (func (export "_start"))'


def refusal(module: str | bytes) -> str:
    data = module.encode() if isinstance(module, str) else module
    with pytest.raises(ModuleRefused) as caught:
        compile_module(data, max_bytes=MIB)
    message = str(caught.value)
    assert "\n" not in message
    return message


def info_of(text: str) -> ModuleInfo:
    return compile_module(f"(module {text})".encode(), max_bytes=MIB)[0]


FEATURES = [
    ("threads", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
    ("threads", "(func atomic.fence)"),
    ("shared memory", "(memory 1 1 shared)"),
    ("shared memory", '(import "a" "m" (memory 1 1 shared))'),
    ("shared-everything threads", "(type (shared (func)))"),
    ("memory64", "(memory i64 1)"),
    ("memory64", "(table i64 1 funcref)"),
    ("multi-memory", "(memory 1) (memory 1)"),
    ("garbage collection", "(type (struct (field i32)))"),
    ("garbage collection", "(type (array i32))"),
    ("garbage collection", "(rec (type (func)) (type (func)))"),
    ("garbage collection", "(type (sub (func)))"),
    ("garbage collection", "(func (param anyref))"),
    ("garbage collection", "(func (drop (ref.i31 (i32.const 0))))"),
    ("function references", "(type $t (func)) (func (param (ref null $t)))"),
    ("function references", "(func (param funcref) (drop (ref.as_non_null (local.get 0))))"),
    ("function references", "(func $f) (table 1 funcref (ref.func $f))"),
    ("exception handling", "(tag)"),
    ("exception handling", "(func (try_table))"),
    ("exception handling", "(func try catch_all end)"),
    ("exception handling", "(func (param exnref))"),
    (
        "relaxed SIMD",
        "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
    ),
    ("stack switching", "(type $f (func)) (type $c (cont $f))"),
    ("custom page sizes", "(memory 1 (pagesize 1))"),
    (
        "wide arithmetic",
        "(func (param i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 0)))",
    ),
    ("memory control", "(memory 1) (func (memory.discard (i32.const 0) (i32.const 1)))"),
]


@pytest.mark.parametrize(("name", "text"), FEATURES)
def test_a_feature_off_the_allow_list_is_refused_by_name(name: str, text: str) -> None:
    assert refusal(f"(module {text})").startswith(f"needs {name}")


@pytest.mark.parametrize(
    "text",
    [
        "(func $f return_call $f)",
        "(func (result v128) (v128.const i32x4 0 0 0 0))",
        "(table 1 externref)",
        "(memory $m 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        "(func (result i32 i32) (i32.const 1) (i32.const 2))",
        "(func (drop (i32.trunc_sat_f32_s (f32.const 1))))",
        "(func (drop (i32.extend8_s (i32.const 1))))",
        '(global (export "g") (mut i32) (i32.const 1))',
    ],
)
def test_what_toolchains_emit_is_accepted_by_the_engine(text: str) -> None:
    memory = "" if "$m" in text else "(memory 1)"
    exports = '(export "memory" (memory 0)) (func (export "_start"))'
    assert info_of(f"{memory} {text} {exports}").family == "wasi"


def test_a_component_is_refused_by_name() -> None:
    assert "component" in refusal(bytes(wasmtime.wat2wasm("(component)")))
    assert "component" in refusal(b"\0asm\x0d\0\1\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0as", "truncated"),
        (b"\0asm\1\0", "truncated"),
        (b"\0asm\2\0\0\0", "version 2"),
        (b"\x7fELF\2\1\1", "7f 45 4c 46"),
        (b"GIF89a", "neither WebAssembly"),
        (b"(module (func", "line 1, column 14"),
        (b"(module (funk))", "line 1, column 10"),
        (b"(module \xff)", "not UTF-8 at byte 8"),
        (b"\0asm\1\0\0\0\x01\x7f", "truncated or broken"),
    ],
)
def test_what_is_no_module_gets_a_reason(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_every_truncation_of_a_module_is_refused() -> None:
    whole = bytes(wasmtime.wat2wasm(f"(module {PROGRAM} (func (result i32) i32.const 7))"))
    for size in range(len(whole)):
        refusal(whole[:size])


def test_an_oversized_file_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(ModuleRefused, match="101 bytes; at most 100"):
        recognise(b"x" * 101, max_bytes=100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no function _start"),
        ('(func (export "_start"))', "no memory under the name memory"),
        ('(func (export "memory")) (func (export "_start"))', "no memory"),
        ('(memory (export "memory") 1) (global (export "_start") i32 (i32.const 0))', "_start"),
        ('(memory (export "memory") 1) (func (export "_initialize"))', "reactor"),
        ('(memory (export "memory") 1) (func (export "_start") (param i32))', "(i32) -> ()"),
        (
            '(memory (export "memory") 1) (func (export "_start") (result i64) i64.const 1)',
            "() -> i64",
        ),
    ],
)
def test_what_is_no_program_is_refused(text: str, words: str) -> None:
    assert words in refusal(f"(module {text})")


def test_facts_are_those_of_the_module() -> None:
    info = info_of(
        '(import "fastly_abi" "init" (func (param i64) (result i32)))'
        '(import "env" "noop" (func (param f32 f64 v128 funcref externref)))'
        "(table 7 9 funcref) (func $s) (start $s)"
        '(memory (export "memory") 3 5) (func (export "_start"))'
    )
    assert (info.family, info.memory_bytes, info.tables) == ("fastly", 3 * 65536, (7,))
    assert info.start_function
    assert [i.signature for i in info.imports] == ["I->i", "fFVre->"]
    assert ModuleInfo.from_plain(json.loads(json.dumps(info.to_plain()))) == info


def test_older_names_of_the_fastly_interface_are_recognised() -> None:
    assert info_of(f'(import "env" "xqd_init" (func)) {PROGRAM}').family == "fastly"
    assert info_of(f'(import "env" "other" (func)) {PROGRAM}').family == "wasi"


def test_a_signature_is_spelt_as_people_write_it() -> None:
    assert spell("iI->i") == "(i32, i64) -> i32"
    assert spell("->") == "() -> ()"
    assert spell("->iF") == "() -> (i32, f64)"


KNOWN = {("m", "f"): "ii->i"}


def reasons(text: str, *, trap_unknown: bool = False) -> str:
    with pytest.raises(ModuleRefused) as caught:
        check(
            info_of(text),
            memory=2 * 65536,
            table_elements=100,
            known_imports=KNOWN,
            trap_unknown=trap_unknown,
        )
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('(memory (export "memory") 3) (func (export "_start"))', "limits.memory of 131072"),
        (f"(table 101 funcref) {PROGRAM}", "limits.table_elements of 100"),
        (f"(table 1 funcref) (table 1 funcref) {PROGRAM}", "2 tables"),
        (f'(import "m" "f" (func (param i32))) {PROGRAM}', "as (i32) -> (), but it is (i32, i32)"),
        (f'(import "m" "t" (table 1 funcref)) {PROGRAM}', "the table m.t"),
        (f'(import "m" "g" (global i32)) {PROGRAM}', "the global m.g"),
        ('(import "m" "m" (memory (;0;) 1)) (export "memory" (memory 0)) '
         '(func (export "_start"))', "the memory m.m"),
    ],
)  # fmt: skip
def test_what_a_service_cannot_run_is_refused(text: str, words: str) -> None:
    assert words in reasons(text, trap_unknown=True)


def test_every_unknown_import_is_listed_once() -> None:
    message = reasons(
        '(import "a" "one" (func)) (import "b" "two" (func)) (import "a" "one" (func (param i32)))'
        f'(import "m" "f" (func (param i32 i32) (result i32))) {PROGRAM}'
    )
    assert "a.one, b.two " in message
    assert message.count("a.one") == 1
    assert "m.f" not in message


def test_unknown_functions_are_allowed_when_they_are_to_trap() -> None:
    info = info_of(f'(import "a" "one" (func)) {PROGRAM}')
    check(info, memory=MIB, table_elements=0, known_imports={}, trap_unknown=True)


def test_names_from_the_module_cannot_break_the_line() -> None:
    message = reasons(f'(import "a\\0ab" "\\1b[2J\\e2\\80\\a8" (func)) {PROGRAM}')
    assert "\n" not in message
    assert "\x1b" not in message
    assert "\u2028" not in message


def test_facts_from_a_child_are_not_believed_unread() -> None:
    good = info_of(PROGRAM).to_plain()
    for key, bad in (
        ("sha256", 1),
        ("size", -1),
        ("memory_bytes", True),
        ("tables", [1.5]),
        ("imports", [["a", "b", "function"]]),
        ("imports", [["a", "b", "nonsense", ""]]),
    ):
        with pytest.raises(ValueError, match=r"."):
            ModuleInfo.from_plain({**good, key: bad})
    with pytest.raises(ValueError, match="module info"):
        ModuleInfo.from_plain([])


def test_the_engines_words_are_one_line_with_the_place() -> None:
    said = (
        "failed to parse\n\nCaused by:\n    0: translation\n    1: type mismatch (at offset 0x1f)"
    )
    assert explain(said) == "not valid WebAssembly: type mismatch at byte 31"
    assert explain("") == "not valid WebAssembly: refused by the engine without a reason"


@pytest.mark.parametrize(
    "tail",
    [
        b"\x01\x02\x01\x00",  # a type that is no function
        b"\x01\xff\xff\xff\xff\xff",  # a length of more than 32 bits
        b"\x07\x05\x01\x01a\x00\x05",  # an export of a function that is not there
        b"\x02\x04\x01\x09ab",  # a name longer than its section
        b"\x05\x03\x01\x04\x01",  # memory limits of a feature that is off
    ],
)
def test_sections_that_validation_should_have_refused_are_malformed(tail: bytes) -> None:
    with pytest.raises(MalformedModule):
        read_sections(b"\0asm\1\0\0\0" + tail)


def test_module_facts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        info_of(PROGRAM).size = 1  # type: ignore[misc]

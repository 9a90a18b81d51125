"""The walker against the engine: every instruction that the one takes, the other measures."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from edge.runtime.instructions import find_grows, read_number
from edge.runtime.rewrite import count_refusals, number
from edge.runtime.sections import MalformedModule
from tests.support.wasm_code import binary, bodies, is_valid, sections

# After `unreachable` the stack holds whatever is asked for, and its code is a zero byte: so zeros
# behind an opcode serve as its immediates and, where it has fewer, as more instructions.

SURROUNDINGS = binary(
    "(memory 1) (table 1 funcref) (type (func)) (global (mut i32) (i32.const 0)) (func (type 0)"
    " (data.drop 0))"  # so that there is a data count
    ' (elem funcref (ref.null func)) (elem declare func 0) (data "x")'
)
IMMEDIATES = (b"", b"\x70", b"\x01\x7f", b"\x63\x70", b"\x01\x63\x70", b"\x7f", b"\x02")
OPCODES = (
    *(bytes([code]) for code in range(256) if code not in (0x40, 0xFC, 0xFD)),
    *(b"\xfc" + number(code) for code in range(40) if code != 15),
    *(b"\xfd" + number(code) for code in range(300)),
    *(b"\x02\x40", b"\x03\x40", b"\x04\x40"),  # as an immediate of others, 40 00 would grow
)


def with_body(instructions: bytes) -> bytes:
    """SURROUNDINGS with the code replaced; one local of each type."""
    content = b"\x06\x01\x7f\x01\x7e\x01\x7d\x01\x7c\x01\x7b\x01\x63\x70" + instructions
    code = b"\x01" + number(len(content)) + content
    out = [SURROUNDINGS[:8]]
    for which, body in sections(SURROUNDINGS):
        body = code if which == 10 else body
        out += (bytes([which]), number(len(body)), body)
    return b"".join(out)


def accepted() -> Iterator[tuple[bytes, bytes]]:
    """(instruction with zeros behind it, ends that it needs) for all that the engine takes."""
    for opcode in OPCODES:
        for immediates in IMMEDIATES:
            instruction = opcode + immediates + bytes(24)
            for ends in (b"", b"\x0b"):
                if is_valid(with_body(b"\0" + instruction + ends + b"\x0b")):
                    yield instruction, ends


def test_every_instruction_that_the_engine_takes_is_measured_as_the_engine_does() -> None:
    known = set()
    for instruction, ends in accepted():
        code = b"\0" + instruction + b"\x40\x00\x1a" + ends + b"\x0b"
        wasm = with_body(code)
        assert is_valid(wasm)
        start, end = next(bodies(wasm))
        grows = find_grows(wasm, start, end)
        assert [grow.start for grow in grows] == [end - len(ends) - 4], instruction.hex(" ")
        assert is_valid(count_refusals(wasm))
        size = 1 if instruction[0] < 0xFC else len(number(read_number(instruction, 1)[0])) + 1
        known.add(instruction[:size])
    # MVP 172 less memory.grow, else and end; sign extension 5; references 5 and typed select;
    # saturating conversions, bulk memory and tables 18 less table.grow; tail calls 2; SIMD 236.
    assert len(known) == 169 + 5 + 6 + 17 + 2 + 236


def test_random_code_of_accepted_instructions_is_walked_to_its_end() -> None:
    chance = random.Random(20)
    pieces = [instruction for instruction, ends in accepted() if not ends]
    pieces = [piece for piece in pieces if piece[0] not in (0x05, 0x0B)]
    for _ in range(300):
        parts = []
        for _ in range(chance.randrange(1, 60)):
            parts.append(b"\0" + chance.choice(pieces))
            if chance.random() < 0.2:
                parts.append(chance.choice((b"\x40\x00\x1a", b"\x00\xfc\x0f\x00\x1a")))
        wasm = with_body(b"".join(parts) + b"\x0b")
        assert is_valid(wasm)
        start, end = next(bodies(wasm))
        grows = len(find_grows(wasm, start, end))
        assert grows == sum(part in (b"\x40\x00\x1a", b"\x00\xfc\x0f\x00\x1a") for part in parts)
        assert is_valid(count_refusals(wasm))


@pytest.mark.parametrize("code", [b"\x06\x40\x0b", b"\xfb\x00", b"\xfd\x93\x02", b"\xfe\x00\x02"])
def test_an_instruction_outside_the_allow_list_is_named(code: bytes) -> None:
    wasm = with_body(b"\x00" + code + b"\x40\x00\x1a\x0b")
    with pytest.raises(MalformedModule, match=rf"^instruction {code[0]:#x} at byte \d+$"):
        count_refusals(wasm)

"""What the first slice takes for granted: where memory is, how large it is, what it cost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edge.outcome import OK
from edge.runtime.template import Template
from tests.support.runtime import Arena, program

CALLS = ("http_resp.new", "http_body.new", "http_body.write", "http_resp.send_downstream")


@pytest.fixture
def arena() -> Iterator[Arena]:
    with_arena = Arena()
    yield with_arena
    with_arena.close()


def saying(word: str, *, extra: str = "", memory: str = "1", at: int = 64) -> str:
    """WAT of a guest that answers with `word`, which stands at `at` in its memory."""
    data = f'(data (i32.const 64) "{word}")' if at == 64 else ""
    return program(
        f"""(call $must (call $http_resp.new (i32.const 0)))
        (call $must (call $http_body.new (i32.const 4)))
        (call $must (call $http_body.write (i32.load (i32.const 4))
          (i32.const {at}) (i32.const {len(word)}) (i32.const 0) (i32.const 8)))
        (call $must (call $http_resp.send_downstream
          (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 0)))""",
        *CALLS,
        memory=memory,
        extra=f"{data}{extra}",
    )


def answer(arena: Arena, template: Template) -> bytes:
    run = arena.start(template)
    arena.finish(run)
    assert run.outcome is OK
    return run.sent


def test_guests_of_several_modules_take_turns_in_one_slot(arena: Arena) -> None:
    ours = arena.template(saying("ours"))
    # Other exports, and another memory before any of its own is asked for.
    theirs = arena.template(saying("theirs", extra='(func (export "a"))', memory="2 3"))
    turns = [ours, ours, theirs, theirs, ours, theirs, ours, ours]
    words = [b"ours" if template is ours else b"theirs" for template in turns]
    assert [answer(arena, template) for template in turns] == words


def test_memory_that_a_start_function_added_can_be_used_at_once(arena: Arena) -> None:
    grown = arena.template(
        saying(
            "far",
            at=65536 + 100,
            extra="""(func $grow (drop (memory.grow (i32.const 1)))
              (memory.copy (i32.const 65636) (i32.const 32) (i32.const 3)))
              (data (i32.const 32) "far") (start $grow)""",
        )
    )
    assert [answer(arena, grown) for _ in range(3)] == [b"far"] * 3


def test_a_first_slice_is_charged_no_less_than_it_used_and_no_more_than_passed(
    arena: Arena,
) -> None:
    template = arena.template(
        program(
            """(local $i i32)
            (loop $again
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))"""
        )
    )
    for _ in range(5):
        began = time.perf_counter_ns()
        run = arena.start(template)
        arena.finish(run)
        assert run.guest is not None
        # 100,000 turns take a cycle each at the very least, and processors have less than 10 GHz.
        assert 10_000 < run.guest.cpu_used < time.perf_counter_ns() - began

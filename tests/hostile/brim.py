"""A program for test_brim: fills the guest's stack to its brim and calls every hostcall there.

Not a test: it runs in a process of its own, because what it would show is the death of one.
Prints a JSON object: how many levels fit, and how each hostcall's guest ended.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from dataclasses import replace

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from tests.support.runtime import HOSTCALL_NAMES, Arena, arena, invocation, program

LIMITS = replace(DEFAULT_LIMITS, cpu=20.0, wall=20.0)
MARGIN = 48  # levels from below the brim on which the call is made; the last is within one level

# A user agent that uses the parser's tables, and texts that pass for names and URIs.
DATA = (
    '(data (i32.const 64) "https://example.com/a?b=c")'
    '(data (i32.const 256) "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115")'
)
PATTERNS = ((0,), (1,), (64, 25, 512, 64, 700), (256, 69, 512, 64, 700))


def _deep(levels: str, leaf: str, *imports: str) -> str:
    return program(
        levels,
        *imports,
        extra=f"""{DATA}
        (func $leaf {leaf})
        (func $deep (param $n i32)
          (if (local.get $n)
            (then (call $deep (i32.sub (local.get $n) (i32.const 1))))
            (else (call $leaf))))""",
    )


def levels_that_fit(lab: Arena) -> int:
    """The deepest recursion that does not overflow."""
    low, high = 1000, 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        run = lab.run(_deep(f"(call $deep (i32.const {middle}))", "nop"), limits=LIMITS)
        assert run.ending in (Ending.OK, Ending.STACK_LIMIT), run.outcome
        low, high = (middle, high) if run.ending is Ending.OK else (low, middle)
    return low


def at_the_brim(lab: Arena, levels: int, name: str) -> tuple[str, int]:
    """Call `name` ever deeper until the stack overflows; how the guest ended, after how many."""
    calls = " ".join(invocation(name, *pattern) for pattern in PATTERNS)
    wat = _deep(
        f"""(local $n i32) (local.set $n (i32.const {levels - MARGIN}))
        (loop (call $deep (local.get $n))
          (local.set $n (i32.add (local.get $n) (i32.const 1))) (br 0))""",
        calls,
        name,
    )
    run = lab.run(wat, limits=LIMITS)
    return run.ending.value, run.box.calls


def main() -> int:
    """Run all of it; the exit status is what matters most."""
    faulthandler.enable()
    sys.setrecursionlimit(200)  # as workers do
    with arena() as lab:
        levels = levels_that_fit(lab)
        endings = {name: at_the_brim(lab, levels, name) for name in HOSTCALL_NAMES}
    print(json.dumps({"python": sys.version.split()[0], "levels": levels, "endings": endings}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

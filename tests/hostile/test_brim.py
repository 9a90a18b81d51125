"""Recursion to the brim of the guest's stack, then every hostcall: the process must live.

Python runs on what is left of the fiber's stack below the guest's own limit.  Were that too
little, the process would die with SIGSEGV, so it runs in a process of its own.  `make test` with
another interpreter shows the same for that one.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.hostile.brim import MARGIN, PATTERNS
from tests.support.runtime import HOSTCALL_NAMES
from tests.support.toolchain import ROOT


def test_every_hostcall_at_the_brim_of_the_stack_leaves_the_process_alive() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.brim"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["levels"] > 1000
    endings = result["endings"]
    assert set(endings) == set(HOSTCALL_NAMES)
    assert endings.pop("wasi.proc_exit") == ["ok", 1]
    assert {ending for ending, _ in endings.values()} == {"stack_limit"}
    # The deepest calls were within a few levels of the overflow; most levels were reached.
    assert min(calls for _, calls in endings.values()) >= MARGIN // 2 * len(PATTERNS)

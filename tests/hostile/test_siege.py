"""A short guest beside a service whose endless loops are kept alive, in one process: how long?

From the moment its request could have been read to its end, so a whole turn of the loop is in it.
Sockets and processes are not: `test_neighbours.py` has those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending, Outcome
from edge.runtime.engine import MIB, PoolSettings
from edge.runtime.template import Template
from tests.support.guests import GUESTS
from tests.support.runtime import Arena, Run, arena, program

SLOTS = 256
SHARE = SLOTS // 2  # what one service may hold
REQUESTS = 100
# 4 ms were measured at the median and 12 at the 99th percentile; the rest is for busy machines.
LONGEST_MS = 100
# A tick is a thread that needs a core: where other programs hold them all it comes late, so the
# bound on overshoot has to be met in one of three windows.
WINDOWS = 3
LIMITS = replace(DEFAULT_LIMITS, memory=16 * MIB, table_elements=1000)
LOOP = program("(loop (br 0))")
# One instruction that nothing can interrupt: 16 MiB, the memory limit here.
FILL = program(
    f"(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const {16 * MIB})) (br 0))", memory="256"
)
HELLO = (GUESTS / "wat" / "hello.wat").read_text()


@pytest.fixture(scope="module")
def lab() -> Iterator[Arena]:
    with arena(PoolSettings(SLOTS, memory_bytes=16 * MIB, table_elements=1000)) as made:
        yield made


def besiege(lab: Arena, hostile: Template, count: int) -> tuple[list[float], list[Run]]:
    """Latencies of REQUESTS neighbours beside `count` guests that are replaced when they end."""
    neighbour = lab.template(HELLO, limits=LIMITS, service="neighbour")
    living = [lab.start(hostile) for _ in range(count)]
    ended: list[Run] = []
    latencies = []
    for _ in range(REQUESTS):
        run = lab.start(neighbour)
        lab.finish(run)
        assert run.ending is Ending.OK
        latencies.append(run.latency)
        for at, other in enumerate(living):
            if other.outcome is not None:
                ended.append(other)
                living[at] = lab.start(hostile)
    for other in living:
        if other.guest is not None and other.outcome is None:
            lab.runtime.end(other.guest, Outcome(Ending.SHUTDOWN))
    return sorted(latencies), ended


def p99_ms(what: str, latencies: list[float]) -> float:
    """The 99th percentile in milliseconds; prints it and its neighbours."""
    p99 = latencies[len(latencies) * 99 // 100] * 1e3
    p50, worst = latencies[len(latencies) // 2] * 1e3, latencies[-1] * 1e3
    print(f"neighbour beside {what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {worst:.2f} ms")
    return p99


@pytest.mark.parametrize("count", [8, SHARE])
def test_a_neighbour_of_endless_loops_is_answered_in_a_few_milliseconds(
    lab: Arena, count: int
) -> None:
    hostile = lab.template(LOOP, limits=LIMITS, service="hostile")
    overshoots = []
    for _ in range(WINDOWS):
        latencies, ended = besiege(lab, hostile, count)
        assert p99_ms(f"{count} loops", latencies) <= LONGEST_MS
        assert {run.ending for run in ended} <= {Ending.CPU_LIMIT}
        overshoots.append(max((run.cpu_ms for run in ended), default=50.0) - 50)
        if overshoots[-1] <= 10:
            return
    pytest.fail(f"no window in which each loop was stopped within 10 ms of its CPU: {overshoots}")


def test_a_neighbour_of_bulk_instructions_waits_for_one_at_a_time(lab: Arena) -> None:
    hostile = lab.template(FILL, limits=LIMITS, service="hostile")
    latencies, ended = besiege(lab, hostile, 8)
    assert p99_ms("8 guests that fill 16 MiB at a time", latencies) <= LONGEST_MS
    assert {run.ending for run in ended} == {Ending.CPU_LIMIT}

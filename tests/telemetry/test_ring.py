"""Requests between their end and the counters: exact at every instant, whoever is killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge.telemetry import layout
from edge.telemetry.ring import Ring
from edge.telemetry.shared import SharedCells

BLOCK, OTHER = 5, 6


class Killed(BaseException):
    """In the place of SIGKILL."""


class MortalCells:
    """The cells, until so many more have been written."""

    def __init__(self, cells: memoryview[int], writes: int) -> None:
        self._cells = cells
        self.writes = writes

    def __getitem__(self, at: Any) -> Any:
        return self._cells[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        if not self.writes:
            raise Killed
        self.writes -= 1
        self._cells[at] = value


def record(cells: SharedCells, block: int, count: int) -> None:
    made = cells.worker(0).block(block)
    for number in range(count):
        made.record(
            number % 3, 200 + number % 2, number % 2, 20_000, 15_000, 10_000, 9_000, 65_536, 3, 11,
            7, number,
        )  # fmt: skip


def numbers(cells: SharedCells) -> tuple[list[int], list[int], list[int]]:
    instantiate = cells.worker(0).histogram(layout.INSTANTIATE, layout.TIME_CELLS + 1)
    return cells.block_sum(BLOCK), cells.block_sum(OTHER), instantiate


def filled() -> SharedCells:
    cells = SharedCells.create(1, 8)
    record(cells, BLOCK, 30)
    record(cells, OTHER, 3)
    return cells


def test_a_scrape_sees_what_the_worker_has_not_added_yet() -> None:
    cells = filled()
    row = cells.block_sum(BLOCK)
    assert row[layout.REQUESTS + 2] == 10
    assert row[layout.QUEUE_SUM] == sum(range(30))
    assert not any(cells.cells[cells.block_base(0, BLOCK) :][: layout.PLAIN_CELLS])
    before = numbers(cells)
    cells.worker(0).fold()
    assert numbers(cells) == before
    assert cells.cells[cells.block_base(0, BLOCK) + layout.REQUESTS + 2] == 10
    cells.worker(0).fold()
    assert numbers(cells) == before


def test_a_full_ring_is_added_by_itself() -> None:
    cells = SharedCells.create(1, 8)
    record(cells, BLOCK, 3 * layout.RECORDS + 1)
    assert sum(cells.block_sum(BLOCK)[layout.REQUESTS : layout.OUTCOMES]) == 3 * layout.RECORDS + 1


def test_a_worker_killed_at_any_write_of_a_fold_loses_and_doubles_nothing() -> None:
    wanted = numbers(filled())
    for writes in range(1000):
        cells = filled()
        ring = cells.ring(0)
        mortal: Any = MortalCells(cells.cells, writes)
        base = cells.base(0)
        doomed = Ring(mortal, base + layout.ring_offset(8), base + layout.INSTANTIATE)
        try:
            doomed.fold()
        except Killed:
            if writes % 16 == 0:  # each look at such a ring takes 20 ms
                assert numbers(cells) == wanted, f"seen after {writes} writes"
            ring.recover()
            assert numbers(cells) == wanted, f"recovered after {writes} writes"
            record(cells, BLOCK, 1)
            assert cells.block_sum(BLOCK)[layout.BYTES_OUT] == 31 * 11
            cells.close()
        else:
            assert writes > 50
            return
    pytest.fail("the fold never ended")


def test_the_records_of_a_killed_worker_are_its_successors_to_add() -> None:
    cells = filled()
    wanted = numbers(cells)
    later = SharedCells.attach(cells.fd, 1, 8)
    assert numbers(later) == wanted
    later.worker(0).begin(1)
    assert numbers(later) == wanted == numbers(cells)
    record(later, BLOCK, 1)
    assert numbers(later)[0][layout.BYTES_OUT] == 31 * 11


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda ring, base: (base + layout.JOURNAL_SIZE, 1 << 40), id="journal size"),
        pytest.param(lambda ring, base: (base + layout.JOURNAL_SIZE, -1), id="negative size"),
    ],
)
def test_what_a_compromised_worker_left_harms_nobody(
    spoil: Callable[[Ring, int], tuple[int, int]],
) -> None:
    shared = SharedCells.create(2, 8)
    try:
        base = shared.base(0) + layout.ring_offset(8)
        cell, value = spoil(shared.ring(0), base)
        shared.cells[cell] = value
        shared.block_sum(2)  # a scrape
        shared.worker(0).end()
        assert shared.cells[base + layout.JOURNAL_SIZE] == 0
    finally:
        shared.close()


def test_a_journal_that_points_elsewhere_is_dropped() -> None:
    shared = SharedCells.create(2, 8)
    try:
        base = shared.base(0) + layout.ring_offset(8)
        other = shared.base(1) + layout.Gauge.SLOTS
        shared.cells[base + layout.JOURNAL] = other
        shared.cells[base + layout.JOURNAL + 1] = 777
        shared.cells[base + layout.JOURNAL_SIZE] = 1
        shared.worker(0).end()
        assert shared.cells[other] == 0, "another worker's cell is not this one's to write"
    finally:
        shared.close()


def test_a_wild_record_is_dropped() -> None:
    shared = SharedCells.create(1, 8)
    try:
        at = shared.base(0) + layout.ring_offset(8) + layout.RING_RECORDS
        shared.cells[at] = 1 << 50  # its block
        shared.cells[at + layout.RECORD_CELLS - 1] = 1
        shared.block_sum(2)
        shared.worker(0).end()
        assert shared.cells[at + layout.RECORD_CELLS - 1] == 0
    finally:
        shared.close()

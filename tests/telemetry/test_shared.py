"""The cells that all processes share: exact after SIGKILL, refused when foreign."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edge.telemetry import layout
from edge.telemetry.layout import Gauge, Refusal, Rejection, SoftLimit, Total, WorkerState
from edge.telemetry.shared import SharedCells

WORKER = """
import sys
from edge.telemetry.shared import SharedCells
fd, slot, count = map(int, sys.argv[1:4])
worker = SharedCells.attach(fd, 2, 8).worker(slot)
worker.begin(1)
block = worker.block(5)
block.set_in_flight(7)
done = 0
while count < 0 or done < count:
    block.record(0, 200, 0, 20_000, 15_000, 10_000, 9_000, 65_536, 3, 11, 7, 0)
    done += 1
    if done == 1000:
        print("going", flush=True)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cells() -> SharedCells:
    return SharedCells.create(2, 8)


def spawn(cells: SharedCells, slot: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(cells.fd), str(slot), str(count)],
        pass_fds=[cells.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_when(word: str, process: subprocess.Popen[str]) -> None:
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == word:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_totals_of_killed_workers_and_their_replacements_are_exact(cells: SharedCells) -> None:
    first = [spawn(cells, 0, 20_000), spawn(cells, 1, 30_000)]
    for process in first:
        kill_when("done", process)
    kill_when("done", spawn(cells, 0, 5_000))
    row = cells.block_sum(5)
    assert row[layout.REQUESTS + 2] == 55_000
    assert row[layout.OUTCOMES] == 55_000
    assert row[layout.DURATION + 3] == 55_000  # 20 us is below 40 us, not below 20
    assert row[layout.DURATION_SUM] == 55_000 * 20_000
    assert row[layout.BYTES_IN] == 55_000 * 3
    assert row[layout.BYTES_OUT] == 55_000 * 11
    assert row[layout.HOSTCALLS] == 55_000 * 7
    assert cells.worker(0).histogram(layout.INSTANTIATE, 2) == [0, 25_000]


def test_a_kill_in_the_middle_leaves_every_cell_within_one_request(cells: SharedCells) -> None:
    kill_when("going", spawn(cells, 1, -1))
    row = cells.block_sum(5)
    requests = row[layout.REQUESTS + 2]
    assert requests >= 1000
    assert requests - row[layout.OUTCOMES] in (0, 1)
    assert requests - sum(row[layout.CPU : layout.CPU + layout.TIME_CELLS]) in (0, 1)
    assert requests - row[layout.BYTES_OUT] / 11 in (0, 1)


def test_a_new_worker_zeroes_gauges_and_keeps_totals(cells: SharedCells) -> None:
    worker = cells.worker(1)
    worker.begin(41)
    worker.set(Gauge.CONNECTIONS, 9)
    worker.cells[worker.running_index] = 4
    worker.add(Total.FAULTS)
    worker.add(Rejection.MEMORY, 2)
    worker.add(Refusal.CLIENT_CAP, 3)
    worker.beat(123)
    worker.block(2).set_in_flight(6)
    assert worker.get(Gauge.RUNNING) == 4
    worker.begin(42)
    assert [worker.get(gauge) for gauge in Gauge] == [
        {Gauge.PID: 42, Gauge.STATE: WorkerState.STARTING}.get(gauge, 0) for gauge in Gauge
    ]
    assert cells.cells[worker.base + layout.IN_FLIGHT + 2] == 0
    assert worker.get(Total.FAULTS) == 1
    assert worker.get(Rejection.MEMORY) == 2
    assert worker.get(Refusal.CLIENT_CAP) == 3
    worker.end()
    assert worker.get(Gauge.PID) == 0
    assert worker.get(Gauge.STATE) == WorkerState.ABSENT


def test_no_layout_cell_overlaps_another() -> None:
    singles = [int(c) for kind in (Gauge, Total, Rejection, Refusal) for c in kind]
    histograms = [
        start + k
        for start in (layout.LOOP_LAG, layout.INSTANTIATE)
        for k in range(layout.TIME_CELLS + 1)
    ]
    worker = singles + histograms
    assert len(set(worker)) == len(worker)
    assert max(worker) < layout.IN_FLIGHT
    assert layout.method_index(b"PATCH") * 10 + 9 < layout.OUTCOMES
    assert layout.OTHER_METHOD * 10 + 9 < layout.OUTCOMES


def test_the_greatest_numbers_stay_within_their_own_block(cells: SharedCells) -> None:
    most = 2**62
    block = cells.worker(0).block(3, exact_codes=True)
    block.record(layout.OTHER_METHOD, 999, 18, most, most, most, most, most, most, most, most, most)
    block.limit_hit(SoftLimit.HEAD)
    block.log_bytes_dropped(5)
    assert not any(cells.block_sum(2, exact_codes=True))
    assert not any(cells.block_sum(4, exact_codes=True))
    row = cells.block_sum(3, exact_codes=True)
    assert row[layout.REQUESTS + layout.OTHER_METHOD * 10 + 9] == 1
    assert row[layout.CODES + 999] == 1
    for start, size in (
        (layout.DURATION, layout.TIME_CELLS),
        (layout.START, layout.TIME_CELLS),
        (layout.CPU, layout.TIME_CELLS),
        (layout.QUEUE, layout.TIME_CELLS),
        (layout.MEMORY, layout.MEMORY_CELLS),
    ):
        assert sum(row[start : start + size]) == 1
    assert sum(cells.worker(0).histogram(layout.INSTANTIATE, layout.TIME_CELLS)) == 1


def test_two_recorders_of_one_block_add_up(cells: SharedCells) -> None:
    worker = cells.worker(0)
    for block in (worker.block(1), worker.block(1), worker.block(1)):
        block.record(0, 404, 0, 1, 0, 0, 0, 0, 10, 20, 0, 0)
    row = cells.block_sum(1)
    assert row[layout.REQUESTS + 4] == 3
    assert row[layout.BYTES_OUT] == 60
    assert not any(row[layout.START : layout.DURATION_SUM])  # nothing began, no guest ran


def test_cells_of_another_shape_are_refused(cells: SharedCells) -> None:
    with pytest.raises(ValueError, match="disagree about the layout"):
        SharedCells.attach(cells.fd, 3, 8)
    with pytest.raises(ValueError, match="worker slot 2 of 2"):
        cells.worker(2)
    with pytest.raises(ValueError, match="service block 8 of 8"):
        cells.worker(0).block(8)


def test_no_process_can_shrink_the_file_under_the_others(cells: SharedCells) -> None:
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(cells.fd, 0)


def test_closed_cells_refuse_to_be_written() -> None:
    cells = SharedCells.create(1, 2)
    block = cells.worker(0).block(0)
    cells.close()
    with pytest.raises(TypeError, match="read-write"):
        block.record(0, 200, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1)

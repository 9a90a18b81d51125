"""Counters that all processes share: plain integers in one anonymous memory-mapped file.

Not a lock, not a queue, not a metric: names and sums are `collector.py`'s.

Every cell has exactly one writer, the worker whose region it is in, so `cells[i] += 1` needs no
lock and loses nothing.  What is written is in the kernel's pages at once: a worker killed by
SIGKILL takes nothing with it, and its replacement goes on adding to the same cells.  Aligned
eight-byte stores are single instructions, so the supervisor never reads half a number; it may read
a request's count before its duration, one request's worth of skew that the next scrape has not.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

from edge.telemetry.layout import (
    BLOCK_CELLS,
    CELL_BYTES,
    DEFAULT_BLOCKS,
    IN_FLIGHT,
    INSTANTIATE,
    LOOP_LAG,
    LOOP_LAG_SUM,
    PLAIN_CELLS,
    RESERVED_BLOCKS,
    TIME_UNIT_NS,
    Gauge,
    Refusal,
    Rejection,
    Total,
    WorkerState,
    ring_offset,
    worker_cells,
)
from edge.telemetry.ring import Ring
from edge.telemetry.service_block import ServiceBlock


class SharedCells:
    """The whole file, mapped.  The supervisor creates it; each worker attaches to the same fd."""

    def __init__(self, fd: int, workers: int, blocks: int) -> None:
        """Use `create` or `attach`; the descriptor stays the caller's to inherit, ours to close."""
        if workers < 1 or blocks < RESERVED_BLOCKS:
            raise ValueError(f"{workers} workers and {blocks} blocks: need 1 and {RESERVED_BLOCKS}")
        size = workers * worker_cells(blocks) * CELL_BYTES
        found = os.fstat(fd).st_size
        if found != size:
            raise ValueError(
                f"shared cells have {found} bytes, but {workers} workers of {blocks} blocks need "
                f"{size}: supervisor and worker disagree about the layout"
            )
        self.fd = fd
        self.workers = workers
        self.blocks = blocks
        self._map = mmap.mmap(fd, size)
        self.cells = memoryview(self._map).cast("q")
        self._rings = [
            Ring(self.cells, self.base(slot) + ring_offset(blocks), self.base(slot) + INSTANTIATE)
            for slot in range(workers)
        ]

    @classmethod
    def create(cls, workers: int, blocks: int = DEFAULT_BLOCKS) -> SharedCells:
        """New cells, all zero.  Memory is taken page by page as blocks are used.

        `OSError` when the kernel refuses the memory.
        """
        fd = os.memfd_create("edge-telemetry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, workers * worker_cells(blocks) * CELL_BYTES)
        # A file that shrinks under its mappings would end every process with SIGBUS.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return cls(fd, workers, blocks)

    @classmethod
    def attach(cls, fd: int, workers: int, blocks: int = DEFAULT_BLOCKS) -> SharedCells:
        """The cells behind an inherited descriptor; `ValueError` when the size is not ours."""
        return cls(fd, workers, blocks)

    def worker(self, slot: int) -> WorkerCells:
        """One worker's region.  Only that worker may write it, but for the cases named below."""
        if not 0 <= slot < self.workers:
            raise ValueError(f"worker slot {slot} of {self.workers}")
        return WorkerCells(self, slot)

    def base(self, slot: int) -> int:
        """Index of the first cell of a worker."""
        return slot * worker_cells(self.blocks)

    def block_base(self, slot: int, block: int) -> int:
        """Index of the first cell of a block; `ValueError` past the last one."""
        if not 0 <= block < self.blocks:
            raise ValueError(f"service block {block} of {self.blocks}")
        return self.base(slot) + IN_FLIGHT + self.blocks + block * BLOCK_CELLS

    def block_sum(self, block: int, *, exact_codes: bool = False) -> list[int]:
        """One block's cells, summed over all workers, in the order of `layout.py`."""
        size = BLOCK_CELLS if exact_codes else PLAIN_CELLS
        total = [0] * size
        for slot in range(self.workers):
            row = self._rings[slot].read(self.block_base(slot, block), size)
            if any(row):
                total = [a + b for a, b in zip(total, row, strict=True)]
        return total

    def ring(self, slot: int) -> Ring:
        """A worker's requests that its counters do not have yet."""
        return self._rings[slot]

    def zero_block(self, block: int) -> None:
        """Forget a block in every worker.  The supervisor's, and only when no worker can write it:

        every living worker has acknowledged a snapshot without the block and ended its last
        request (or has died).  Until then the worker is the one writer; from then the supervisor.
        """
        empty = memoryview(bytes(BLOCK_CELLS * CELL_BYTES)).cast("q")
        for slot in range(self.workers):
            base = self.block_base(slot, block)
            self.cells[base : base + BLOCK_CELLS] = empty
            self.cells[self.base(slot) + IN_FLIGHT + block] = 0

    def close(self) -> None:
        """Unmap and close.  Blocks handed out earlier raise `TypeError` when written after."""
        self.cells.release()
        self._map.close()
        with contextlib.suppress(OSError):
            os.close(self.fd)


class WorkerCells:
    """One worker's gauges and totals.  `RUNNING` is written around every poll of a guest:

    take `cells` and `running_index` once and assign `cells[running_index]` there.
    """

    __slots__ = ("_shared", "base", "cells", "ring", "running_index", "slot")

    def __init__(self, shared: SharedCells, slot: int) -> None:
        """See `SharedCells.worker`."""
        self._shared = shared
        self.ring = shared.ring(slot)
        self.cells = shared.cells
        self.slot = slot
        self.base = shared.base(slot)
        self.running_index = self.base + Gauge.RUNNING

    def begin(self, pid: int) -> None:
        """A worker starts here: gauges to zero (its predecessor may have been killed), totals kept.

        The supervisor reads `RUNNING` of a dead worker before it starts the next one.
        """
        self.ring.recover()
        for gauge in Gauge:
            self.cells[self.base + gauge] = 0
        for block in range(self._shared.blocks):
            self.cells[self.base + IN_FLIGHT + block] = 0
        self.cells[self.base + Gauge.PID] = pid
        self.cells[self.base + Gauge.STATE] = WorkerState.STARTING

    def end(self) -> None:
        """The supervisor's, after the process is gone: its gauges no longer describe anything."""
        self.begin(0)
        self.cells[self.base + Gauge.STATE] = WorkerState.ABSENT

    def set(self, gauge: Gauge, value: int) -> None:
        """Publish a gauge."""
        self.cells[self.base + gauge] = value

    def get(self, cell: Gauge | Total | Rejection | Refusal) -> int:
        """Read one cell, from any process."""
        return self.cells[self.base + cell]

    def add(self, cell: Total | Rejection | Refusal, count: int = 1) -> None:
        """Count something that happened in this worker."""
        self.cells[self.base + cell] += count

    def beat(self, monotonic_ns: int) -> None:
        """Say that the loop turns; `time.monotonic_ns()`."""
        self.cells[self.base + Gauge.HEARTBEAT_NS] = monotonic_ns

    def loop_lag(self, lag_ns: int) -> None:
        """Record by how much a loop timer came late."""
        lag_ns = max(lag_ns, 0)
        self.cells[self.base + LOOP_LAG + (lag_ns // TIME_UNIT_NS).bit_length()] += 1
        self.cells[self.base + LOOP_LAG_SUM] += lag_ns

    def histogram(self, start: int, size: int) -> list[int]:
        """Raw cells of one of this worker's histograms."""
        return self.ring.read(self.base + start, size)

    def fold(self) -> None:
        """Bring the counters up to date.  The worker's, before it says that a block is idle:

        the supervisor then takes the block's numbers away, and nothing may be added after that.
        """
        self.ring.fold()

    def block(self, index: int, *, exact_codes: bool = False) -> ServiceBlock:
        """The recorder of one service block; several for the same block in one worker are fine."""
        return ServiceBlock(
            self.ring,
            base=self._shared.block_base(self.slot, index),
            in_flight=self.base + IN_FLIGHT + index,
            exact_codes=exact_codes,
        )

"""Requests that a worker has ended and not yet added to its counters: a ring in shared memory.

Not the counters.  A request's record is one `pack_into`, 0.13 us, and `fold` adds up to `RECORDS`
of them column by column: 0.66 us a request in all, where adding each to seventeen cells took 1.17
(and 1.5 more than now in a worker, between other work).
Nothing is lost or counted twice when the worker is killed, wherever it is: a record exists
once its last cell is set, and what a fold is about to write stands in a journal before it begins,
so that whoever comes next (`recover`) finishes it.  A reader adds what has not been folded.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from struct import Struct
from typing import Final

from edge.telemetry.layout import (
    BLOCK_CELLS,
    BYTES_IN,
    BYTES_OUT,
    CELL_BYTES,
    CLASSES,
    CODES,
    CPU,
    CPU_SUM,
    DURATION,
    DURATION_SUM,
    ENDINGS,
    HOSTCALLS,
    INSTANTIATE,
    JOURNAL,
    JOURNAL_SIZE,
    MEMORY,
    MEMORY_SHIFT,
    MEMORY_SUM,
    OTHER_METHOD,
    OUTCOMES,
    QUEUE,
    QUEUE_SUM,
    RECORD_CELLS,
    RECORDS,
    REQUESTS,
    RING_RECORDS,
    RING_SEQUENCE,
    START,
    START_SUM,
    TIME_CELLS,
    TIME_UNIT_NS,
)

log = logging.getLogger("edge.telemetry")

Row = tuple[int, ...]

_SEQUENCE_MASK: Final = (1 << 62) - 1

# Block, method, status, ending, duration, start, CPU, instantiation, memory, bytes in, bytes out,
# hostcalls, queue, exact codes; the last cell says that the record is complete.
RECORD: Final = Struct(f"={RECORD_CELLS}q")
RECORD_BYTES: Final = RECORD_CELLS * CELL_BYTES
_EMPTY: Final = memoryview(bytes(RECORDS * RECORD_BYTES)).cast("q")


class Ring:
    """One worker's ring.  `at` and `end` are byte offsets in the file, for `pack_into`."""

    __slots__ = ("_base", "_instantiate", "_records", "at", "cells", "end")

    def __init__(self, cells: memoryview[int], base: int, instantiate: int) -> None:
        """`base` is the ring's first cell; `instantiate` that of the worker's histogram."""
        self.cells = cells
        self._base = base
        self._instantiate = instantiate
        self._records = base + RING_RECORDS
        self.end = (self._records + RECORDS * RECORD_CELLS) * CELL_BYTES
        self.at = self._records * CELL_BYTES + self._present() * RECORD_BYTES

    def fold(self) -> None:
        """Add all records to the counters and begin anew.  Only the ring's own worker may."""
        rows = self._rows()
        self.at = self._records * CELL_BYTES
        if not rows:
            return
        cells = self.cells
        changes: Counter[int] = Counter()
        for block in {row[0] for row in rows}:
            changes.update(self._tally(block, rows))
        cells[self._base + RING_SEQUENCE] += 1  # odd: readers come again
        at = self._base + JOURNAL
        for number, (cell, count) in enumerate(changes.items()):
            cells[at + 2 * number] = cell
            cells[at + 2 * number + 1] = cells[cell] + count
        cells[self._base + JOURNAL_SIZE] = len(changes)  # from here on it will be done
        self._finish()

    def recover(self) -> None:
        """Finish what a worker left that is gone."""
        if not self._sound():
            # Whatever wrote this was no worker of ours any more: its last records are lost.
            log.error("the records that a worker left make no sense: they are dropped")
            self._clear()
            self.at = self._records * CELL_BYTES
        elif self.cells[self._base + JOURNAL_SIZE]:
            self._finish()
            self.at = self._records * CELL_BYTES
        else:
            self.cells[self._base + RING_SEQUENCE] &= ~1
            self.at = self._records * CELL_BYTES + self._present() * RECORD_BYTES
            try:
                self.fold()
            except ValueError:  # sums beyond 64 bits: no request took that long either
                log.error("the records that a worker left add up to nonsense: they are dropped")
                self._clear()

    def _finish(self) -> None:
        cells, at = self.cells, self._base + JOURNAL
        for entry in range(at, at + 2 * cells[self._base + JOURNAL_SIZE], 2):
            cells[cells[entry]] = cells[entry + 1]
        self._clear()

    def _clear(self) -> None:
        cells = self.cells
        cells[self._records : self._records + RECORDS * RECORD_CELLS] = _EMPTY
        cells[self._base + JOURNAL_SIZE] = 0
        cells[self._base + RING_SEQUENCE] = (
            (cells[self._base + RING_SEQUENCE] | 1) + 1
        ) & _SEQUENCE_MASK

    def _sound(self) -> bool:
        """Whether all that stands here could come from a worker as we wrote it.

        A guest that broke out of its sandbox can write anything here, and other processes add it
        up: nothing that it says may lead them outside the worker's own counters.
        """
        cells, at = self.cells, self._base + JOURNAL
        first = self._instantiate - INSTANTIATE
        entries = cells[self._base + JOURNAL_SIZE]
        if not 0 <= entries <= (RING_RECORDS - JOURNAL) // 2:
            return False
        if any(not first <= cells[e] < self._base for e in range(at, at + 2 * entries, 2)):
            return False
        rows = self._rows()
        if not rows:
            return True
        columns = list(zip(*rows, strict=True))  # by columns, for the loops are C's
        return (
            min(map(min, columns)) >= 0
            and max(columns[1]) <= OTHER_METHOD
            and max(columns[2]) <= 999
            and max(columns[3]) < len(ENDINGS)
            and all(
                first <= block <= self._base - BLOCK_CELLS
                and (self._base - block) % BLOCK_CELLS == 0
                for block in set(columns[0])
            )
        )

    # Reading, from any process --------------------------------------------------------------

    def read(self, first: int, size: int) -> list[int]:
        """`size` cells from `first` on, with what the records here would add to them.

        Exact, also for a worker that was killed in the middle of a fold: a fold that has been odd
        for 20 ms is one, and its journal then stands for its records.
        """
        for _ in range(200):
            before = self.cells[self._base + RING_SEQUENCE]
            row = self._read(first, size)
            if not before & 1 and self.cells[self._base + RING_SEQUENCE] == before:
                return row
            time.sleep(0.0001)
        return self._read(first, size)

    def _read(self, first: int, size: int) -> list[int]:
        cells, at = self.cells, self._base + JOURNAL
        row = cells[first : first + size].tolist()
        if not self._sound():
            return row
        entries = cells[self._base + JOURNAL_SIZE]
        if entries:
            for entry in range(at, at + 2 * entries, 2):
                if first <= cells[entry] < first + size:
                    row[cells[entry] - first] = cells[entry + 1]
            return row
        rows = self._rows()
        for block in {found[0] for found in rows}:
            for cell, count in self._tally(block, rows).items():
                if first <= cell < first + size:
                    row[cell - first] += count
        return row

    def _present(self) -> int:
        """The number of complete records: they stand at the front."""
        return bisect_left(range(RECORDS), True, key=lambda record: not self._marked(record))

    def _marked(self, record: int) -> bool:
        return self.cells[self._records + (record + 1) * RECORD_CELLS - 1] != 0

    def _rows(self) -> list[Row]:
        stop = self._records + self._present() * RECORD_CELLS
        return list(RECORD.iter_unpack(self.cells[self._records : stop]))

    def _tally(self, block: int, rows: list[Row]) -> Counter[int]:
        """Cell by cell, what the rows of `block` come to; by columns, for the loops are C's."""
        add: Counter[int] = Counter()
        blocks = [row[0] for row in rows]
        mine = rows if blocks.count(block) == len(rows) else [r for r in rows if r[0] == block]
        if not mine:
            return add
        (
            _, methods, statuses, endings, durations, starts, cpu, instantiate, memory,
            bytes_in, bytes_out, hostcalls, queued, exact, _,
        ) = zip(*mine, strict=True)  # fmt: skip
        if len(_kinds(methods)) == 1:
            answered = {(methods[0], status): n for status, n in _kinds(statuses).items()}
        else:
            answered = dict(Counter(zip(methods, statuses, strict=True)))
        for (method, status), count in answered.items():
            add[block + REQUESTS + method * CLASSES + status // 100] += count
            if exact[0]:  # the same for all of a worker
                add[block + CODES + status] += count
        for ending, count in _kinds(endings).items():
            add[block + OUTCOMES + ending] += count
        _times(add, block + DURATION, block + DURATION_SUM, durations)
        _times(add, block + START, block + START_SUM, filter(None, starts))
        _times(add, block + QUEUE, block + QUEUE_SUM, filter(None, queued))
        _times(add, block + CPU, block + CPU_SUM, compress(cpu, memory))
        started = filter(None, compress(instantiate, memory))  # not by those served by one again
        _times(add, self._instantiate, self._instantiate + TIME_CELLS, started)
        for peak, count in _kinds(tuple(filter(None, memory))).items():
            # Sizes are whole pages, often a power of two: less one, so that 128 MiB counts as
            # at most 128 MiB.
            add[block + MEMORY + ((peak - 1) >> MEMORY_SHIFT).bit_length()] += count
        add[block + MEMORY_SUM] += sum(memory)
        add[block + HOSTCALLS] += sum(compress(hostcalls, memory))
        add[block + BYTES_IN] += sum(bytes_in)
        add[block + BYTES_OUT] += sum(bytes_out)
        return add


def _kinds(values: Sequence[int]) -> Mapping[int, int]:
    """How often each value occurs.  Mostly there is one, which is seen 30 times sooner."""
    if values and values.count(values[0]) == len(values):
        return {values[0]: len(values)}
    return Counter(values)


def _times(add: Counter[int], cells: int, total: int, values: Iterable[int]) -> None:
    """A histogram's part: one count for each bit length of the value in units of 5 us.

    Sorted, so that a bucket is one search: three quarters of the time of looking at each value.
    """
    ordered = sorted(values)
    if ordered:
        add[total] += sum(ordered)
        at = 0
        while at < len(ordered):
            length = (ordered[at] // TIME_UNIT_NS).bit_length()
            beyond = bisect_left(ordered, TIME_UNIT_NS << length, at)
            add[cells + length] += beyond - at
            at = beyond

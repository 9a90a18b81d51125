"""Counters of versions that are on their way out: given back once no worker can write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.layout import IN_FLIGHT
from edge.telemetry.shared import SharedCells

# The last request leaves the in-flight gauge before it is recorded, within one turn of its loop;
# two looks a second apart with nothing in flight are far beyond that.
QUIET_LOOKS: Final = 2


@dataclass(slots=True)
class _Leaving:
    generation: int  # the first one without it
    quiet: int = 0


class Retirement:
    """Versions that no new request reaches; some worker may still be running an old one."""

    def __init__(self, directory: BlockDirectory, cells: SharedCells) -> None:
        self._directory = directory
        self._cells = cells
        self._leaving: dict[Series, _Leaving] = {}
        self._held: frozenset[Series] = frozenset()

    def hold(self, series: Iterable[Series]) -> None:
        """Exactly these are about to be served: what becomes of them is decided later."""
        self._held = frozenset(series)

    def retire(self, series: Iterable[Series], generation: int) -> None:
        """From `generation` on these are not served."""
        for each in series:
            self._leaving[each] = _Leaving(generation)

    def keep(self, series: Iterable[Series]) -> None:
        """These are served: what came back before its counters were given away keeps them."""
        for each in series:
            self._leaving.pop(each, None)

    def forget(self, series: Iterable[Series]) -> None:
        """These were prepared and never served: nobody has written their counters."""
        for each in series:
            if each not in self._leaving:
                self._directory.release(each)

    def advance(self, oldest: int) -> None:
        """Look again; `oldest` is the lowest generation any living worker serves."""
        blocks = self._directory.assigned
        for series, leaving in list(self._leaving.items()):
            block = blocks.get(series)
            busy = block is not None and self._in_flight(block)
            early = busy or oldest < leaving.generation or series in self._held
            leaving.quiet = 0 if early else leaving.quiet + 1
            if leaving.quiet >= QUIET_LOOKS:
                del self._leaving[series]
                self._directory.release(series)

    def _in_flight(self, block: int) -> bool:
        cells = self._cells
        return any(
            cells.cells[cells.base(slot) + IN_FLIGHT + block] for slot in range(cells.workers)
        )

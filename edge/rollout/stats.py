"""Numbers of services and versions out of the shared cells, as the control API tells them.

They begin with the server.  A version that is not loaded any more leaves its numbers with its
service; of its own it has none then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edge.admin.control import ServiceStats
from edge.telemetry import layout
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.shared import SharedCells

_QUANTILES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
_CODES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_BACKENDS: Final = ("failed", "1xx", "2xx", "3xx", "4xx", "5xx")


class Stats:
    """Reads cells and the directory; may be asked from a thread."""

    def __init__(self, cells: SharedCells, directory: BlockDirectory) -> None:
        self._cells = cells
        self._directory = directory

    def of(
        self, service: str, version: int | None = None, *, owner: str = ""
    ) -> ServiceStats | None:
        """By name, and the id of a service of the catalogue: another of its name has its own.

        None when nothing of it has been loaded.
        """
        blocks = [
            block
            for series, block in self._directory.assigned.items()
            if series.owner == (service, owner) and version in (None, int(series.version))
        ]
        rows = [self._cells.block_sum(block) for block in blocks]
        retired = self._directory.retired(service, owner) if version is None else None
        if retired is not None:
            rows.append(retired[: layout.PLAIN_CELLS])
        if not rows:
            return None
        row = [sum(column) for column in zip(*rows, strict=True)]
        return ServiceStats(
            service=service,
            version=version,
            requests=sum(row[layout.REQUESTS : layout.OUTCOMES]),
            in_flight=sum(self._in_flight(block) for block in blocks),
            by_code=_by_code(row),
            by_outcome={
                ending.value: count
                for ending, count in zip(layout.ENDINGS, row[layout.OUTCOMES :], strict=False)
                if count
            },
            cpu_seconds=row[layout.CPU_SUM] / 1e9,
            wall_seconds=row[layout.DURATION_SUM] / 1e9,
            request_bytes=row[layout.BYTES_IN],
            response_bytes=row[layout.BYTES_OUT],
            wall_ms=_times(row[layout.DURATION : layout.START]),
            cpu_ms=_times(row[layout.CPU : layout.QUEUE]),
            memory_bytes=quantiles(
                row[layout.MEMORY : layout.DURATION_SUM], float(1 << layout.MEMORY_SHIFT)
            ),
            backends=self._backends(service, row),
        )

    def _in_flight(self, block: int) -> int:
        cells = self._cells
        return sum(
            cells.cells[cells.base(slot) + layout.IN_FLIGHT + block]
            for slot in range(cells.workers)
        )

    def _backends(self, service: str, row: Sequence[int]) -> Mapping[str, Mapping[str, int]]:
        found = {}
        for slot, name in self._directory.backend_names(service).items():
            start = layout.BACKENDS + slot * layout.BACKEND_CLASSES
            counts = dict(zip(_BACKENDS, row[start : start + layout.BACKEND_CLASSES], strict=True))
            if any(counts.values()):
                found[name] = {label: count for label, count in counts.items() if count}
        return found


def quantiles(cells: Sequence[int], unit: float) -> dict[str, float]:
    """Estimates from a histogram: cell 0 is below `unit`, cell k from `unit` * 2**(k - 1) on.

    Within a cell values are taken to be spread evenly; empty when there are none.
    """
    total = sum(cells)
    found: dict[str, float] = {}
    for name, share in _QUANTILES if total else ():
        wanted, below = share * total, 0
        for k, count in enumerate(cells):
            if count and below + count >= wanted:
                low, high = (unit * 2 ** (k - 1) if k else 0.0), unit * 2**k
                found[name] = low + (high - low) * (wanted - below) / count
                break
            below += count
    return found


def _times(cells: Sequence[int]) -> dict[str, float]:
    """In milliseconds."""
    found = quantiles(cells, layout.TIME_UNIT_NS / 1e6)
    return {name: round(value, 4) for name, value in found.items()}


def _by_code(row: Sequence[int]) -> dict[str, int]:
    found = dict.fromkeys(_CODES, 0)
    for at in range(layout.OUTCOMES):
        found[_CODES[min(at % layout.CLASSES, 5)]] += row[layout.REQUESTS + at]
    return {label: count for label, count in found.items() if count}

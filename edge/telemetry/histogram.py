"""Histograms whose bounds are powers of two: bounds, sums and one for the supervisor's own use.

Cell 0 holds values below the unit, cell k values below unit * 2**k; recording is one `bit_length`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from edge.telemetry.layout import MEMORY_SHIFT, TIME_CELLS, TIME_UNIT_NS


def time_bounds(finite: int) -> tuple[str, ...]:
    """The first `finite` upper bounds in seconds, 5 us doubling, as Prometheus spells them."""
    return tuple(repr((TIME_UNIT_NS << k) / 1e9) for k in range(finite))


def memory_bounds(finite: int) -> tuple[str, ...]:
    """The first `finite` upper bounds in bytes, 64 KiB doubling."""
    return tuple(repr(float(1 << (MEMORY_SHIFT + k))) for k in range(finite))


def buckets(cells: Sequence[int], bounds: Sequence[str]) -> list[tuple[str, float]]:
    """Cumulative buckets; everything past the last bound is in `+Inf`."""
    running = list(accumulate(cells))
    shown = [(bound, float(running[k])) for k, bound in enumerate(bounds)]
    shown.append(("+Inf", float(running[-1])))
    return shown


class TimeHistogram:
    """One histogram in ordinary memory, for what only the supervisor measures."""

    __slots__ = ("cells", "sum_ns")

    def __init__(self) -> None:
        """Empty."""
        self.cells = [0] * TIME_CELLS
        self.sum_ns = 0

    def observe(self, ns: int) -> None:
        """Record a duration in nanoseconds; a negative one counts as zero."""
        ns = max(ns, 0)
        self.cells[(ns // TIME_UNIT_NS).bit_length()] += 1
        self.sum_ns += ns

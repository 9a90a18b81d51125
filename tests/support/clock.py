"""A clock that stands still until a test moves it.  Implements `edge.clock.Clock`."""

from __future__ import annotations


class SteppedClock:
    """Both times start somewhere and move together, by `advance` only."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 784_111_777.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds

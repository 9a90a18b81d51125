"""The clocks, as a parameter: what needs time takes a `Clock`, and tests step one by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two ways to tell time, both in seconds as floats."""

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines and durations."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, for people and headers."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

"""RFC 3339 times in UTC with milliseconds, with the second cached: logs come many a second."""

from __future__ import annotations

import time


class Timestamps:
    """Formats wall-clock seconds; one per thread that formats."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        """Nothing cached."""
        self._second = -1
        self._text = ""

    def __call__(self, wall: float) -> str:
        """`2026-11-22T17:04:05.123Z` for seconds since 1970."""
        second = int(wall)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((wall - second) * 1000):03d}Z"

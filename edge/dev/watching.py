"""Notices that files have changed, by looking: works on every file system, mounts included."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.3

Mark = tuple[tuple[int, int, int] | None, ...]


class Changes:
    """Files that are looked at; `wait` gives way to whoever wants to read them again."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Changes count from here on."""
        self.watch(files)

    def watch(self, files: Iterable[Path]) -> None:
        """Look at these from now on."""
        self._files = sorted(files)
        self._seen = self._mark()

    async def wait(self, poll: float = POLL_SECONDS) -> None:
        """Return when a file has changed and stayed as it is for one look (s): it is complete."""
        while True:
            await asyncio.sleep(poll)
            mark = self._mark()
            if mark == self._seen:
                continue
            while True:
                await asyncio.sleep(poll)
                now = self._mark()
                if now == mark:
                    break
                mark = now
            if mark != self._seen:
                self._seen = mark
                return

    def _mark(self) -> Mark:
        return tuple(_look(path) for path in self._files)


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

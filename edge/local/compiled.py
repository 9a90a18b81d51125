"""Compiled modules of a user, kept between starts and shared by all local servers of that user."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from edge.runtime.artifacts import ArtifactCache
from edge.runtime.compile import Compiler
from edge.runtime.engine import fingerprint
from edge.settings import Compile

MAX_MODULE_BYTES: Final = 512 * 1024 * 1024


class CompiledModules:
    """The cache behind a compiler, used by one process at a time.

    A worker's cache has one supervisor that writes it; this one has as many as there are tests
    running, and what one of them is writing must not look like another's leavings.
    """

    def __init__(self, directory: Path, *, exceptions: bool) -> None:
        """Nothing is read or made before `start`."""
        self._directory = directory
        self._exceptions = exceptions

    async def start(self) -> Compiler:
        """Raises ConfigError when the directory cannot be used."""
        cache = ArtifactCache(self._directory, fingerprint=fingerprint(exceptions=self._exceptions))
        self._directory.mkdir(0o700, parents=True, exist_ok=True)
        async with self.alone():
            await asyncio.to_thread(cache.start)
        return Compiler(
            cache, Compile(), max_module_bytes=MAX_MODULE_BYTES, exceptions=self._exceptions
        )

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While no other process of this user compiles, or clears up after one that died."""
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)  # which ends the lock


def default_state_directory() -> Path:
    """Where a user's compiled modules are kept, unless somebody says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-dev"

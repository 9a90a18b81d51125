"""Removing modules that no version has any more.  What cannot go yet is tried again later."""

from __future__ import annotations

import asyncio

from edge.catalogue import services
from edge.catalogue.database import Catalogue
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Actor

_TIDIER = Actor("tidier")


class Tidier:
    """Call `tidy` after versions or services were deleted, and after uploads."""

    def __init__(self, catalogue: Catalogue, packages: PackageStore) -> None:
        self._catalogue = catalogue
        self._packages = packages
        self._later: set[str] = set()  # still held; bounded as what is taken below is

    async def tidy(self) -> int:
        """How many modules went.  Raises what `Catalogue.write` does, and forgets nothing then."""
        left, now = self._packages.take_left()
        self._later |= self._catalogue.take_orphans() | left
        candidates = set(self._later)
        if not candidates:
            return 0
        # It writes nothing, but comes after all writes that were on their way when uploads ended.
        unused = await self._catalogue.write(
            _TIDIER, lambda tx: services.unreferenced(tx, candidates)
        )
        gone = await asyncio.to_thread(
            lambda: {sha256 for sha256 in unused if self._packages.remove(sha256, now)}
        )
        # What has got a version again comes back as an orphan when it loses that.
        self._later -= (candidates - unused) | gone
        return len(gone)

"""Removing modules that no version has any more.  What cannot go yet is tried again later."""

from __future__ import annotations

import asyncio

from edge.catalogue import services
from edge.catalogue.database import Catalogue
from edge.catalogue.packages import PackageStore


class Tidier:
    """Call `tidy` after versions or services were deleted."""

    def __init__(self, catalogue: Catalogue, packages: PackageStore) -> None:
        self._catalogue = catalogue
        self._packages = packages
        self._later: set[str] = set()  # put too lately; bounded as the catalogue's orphans are

    async def tidy(self) -> int:
        """How many modules went.  Raises what `Catalogue.read` raises, and forgets nothing then."""
        self._later |= self._catalogue.take_orphans()
        candidates = set(self._later)
        if not candidates:
            return 0
        unused = await self._catalogue.read(lambda tx: services.unreferenced(tx, candidates))
        gone = await asyncio.to_thread(
            lambda: {sha256 for sha256 in unused if self._packages.remove(sha256)}
        )
        # What has got a version again comes back as an orphan when it loses that.
        self._later -= (candidates - unused) | gone
        return len(gone)

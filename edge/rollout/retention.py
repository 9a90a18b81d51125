"""Clears away the modules of versions that are gone.

One task.  Those that it has not come to when the server stops go at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from edge.catalogue.tidy import Tidier
from edge.errors import ApiRefused

log = logging.getLogger("edge.rollout")

PAUSE_SECONDS: Final = 1.0  # between two rounds: deploys in quick succession are cleared together
AGAIN_SECONDS: Final = 60.0  # modules that are held by uploads stay, and are tried again


class Retention:
    """One per server; `run` under one owner."""

    def __init__(self, tidier: Tidier) -> None:
        self._tidier = tidier
        self._wake = asyncio.Event()

    def pruned(self) -> None:
        """Packages may have lost their last reference."""
        self._wake.set()

    async def run(self) -> None:
        """Clear away what comes, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                gone = await self._tidier.tidy()
                if gone:
                    log.info("removed modules that no version has: %d", gone)
            except (ApiRefused, OSError) as error:
                log.warning("clearing away failed; it is tried again: %s", error)
            except Exception:  # a bug of ours must not end the server
                log.exception("clearing away failed")
            await asyncio.sleep(PAUSE_SECONDS)

"""Removes the values of KV stores that have gone, however they went and whatever came between.

The catalogue remembers which are to go until the engine has noted it durably; a crash on the way
erases again, which does nothing the second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Final

from edge.catalogue import erasures
from edge.catalogue.database import Catalogue
from edge.catalogue.records import Actor
from edge.errors import ApiRefused
from edge.stores.kv import KvEngine, KvFailed, identity_of

log = logging.getLogger("edge.rollout")

ACTOR: Final = Actor("eraser")
AT_ONCE: Final = 100  # stores of one round
PAUSE_SECONDS: Final = 1.0  # between two rounds of `run`
AGAIN_SECONDS: Final = 60.0  # after a failure


class Eraser:
    """One per server; `run` under one owner."""

    def __init__(self, catalogue: Catalogue, kv: KvEngine) -> None:
        self._catalogue = catalogue
        self._kv = kv
        self._wake = asyncio.Event()
        self._wake.set()  # what a server that was killed has left
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """Stores may have gone."""
        self._wake.set()

    async def run(self) -> None:
        """Erase what comes, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.erase()
            except (ApiRefused, KvFailed) as error:
                log.warning("erasing the values of a KV store failed; it is tried again: %s", error)
            except Exception:  # a bug of ours must not end the server
                log.exception("erasing the values of a KV store failed")
            await asyncio.sleep(PAUSE_SECONDS)

    async def erase(self) -> None:
        """All that have gone until now.  ApiRefused, KvFailed: the rest is still remembered."""
        async with self._turn:
            while gone := await self._catalogue.read(lambda tx: erasures.pending(tx, AT_ONCE)):
                for store in gone:
                    await self._erase(store)
                await self._catalogue.write(ACTOR, partial(erasures.forget, stores=gone))

    async def _erase(self, store: str) -> None:
        operation = self._kv.erase(identity_of("", "", store))
        if not operation.is_ready:
            over = asyncio.get_running_loop().create_future()
            operation.watch(lambda: None if over.done() else over.set_result(None))
            await over
        operation.result()

"""Watches canaries, and takes back those that do worse than their bounds allow.

What a canary may do is in the catalogue, so a restart forgets none; what it has done is in the
counters that workers share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from edge.catalogue import services
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.records import Actor, Canary, ServiceRecord
from edge.errors import ApiRefused
from edge.model.service import Role, Version
from edge.rollout.baselines import Baselines, is_unwatched
from edge.rollout.changes import Changes
from edge.rollout.verdict import breach
from edge.supervisor.fleet import Fleet
from edge.telemetry.supervisor_counters import SupervisorCounters

log = logging.getLogger("edge.rollout")

WATCH_SECONDS: Final = 0.25
ACTOR: Final = Actor("canary")


class Canaries:
    """One per server; `run` under one owner."""

    def __init__(
        self,
        catalogue: Catalogue,
        changes: Changes,
        fleet: Fleet,
        baselines: Baselines,
        counters: SupervisorCounters,
    ) -> None:
        self._catalogue = catalogue
        self._changes = changes
        self._fleet = fleet
        self._baselines = baselines
        self._ending: set[str] = set()  # ids of services whose canary is being ended
        self._counters = counters

    async def run(self) -> None:
        """Look every quarter of a second, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                try:
                    # Side by side: a service that is long at its own changes holds up no other.
                    for record, why in await self._judged():
                        tasks.create_task(self._end(record, why))
                except ApiRefused as refused:
                    log.warning("canaries cannot be watched now: %s", refused)
                except Exception:  # a bug of ours must not end the server
                    log.exception("watching canaries failed")

    async def look(self) -> None:
        """Judge what every canary has done until now, and end those that did badly."""
        await asyncio.gather(*(self._end(record, why) for record, why in await self._judged()))

    async def _judged(self) -> list[tuple[ServiceRecord, str]]:
        """Services whose canary is to end, and why; each until `_end` is over only once."""
        served = [v for v in self._fleet.world.snapshot.versions if v.role is Role.CANARY]
        if not served:
            return []
        found = await self._bad({version.id: version for version in served})
        self._ending |= {record.id for record, _ in found}
        return found

    async def _bad(self, served: Mapping[str, Version]) -> list[tuple[ServiceRecord, str]]:
        found: list[tuple[ServiceRecord, str]] = []
        for record, canary in await self._catalogue.read(_canaries):
            version = served.get(record.id)
            if version is None or version.number != canary.number or record.id in self._ending:
                continue  # it is on its way in or out
            why = breach(canary, self._baselines.done(version))
            if is_unwatched(version):  # at a start, with more versions than counters
                why = "no counters are left for it alone, so nobody could watch it"
            if version.quarantined:
                why = "it keeps killing workers"
            if why:
                found.append((record, why))
        return found

    async def _end(self, record: ServiceRecord, why: str) -> None:
        """Never raises: the next look finds what could not be ended."""
        assert record.canary is not None
        try:
            if await self._changes.end_canary(ACTOR, record.id, record.canary.number, why):
                self._counters.canary_rollbacks.add(record.name)
        except ApiRefused as refused:
            log.warning("a canary cannot be ended now: %s", refused, extra={"service": record.name})
        except Exception:  # a bug of ours must not end the server
            log.exception("ending a canary failed", extra={"service": record.name})
        finally:
            self._ending.discard(record.id)


def _canaries(tx: Transaction) -> list[tuple[ServiceRecord, Canary]]:
    return [(record, record.canary) for record in services.served(tx) if record.canary is not None]

"""Services see what changes in their stores: one task that publishes them again, without a deploy.

Changes that come together are published together.  A service that is being changed at this moment
is left for the next round, so that a long compilation holds up nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from edge.catalogue import services, stores
from edge.catalogue.database import Catalogue, Transaction
from edge.errors import ApiRefused, Refusal
from edge.rollout.errands import Errands
from edge.rollout.publisher import Built, Publisher
from edge.rollout.wanted import Serving

log = logging.getLogger("edge.rollout")

PAUSE_SECONDS: Final = 0.05  # between two rounds, or as long as the round took
TROUBLE_SECONDS: Final = 1.0  # when workers or the catalogue did not take one
MOST_SECONDS: Final = 60.0  # when workers refuse the same service again and again
# What is wrong with one service, and no reason for its neighbours to wait: a reload may give it a
# name below `deploy.domain` that another one has.
_OF_ONE: Final = (Refusal.NOT_ACTIVATED, Refusal.ROUTE_CONFLICT, Refusal.OWNED_BY_FILE)
# What passes by itself: nobody says again that the store has changed.
_PASSING: Final = (Refusal.BUSY, Refusal.STORAGE)


class Refresher:
    """One per server; `run` under one owner."""

    def __init__(self, catalogue: Catalogue, publisher: Publisher, errands: Errands) -> None:
        self._catalogue = catalogue
        self._publisher = publisher
        self._errands = errands
        self._stores: set[str] = set()
        self._services: set[str] = set()  # to be published again whatever they are linked to
        self._delays: dict[str, float] = {}  # of those that failed: seconds to the next try
        self._wake = asyncio.Event()

    def stores_changed(self, store_ids: Iterable[str]) -> None:
        """Contents of these are other ones now.

        A service that is being changed may have read them before: it is looked at again as well.
        """
        self._stores.update(store_ids)
        self._services |= self._errands.changing
        self._wake.set()

    def services_changed(self, service_ids: Iterable[str]) -> None:
        """What these are made of is something else now: their names, or the defaults."""
        self._services.update(service_ids)
        self._wake.set()

    async def run(self) -> None:
        """Publish what has changed, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            began, pause = time.monotonic(), PAUSE_SECONDS
            try:
                await self._round()
            except ApiRefused as refused:
                log.error("a changed store was not published; trying again: %s", refused)
                pause = TROUBLE_SECONDS
                self._wake.set()
            except Exception:  # a bug of ours must not end the server
                log.exception("publishing changed stores failed")
                pause = TROUBLE_SECONDS
            # Whoever changes a large store all the time gets half of our time at most.
            await asyncio.sleep(max(pause, time.monotonic() - began))

    async def _round(self) -> None:
        changed, again = set(self._stores), set(self._services)
        # Before the look: one that is being activated now may not be in the catalogue yet.
        busy = again & self._errands.changing
        linked = await self._catalogue.read(lambda tx: _linked(tx, changed, again))
        self._stores -= changed
        self._services = (self._services - again) | linked | busy
        for gone in self._delays.keys() & again - linked:
            del self._delays[gone]
        taken = linked - self._errands.changing
        self._services -= taken  # whoever is named again from here on is looked at again
        try:
            await self._publish(sorted(taken))
        except ApiRefused:
            self._services |= taken
            raise
        if self._services:
            self._wake.set()

    async def _publish(self, service_ids: Sequence[str]) -> None:
        async with AsyncExitStack() as turns:
            for service_id in service_ids:
                await turns.enter_async_context(self._errands.turn(service_id))
            built = [await self._build(service_id) for service_id in service_ids]
            changed = [each for each in built if each is not None]
            refused: list[str] = []
            try:
                if changed:
                    await self._publisher.publish(changed)
            except ApiRefused as error:
                if error.refusal not in _OF_ONE:
                    raise
                refused = await self._publish_each(changed)
            for each in changed:
                if each.id not in refused:
                    self._delays.pop(each.id, None)

    async def _publish_each(self, built: Sequence[Built]) -> list[str]:
        """One after another: a service that workers do not take must not hold up its neighbours.

        Returns the ids of those; each is tried again later, and later still when that fails too.
        """
        refused: list[str] = []
        for each in built:
            try:
                await self._publisher.publish([each])
            except ApiRefused as error:
                self._try_later(each.id)
                refused.append(each.id)
                log.error(
                    "a changed store was not published; trying again: %s",
                    error,
                    extra={"service": each.versions[0].service.name if each.versions else each.id},
                )
        return refused

    def _try_later(self, service_id: str) -> None:
        """Look at one service again after a while, which doubles each time in a row."""
        delay = self._delays.get(service_id, TROUBLE_SECONDS)
        self._delays[service_id] = min(2 * delay, MOST_SECONDS)
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self.services_changed, (service_id,))

    async def _build(self, service_id: str) -> Built | None:
        """The service as it is now; None when workers have that, or it cannot be had."""
        try:
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            built = await self._publisher.build(service_id, Serving.of(record))
        except ApiRefused as refused:
            log.error("service %s keeps what it has: %s", service_id, refused)
            if refused.refusal in _PASSING:
                self._try_later(service_id)
            return None
        if self._publisher.is_served(built):
            self._delays.pop(service_id, None)
            return None
        return built


def _linked(tx: Transaction, changed: Iterable[str], again: Iterable[str]) -> set[str]:
    """Ids of the services that serve a version linked to one of the stores, or were asked for."""
    served = {record.id for record in services.served(tx)}
    found = set(again) & served
    for store_id in changed:
        found.update(service_id for service_id, _ in stores.left(tx, store_id))
        found.update(service_id for service_id, _ in stores.linked(tx, store_id, served=True))
    return found

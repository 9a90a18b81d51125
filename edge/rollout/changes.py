"""What can be done to the versions of one service: activate, canary, roll back, stage, delete.

Each reads the catalogue when its turn has come, and changes workers and catalogue together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge.admin.control import Activated, Progress, no_progress
from edge.catalogue import services, versions
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.records import Actor, Canary, ServiceRecord
from edge.errors import ApiRefused, Refusal
from edge.model.service import Role, Version
from edge.rollout.baselines import Baselines, is_unwatched
from edge.rollout.conflicts import shared_hosts
from edge.rollout.errands import Errands
from edge.rollout.publisher import Built, Persist, Publisher
from edge.rollout.wanted import Serving
from edge.supervisor.fleet import Fleet
from edge.telemetry.supervisor_counters import SupervisorCounters

log = logging.getLogger("edge.rollout")

ALL: Final = 10_000  # clients in 10,000
_TOLD: Final = 8  # warnings of one change that the log has


class Changes:
    """One per server.  Nothing here runs by itself: `Errands` owns what does."""

    def __init__(
        self,
        catalogue: Catalogue,
        publisher: Publisher,
        fleet: Fleet,
        errands: Errands,
        baselines: Baselines,
        counters: SupervisorCounters,
        *,
        keep_versions: int,
        pruned: Callable[[], None],
    ) -> None:
        """`pruned` is told when packages may have lost their last reference, or stores gone."""
        self._catalogue = catalogue
        self._publisher = publisher
        self._fleet = fleet
        self._errands = errands
        self._baselines = baselines
        self._counters = counters
        self._keep_versions = keep_versions
        self._pruned = pruned

    async def activate(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        reason: str = "activate",
        progress: Progress = no_progress,
    ) -> Activated:
        """Have every worker serve a version.  Nothing is done when they do already."""
        async with self._errands.turn(service_id):
            return await self._activate(actor, service_id, number, reason, progress)

    async def _activate(
        self, actor: Actor, service_id: str, number: int, reason: str, progress: Progress
    ) -> Activated:
        begin = time.monotonic()
        record = await self._catalogue.read(lambda tx: _with_version(tx, service_id, number))
        if record.active == number and self._is_served(record, number):
            progress("activated", {"version": number, "unchanged": True})
            return self._done(record, number, number, begin)
        serving = replace(Serving.of(record), active=number)
        if serving.canary == number:
            serving = replace(serving, canary=None, share=0)

        def persist(tx: Transaction) -> None:
            services.set_active(tx, service_id, number, reason=reason)
            services.prune(tx, service_id, self._keep_versions)

        warnings = await self._change(record, serving, actor, persist, progress)
        self._counters.activations.add(reason)
        done = self._done(record, number, record.active, begin, warnings=warnings)
        log.info(
            "activated",
            extra={
                "service": record.name,
                "version": number,
                "previous": record.active,
                "seconds": round(done.seconds, 4),
                "generation": done.generation,
                "reason": reason,
                "actor": actor.name,
            },
        )
        progress("activated", {"version": number, "seconds": done.seconds})
        return done

    async def canary(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        share: int,
        max_error_rate: float,
        max_limit_rate: float,
        min_requests: int,
    ) -> Activated:
        """Give a share of the clients another version; all of them, or none, ends the canary."""
        async with self._errands.turn(service_id):
            if share >= ALL:
                return await self._activate(actor, service_id, number, "canary", no_progress)
            record = await self._catalogue.read(lambda tx: _with_version(tx, service_id, number))
            if share <= 0:
                if record.canary is None or record.canary.number != number:
                    raise ApiRefused(
                        Refusal.CONFLICT, f"version {number} of {record.name} is no canary"
                    )
                return await self._end_canary(actor, record, "rollback")
            if record.active is None:
                raise ApiRefused(
                    Refusal.CONFLICT,
                    f"no version of {record.name} is active, so there are no clients to share; "
                    "activate one first",
                )
            if record.active == number:
                raise ApiRefused(
                    Refusal.VERSION_ACTIVE,
                    f"version {number} of {record.name} is active and has all clients already",
                )
            return await self._begin_canary(
                actor, record, number, share, max_error_rate, max_limit_rate, min_requests
            )

    async def _begin_canary(
        self,
        actor: Actor,
        record: ServiceRecord,
        number: int,
        share: int,
        max_error_rate: float,
        max_limit_rate: float,
        min_requests: int,
    ) -> Activated:
        begin = time.monotonic()
        before = record.canary if record.canary and record.canary.number == number else None

        def persist(tx: Transaction) -> None:
            since = before.since if before else tx.now  # a larger share goes on with its counts
            canary = Canary(number, share, since, max_error_rate, max_limit_rate, min_requests)
            services.set_canary(tx, record.id, canary, reason="canary")

        def begin_counting(built: Built) -> None:
            canaries = [v for v in built.versions if v.role is Role.CANARY]
            if any(is_unwatched(version) for version in canaries):
                raise ApiRefused(
                    Refusal.LIMIT,
                    "no counters are left for this version alone, so nobody could watch it as a "
                    "canary; deactivate or unstage versions of other services, or activate it",
                )
            if before is None:
                self._baselines.keep([*self._canaries(), *canaries])
                for version in canaries:
                    self._baselines.begin(version)

        serving = replace(Serving.of(record), canary=number, share=share)
        warnings = await self._change(
            record, serving, actor, persist, no_progress, built=begin_counting
        )
        self._counters.activations.add("canary")
        log.info(
            "canary",
            extra={
                "service": record.name,
                "version": number,
                "share": share / ALL,
                "actor": actor.name,
            },
        )
        return self._done(record, number, record.active, begin, share=share, warnings=warnings)

    async def end_canary(self, actor: Actor, service_id: str, number: int, why: str) -> bool:
        """Take a canary away that did badly; False when it has gone already."""
        async with self._errands.turn(service_id):
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            if record.canary is None or record.canary.number != number:
                return False
            await self._end_canary(actor, record, "canary_rollback")
            log.warning(
                "canary rolled back: %s",
                why,
                extra={"service": record.name, "version": number, "active": record.active},
            )
            return True

    async def _end_canary(self, actor: Actor, record: ServiceRecord, reason: str) -> Activated:
        begin = time.monotonic()

        def persist(tx: Transaction) -> None:
            services.set_canary(tx, record.id, None, reason=reason)

        serving = replace(Serving.of(record), canary=None, share=0)
        await self._change(record, serving, actor, persist, no_progress)
        self._counters.activations.add(reason)
        assert record.canary is not None
        number = record.active or record.canary.number
        return self._done(record, number, record.canary.number, begin)

    async def rollback(self, actor: Actor, service_id: str) -> Activated:
        """The version that served before; with a canary, that is ended instead."""
        async with self._errands.turn(service_id):
            record, previous = await self._catalogue.read(
                lambda tx: (services.get(tx, service_id), services.previous_active(tx, service_id))
            )
            if record.canary is not None:
                return await self._end_canary(actor, record, "rollback")
            if previous is None:
                raise ApiRefused(
                    Refusal.CONFLICT, f"no earlier version of {record.name} can be returned to"
                )
            return await self._activate(actor, service_id, previous, "rollback", no_progress)

    async def deactivate(self, actor: Actor, service_id: str) -> None:
        """Serve no version of it publicly; a canary ends with what it was compared with."""
        async with self._errands.turn(service_id):
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            if record.active is None:
                return

            def persist(tx: Transaction) -> None:
                if record.canary is not None:
                    services.set_canary(tx, service_id, None, reason="deactivate")
                services.set_active(tx, service_id, None, reason="deactivate")

            serving = Serving(staged=record.staged)
            await self._change(record, serving, actor, persist, no_progress)
            self._counters.activations.add("deactivate")
            log.info("deactivated", extra={"service": record.name, "actor": actor.name})

    async def stage(self, actor: Actor, service_id: str, number: int | None) -> None:
        """Load a version for invocations alone; None unloads the one that is."""
        async with self._errands.turn(service_id):
            if number is None:
                record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            else:
                record = await self._catalogue.read(
                    lambda tx: _with_version(tx, service_id, number)
                )
            if record.staged == number:
                return

            def persist(tx: Transaction) -> None:
                services.set_staged(tx, service_id, number)

            serving = replace(Serving.of(record), staged=number)
            await self._change(record, serving, actor, persist, no_progress)
            log.info(
                "staged" if number else "unstaged",
                extra={"service": record.name, "version": number, "actor": actor.name},
            )

    async def refresh(self, actor: Actor, service_id: str) -> None:
        """Have workers serve what is remembered, under the name that the service has now."""
        async with self._errands.turn(service_id):
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            serving = Serving.of(record)
            if not serving.nothing:
                await self._change(record, serving, actor, _remember_nothing, no_progress)

    async def delete(self, actor: Actor, service_id: str, *, force: bool) -> str:
        """Remove a service with its versions, and return what its name was.

        `force` takes it from the clients it still has.
        """
        async with self._errands.turn(service_id):
            record = await self._catalogue.read(lambda tx: services.get(tx, service_id))
            served = record.active is not None or record.canary is not None
            if served and not force:
                raise ApiRefused(
                    Refusal.VERSION_ACTIVE,
                    f"{record.name} is being served; deactivate it first, or force it",
                )

            def persist(tx: Transaction) -> None:
                if record.canary is not None:
                    services.set_canary(tx, service_id, None, reason="deactivate")
                if record.active is not None:
                    services.set_active(tx, service_id, None, reason="deactivate")
                if record.staged is not None:
                    services.set_staged(tx, service_id, None)
                services.delete(tx, service_id)

            if any(v.id == service_id for v in self._fleet.world.snapshot.versions):
                await self._change(record, Serving(), actor, persist, no_progress)
            else:
                await self._catalogue.write(actor, persist)
            self._pruned()
            log.info("service deleted", extra={"service": record.name, "actor": actor.name})
            return record.name

    # Parts ------------------------------------------------------------------------------------

    async def _change(
        self,
        record: ServiceRecord,
        serving: Serving,
        actor: Actor,
        persist: Persist,
        progress: Progress,
        *,
        built: Callable[[Built], None] | None = None,
    ) -> tuple[str, ...]:
        """Build, publish and remember; the warnings for its developer."""

        def whole(tx: Transaction) -> None:
            if services.get(tx, record.id).revision != record.revision:
                self._refuse_other_serving(tx, record)
            persist(tx)

        try:
            made = await self._publisher.build(record.id, serving, progress=progress)
            if built is not None:
                self._inspect(made, built)
            await self._publisher.publish([made], actor=actor, persist=whole, progress=progress)
        except ApiRefused:
            self._counters.deploys.add(record.name, "refused")
            raise
        self._counters.deploys.add(record.name, "ok")
        self._pruned()
        world = self._fleet.world.snapshot.versions
        warnings = made.warnings + shared_hosts(record.id, made.versions, world)
        for text in warnings[:_TOLD]:  # Fastly's API has no place for them
            log.warning("deployed, but: %s", text, extra={"service": record.name})
        return warnings

    def _inspect(self, made: Built, built: Callable[[Built], None]) -> None:
        try:
            built(made)
        except ApiRefused:
            self._publisher.discard(made)
            raise

    @staticmethod
    def _refuse_other_serving(tx: Transaction, before: ServiceRecord) -> None:
        """What is served changes here alone, one at a time; the rest of a service may change."""
        if Serving.of(services.get(tx, before.id)) != Serving.of(before):
            raise ApiRefused(
                Refusal.CONFLICT, f"{before.name} was changed at the same time; try again"
            )

    def _is_served(self, record: ServiceRecord, number: int) -> bool:
        """Whether it answers its routes in every worker under this name, and nothing is wrong."""
        return any(
            version.number == number
            and version.service.name == record.name
            and version.role is Role.ACTIVE
            and not version.refused
            and not version.quarantined
            for version in self._fleet.world.versions_of(record.id)
        )

    def _canaries(self) -> list[Version]:
        return [v for v in self._fleet.world.snapshot.versions if v.role is Role.CANARY]

    def _done(
        self,
        record: ServiceRecord,
        number: int,
        previous: int | None,
        begin: float,
        *,
        share: int = ALL,
        warnings: tuple[str, ...] = (),
    ) -> Activated:
        return Activated(
            service=record.name,
            number=number,
            previous=previous,
            seconds=time.monotonic() - begin,
            generation=self._fleet.world.generation,
            share=share,
            warnings=warnings,
        )


def _remember_nothing(tx: Transaction) -> None:
    """For what is in the catalogue already."""


def _with_version(tx: Transaction, service_id: str, number: int) -> ServiceRecord:
    """The service; ApiRefused NOT_FOUND when it has no such version."""
    versions.get(tx, service_id, number)
    return services.get(tx, service_id)

"""The control plane: what the control API asks of the server, done with everything that is in it.

Changes of one service happen one after another, those of different services side by side.  Each is
an errand: once begun, it does not end half way because its client has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

from edge.admin.control import (
    Activated,
    FileService,
    Inspection,
    InvokeAnswer,
    InvokeRequest,
    LogFilter,
    Progress,
    ServiceStats,
    no_progress,
)
from edge.admin.status import Status
from edge.catalogue.records import Actor
from edge.errors import ApiRefused, Problem
from edge.model.limits import Limits
from edge.model.parse import Config
from edge.model.route import Route
from edge.rollout.canaries import Canaries
from edge.rollout.changes import Changes
from edge.rollout.conflicts import foreign_hosts
from edge.rollout.eraser import Eraser
from edge.rollout.errands import Errands
from edge.rollout.facts import configuration_of, file_services_of, nodes_of
from edge.rollout.inspector import Inspector
from edge.rollout.invoke import Invoker
from edge.rollout.lines import LineBook
from edge.rollout.loader import Loader
from edge.rollout.refresher import Refresher
from edge.rollout.retention import Retention
from edge.rollout.stats import Stats
from edge.stores.kv import KvFailed
from edge.supervisor.fleet import Fleet

log = logging.getLogger("edge.rollout")


class Plane:
    """Implements `edge.admin.control.ControlPlane`; `run` must be under way for most of it."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        loader: Loader,
        errands: Errands,
        changes: Changes,
        canaries: Canaries,
        refresher: Refresher,
        retention: Retention,
        eraser: Eraser,
        inspector: Inspector,
        invoker: Invoker,
        book: LineBook,
        stats: Stats,
        report: Callable[[], Status],
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._errands = errands
        self._changes = changes
        self._canaries = canaries
        self._refresher = refresher
        self._retention = retention
        self._eraser = eraser
        self._inspector = inspector
        self._invoker = invoker
        self._book = book
        self._stats = stats
        self._report = report

    async def run(self) -> None:
        """Own everything that happens here, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._errands.run())
            tasks.create_task(self._canaries.run())
            tasks.create_task(self._refresher.run())
            tasks.create_task(self._retention.run())
            tasks.create_task(self._eraser.run())
            tasks.create_task(self._invoker.run())

    async def stop(self) -> None:
        """Finish what nearly is and refuse everything else: workers are about to leave."""
        await self._errands.stop()

    def configured(self, config: Config) -> None:
        """A reload was published: what is deployed goes by its limits and rules from now on."""
        self._loader.config = config
        self._refresher.services_changed(
            {version.id for version in self._fleet.world.snapshot.versions if version.id}
        )

    # Changes ----------------------------------------------------------------------------------

    async def activate(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        reason: str = "activate",
        progress: Progress = no_progress,
    ) -> Activated:
        """See ControlPlane."""
        return await self._errands.do(
            partial(
                self._changes.activate, actor, service_id, number, reason=reason, progress=progress
            )
        )

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
        """See ControlPlane."""
        return await self._errands.do(
            partial(
                self._changes.canary,
                actor,
                service_id,
                number,
                share=share,
                max_error_rate=max_error_rate,
                max_limit_rate=max_limit_rate,
                min_requests=min_requests,
            )
        )

    async def rollback(self, actor: Actor, service_id: str) -> Activated:
        """See ControlPlane."""
        return await self._errands.do(partial(self._changes.rollback, actor, service_id))

    async def deactivate(self, actor: Actor, service_id: str) -> None:
        """See ControlPlane."""
        await self._errands.do(partial(self._changes.deactivate, actor, service_id))

    async def stage(self, actor: Actor, service_id: str, number: int) -> None:
        """See ControlPlane."""
        await self._errands.do(partial(self._changes.stage, actor, service_id, number))

    async def unstage(self, actor: Actor, service_id: str) -> None:
        """See ControlPlane."""
        await self._errands.do(partial(self._changes.stage, actor, service_id, None))

    async def refresh(self, actor: Actor, service_id: str) -> None:
        """See ControlPlane."""
        await self._errands.do(partial(self._changes.refresh, actor, service_id))

    async def delete_service(self, actor: Actor, service_id: str, *, force: bool) -> None:
        """See ControlPlane."""
        self._book.drop(
            await self._errands.do(partial(self._changes.delete, actor, service_id, force=force))
        )

    # Stores -----------------------------------------------------------------------------------

    async def stores_changed(self, store_ids: Sequence[str]) -> None:
        """See ControlPlane."""
        self._refresher.stores_changed(store_ids)

    async def store_deleted(self, store_id: str) -> None:
        """See ControlPlane."""
        try:
            await self._eraser.erase()
        except (ApiRefused, KvFailed) as failed:  # it has gone; its values go a little later
            log.warning("the values of KV store %s are erased later: %s", store_id, failed)
            self._eraser.wake()

    # Looking ----------------------------------------------------------------------------------

    async def inspect(
        self,
        module: bytes,
        *,
        limits: Limits | None = None,
        trap_unknown: bool = False,
        label: str = "",
        progress: Progress = no_progress,
    ) -> Inspection:
        """See ControlPlane."""
        return await self._inspector.inspect(
            module, limits=limits, trap_unknown=trap_unknown, label=label, progress=progress
        )

    async def invoke(
        self, actor: Actor, service_id: str, number: int, request: InvokeRequest
    ) -> InvokeAnswer:
        """See ControlPlane."""
        return await self._errands.do(
            partial(self._invoker.invoke, actor, service_id, number, request)
        )

    def stats(self, service: str, version: int | None = None) -> ServiceStats | None:
        """See ControlPlane."""
        present = self._fleet.world.snapshot.versions
        owner = next((one.id for one in present if one.service.name == service), None)
        return None if owner is None else self._stats.of(service, version, owner=owner)

    def lines(
        self, wanted: LogFilter, *, recent: int, follow: bool
    ) -> AsyncIterator[Mapping[str, object]]:
        """See ControlPlane."""
        return self._book.lines(wanted, recent=recent, follow=follow)

    def file_services(self) -> tuple[FileService, ...]:
        """See ControlPlane."""
        return file_services_of(self._fleet.world)

    def foreign_hosts(
        self, service_id: str, name: str, routes: Sequence[Route]
    ) -> tuple[Problem, ...]:
        """See ControlPlane."""
        domain = self._loader.config.settings.deploy.domain
        present = self._fleet.world.snapshot.versions
        return foreign_hosts(service_id, name, routes, present, domain)

    def is_loaded(self, service: str, number: int) -> bool:
        """See ControlPlane; `service` is a name or an id."""
        return any(
            version.number == number
            and service in (version.service.name, version.id)
            and not version.refused
            for version in self._fleet.world.snapshot.versions
        )

    def configuration(self) -> Mapping[str, object]:
        """See ControlPlane."""
        return configuration_of(self._loader.config.settings)

    def nodes(self) -> Sequence[Mapping[str, object]]:
        """See ControlPlane."""
        return nodes_of(self._report(), self._fleet.world)

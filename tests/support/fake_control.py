"""A control plane without workers: activations change the catalogue and nothing else.

Modules are looked at only for what tests put into them: the text `refuse me` makes a module that
cannot be served, `fail me` one that cannot be activated.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

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
from edge.catalogue import services
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.records import Actor, Canary, ServiceRecord
from edge.errors import ApiRefused, Problem, Refusal
from edge.model.limits import Limits
from edge.model.route import Route


@dataclass(slots=True)
class FakeControl:
    """See `edge.admin.control.ControlPlane`."""

    catalogue: Catalogue
    files: tuple[FileService, ...] = ()
    taken_hosts: tuple[str, ...] = ()  # another service answers on these
    failing: str = ""  # what an activation is refused with
    changed_stores: list[str] = field(default_factory=list)
    deleted_stores: list[str] = field(default_factory=list)
    inspected: list[str] = field(default_factory=list)  # labels
    refreshed: list[str] = field(default_factory=list)

    async def inspect(
        self,
        module: bytes,
        *,
        limits: Limits | None = None,
        trap_unknown: bool = False,
        label: str = "",
        progress: Progress = no_progress,
    ) -> Inspection:
        self.inspected.append(label)
        progress("compiling", {})
        problems = ("imports env.gone, which this server does not have",)
        return Inspection(
            sha256=hashlib.sha256(module).hexdigest(),
            size=len(module),
            imports=("fastly_http_req.body_downstream_get",),
            unknown_imports=(),
            exports=("_start", "memory"),
            memory_bytes=65536,
            memory_max_bytes=None,
            table_elements=0,
            compile_seconds=0.0125,
            code_bytes=4096,
            problems=problems if b"refuse me" in module else (),
        )

    async def activate(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        reason: str = "activate",
        progress: Progress = no_progress,
    ) -> Activated:
        if self.failing:
            raise ApiRefused(Refusal.NOT_ACTIVATED, self.failing)
        progress("linking", {})

        def work(tx: Transaction) -> Activated:
            before = services.get(tx, service_id)
            services.set_active(tx, service_id, number, reason=reason)
            return Activated(before.name, number, before.active, 0.02, 7)

        done = await self.catalogue.write(actor, work)
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
        def work(tx: Transaction) -> Activated:
            before = services.get(tx, service_id)
            if before.active is None:
                raise ApiRefused(Refusal.CONFLICT, "there is no active version beside it")
            if share == 10_000:
                services.set_active(tx, service_id, number, reason="canary")
            else:
                canary = Canary(number, share, tx.now, max_error_rate, max_limit_rate, min_requests)
                services.set_canary(tx, service_id, canary if share else None)
            return Activated(before.name, number, before.active, 0.02, 7, share)

        return await self.catalogue.write(actor, work)

    async def rollback(self, actor: Actor, service_id: str) -> Activated:
        number = await self.catalogue.read(lambda tx: services.previous_active(tx, service_id))
        if number is None:
            raise ApiRefused(Refusal.CONFLICT, "no other version has served before")
        return await self.activate(actor, service_id, number, reason="rollback")

    async def deactivate(self, actor: Actor, service_id: str) -> None:
        await self.catalogue.write(
            actor, lambda tx: services.set_active(tx, service_id, None, reason="deactivate")
        )

    async def stage(self, actor: Actor, service_id: str, number: int) -> None:
        await self.catalogue.write(actor, lambda tx: services.set_staged(tx, service_id, number))

    async def unstage(self, actor: Actor, service_id: str) -> None:
        await self.catalogue.write(actor, lambda tx: services.set_staged(tx, service_id, None))

    async def refresh(self, actor: Actor, service_id: str) -> None:
        if self.failing:
            raise ApiRefused(Refusal.NOT_ACTIVATED, self.failing)
        self.refreshed.append(service_id)

    async def delete_service(self, actor: Actor, service_id: str, *, force: bool) -> None:
        def work(tx: Transaction) -> None:
            record: ServiceRecord = services.get(tx, service_id)
            if force and record.active is not None:
                services.set_active(tx, service_id, None, reason="deactivate")
            if force and record.staged is not None:
                services.set_staged(tx, service_id, None)
            services.delete(tx, service_id)

        await self.catalogue.write(actor, work)

    async def stores_changed(self, store_ids: Sequence[str]) -> None:
        self.changed_stores += store_ids

    async def store_deleted(self, store_id: str) -> None:
        self.deleted_stores.append(store_id)

    async def invoke(
        self, actor: Actor, service_id: str, number: int, request: InvokeRequest
    ) -> InvokeAnswer:
        return InvokeAnswer(200, [("content-type", "text/plain")], b"hello", outcome="ok")

    def stats(self, service: str, version: int | None = None) -> ServiceStats | None:
        return None

    async def lines(
        self, wanted: LogFilter, *, recent: int, follow: bool
    ) -> AsyncIterator[Mapping[str, object]]:
        yield {"service": wanted.service, "line": "hello"}

    def file_services(self) -> tuple[FileService, ...]:
        return self.files

    def foreign_hosts(
        self, service_id: str, name: str, routes: Sequence[Route]
    ) -> tuple[Problem, ...]:
        return tuple(
            Problem(f"routes[{position}]", f"{route.host} belongs to service other")
            for position, route in enumerate(routes)
            if route.host in self.taken_hosts
        )

    def is_loaded(self, service: str, number: int) -> bool:
        return True

    def configuration(self) -> Mapping[str, object]:
        return {"server": {"workers": 1}}

    def nodes(self) -> Sequence[Mapping[str, object]]:
        return [{"name": "here"}]

"""What was served before the restart is served again: services of the catalogue at a start.

What cannot be loaded is refused alone, and the log says why; the others serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from edge.catalogue import services
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.records import ServiceRecord
from edge.errors import ApiRefused
from edge.model.route import Route
from edge.model.service import Role, Service
from edge.rollout.conflicts import check_file, refuse_taken
from edge.rollout.loader import Loader
from edge.rollout.publisher import Built, Publisher
from edge.rollout.wanted import Serving
from edge.supervisor.world import World

log = logging.getLogger("edge.rollout")

AT_ONCE: Final = 8  # services that are read at once; the compiler has a bound of its own


def check_start(catalogue: Catalogue, loader: Loader, file: Sequence[Service]) -> None:
    """ConfigError when the file claims a name or a route of what was deployed.  Blocks."""
    check_file(file, catalogue.read_now(lambda tx: _deployed(tx, loader)))


def _deployed(tx: Transaction, loader: Loader) -> list[tuple[str, Sequence[Route]]]:
    found: list[tuple[str, Sequence[Route]]] = []
    for record in services.served(tx):
        try:
            wanted = loader.load(tx, record.id, Serving.of(record))
        except ApiRefused:
            wanted = []  # it cannot be served; the log will say so
        active = [each.service.routes for each in wanted if each.role is Role.ACTIVE]
        found.append((record.name, active[0] if active else ()))
    return found


async def add_deployed(world: World, catalogue: Catalogue, publisher: Publisher) -> World:
    """`world` with everything that the catalogue says is served, as far as it can be."""
    records = await catalogue.read(services.served)
    turns = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        building = [tasks.create_task(_build(record, publisher, turns)) for record in records]
    for record, task in zip(records, building, strict=True):
        built = task.result()
        if built is None:
            continue
        try:
            refuse_taken(built.id, built.versions, world.snapshot.versions)
        except ApiRefused as refused:
            _complain(record, refused)
            publisher.discard(built)
        else:
            world = world.with_service(built.id, built.versions, built.artifacts)
    return world


def rebased(built: World, before: World, now: World) -> World:
    """`built`, which was made from `before`, with what has been deployed since then.

    Raises ConfigError when that has taken a name or a route of the file's.
    """
    if now.generation != before.generation:
        owners = {v.id for world in (before, now) for v in world.snapshot.versions if v.id}
        for owner in sorted(owners):
            if now.versions_of(owner) != before.versions_of(owner):
                built = built.with_service(owner, now.versions_of(owner), now.artifacts)
    return built


async def _build(
    record: ServiceRecord, publisher: Publisher, turns: asyncio.Semaphore
) -> Built | None:
    """All that is served of it, or else the active version alone, or else why that is not."""
    serving = Serving.of(record)
    async with turns:
        try:
            return await publisher.build(record.id, serving)
        except ApiRefused as refused:
            _complain(record, refused)
        try:
            return await publisher.build(record.id, Serving(active=serving.active))
        except ApiRefused as refused:
            why = refused.detail
        try:
            return await publisher.refused(record.id, serving, why)
        except ApiRefused:  # its definition is wrong, and has been complained of
            return None


def _complain(record: ServiceRecord, refused: ApiRefused) -> None:
    problems = "; ".join(map(str, refused.problems))
    log.error(
        "service not loaded: %s",
        f"{refused.detail}: {problems}" if problems else refused.detail,
        extra={"service": record.name, "version": record.active},
    )

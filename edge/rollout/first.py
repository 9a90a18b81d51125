"""What was served before the restart is served again: services of the catalogue at a start.

What cannot be loaded is refused alone, and the log says why; the others serve.  So is what no
longer fits beside the others: stores grow while a server runs, though workers keep what they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge.catalogue import entries, services
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.records import ServiceRecord
from edge.errors import ApiRefused, Refusal
from edge.model.route import Route
from edge.model.service import Role, Service, Version
from edge.rollout.conflicts import check_file, refuse_taken
from edge.rollout.loader import Loader
from edge.rollout.publisher import Built, Publisher
from edge.rollout.wanted import Serving
from edge.runtime.artifacts import Artifact
from edge.supervisor.world import World
from edge.transfer import room, room_of_one, size_of

log = logging.getLogger("edge.rollout")

AT_ONCE: Final = 8  # services that are read at once; the compiler has a bound of its own


def check_start(catalogue: Catalogue, loader: Loader, file: Sequence[Service]) -> None:
    """ConfigError when the file claims a name or a route of what was deployed.  Blocks."""
    check_file(file, catalogue.read_now(lambda tx: _deployed(tx, loader)))


def _deployed(tx: Transaction, loader: Loader) -> list[tuple[str, Sequence[Route]]]:
    found: list[tuple[str, Sequence[Route]]] = []
    for record in services.served(tx):
        try:
            wanted = loader.load(tx, record.id, Serving.of(record), stores=False)
        except ApiRefused:
            wanted = []  # it cannot be served; the log will say so
        active = [each.service.routes for each in wanted if each.role is Role.ACTIVE]
        found.append((record.name, active[0] if active else ()))
    return found


async def add_deployed(world: World, catalogue: Catalogue, publisher: Publisher) -> World:
    """`world` with everything that the catalogue says is served, as far as it can be."""
    records, sizes = await catalogue.read(
        lambda tx: (services.served(tx), entries.served_bytes(tx))
    )
    # The smallest first: where not all of them fit, those that take most stay behind.
    order = sorted(records, key=lambda record: (sizes.get(record.id, 0), record.name))
    turns = asyncio.Semaphore(AT_ONCE)
    space = _Space(room())
    space.take(await asyncio.to_thread(_size, world.snapshot.versions, world.artifacts))
    async with asyncio.TaskGroup() as tasks:
        building = {
            record.id: tasks.create_task(_build(record, publisher, turns, space))
            for record in order
        }
    for record in records:
        built = building[record.id].result()
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


@dataclass(slots=True)
class _Space:
    """Bytes that are left in what a worker can be sent."""

    left: int

    def take(self, size: int) -> bool:
        """Whether there was room."""
        if size > self.left:
            return False
        self.left -= size
        return True


def _size(versions: Iterable[Version], artifacts: Mapping[str, Artifact]) -> int:
    return sum(size_of(version, artifacts.get(version.sha256)) for version in versions)


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
    record: ServiceRecord, publisher: Publisher, turns: asyncio.Semaphore, space: _Space
) -> Built | None:
    """All that is served of it, or else the active version alone, or else why that is not."""
    serving = Serving.of(record)
    why = ""
    async with turns:
        for wanted in dict.fromkeys((serving, Serving(active=serving.active))):
            try:
                return await _fitting(await publisher.build(record.id, wanted), publisher, space)
            except ApiRefused as refused:
                _complain(record, refused)
                why = refused.detail
        try:
            return await _fitting(
                await publisher.refused(record.id, serving, why), publisher, space
            )
        except ApiRefused:  # its definition is wrong, and has been complained of
            return None


async def _fitting(built: Built, publisher: Publisher, space: _Space) -> Built:
    """The same.  ApiRefused LIMIT when workers could not be sent it beside the others."""
    size = await asyncio.to_thread(_size, built.versions, built.artifacts)
    if size <= room_of_one() and space.take(size):
        return built
    publisher.discard(built)
    raise ApiRefused(
        Refusal.LIMIT,
        f"its stores do not fit beside those of other services: it takes {size} bytes in workers, "
        f"one service may take {room_of_one()} and all {room()}; make them smaller and activate it "
        "again",
    )


def _complain(record: ServiceRecord, refused: ApiRefused) -> None:
    problems = "; ".join(map(str, refused.problems))
    log.error(
        "service not loaded: %s",
        f"{refused.detail}: {problems}" if problems else refused.detail,
        extra={"service": record.name, "version": record.active},
    )

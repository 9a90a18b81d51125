"""Brings what workers serve in line with what is wanted of services, durably where that is asked.

The order is the promise: build, have every worker prepare, remember it, have every worker commit.
Whatever fails before it is remembered changes nothing; after that the next start serves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from edge.admin.control import Progress, no_progress
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Actor
from edge.errors import ApiRefused, ConfigError, ModuleRefused, Refusal
from edge.model.service import Version
from edge.rollout.conflicts import refuse_foreign_hosts, refuse_taken
from edge.rollout.loader import Loader
from edge.rollout.wanted import Serving, Wanted
from edge.runtime.artifacts import Artifact
from edge.supervisor.breaker import Breaker
from edge.supervisor.fleet import Fleet, PublishFailed
from edge.supervisor.process import Phase
from edge.supervisor.world import World, WorldBuilder

WORKER_SECONDS: Final = 15.0  # for a worker to be ready: without one nothing can be tried
_LOOK_SECONDS: Final = 0.02
_ATTEMPTS: Final = 2  # a worker that dies while it prepares is replaced, and asked once more

Persist = Callable[[Transaction], None]


@dataclass(frozen=True, slots=True)
class Built:
    """Everything of one service that is to be served."""

    id: str
    versions: tuple[Version, ...]
    artifacts: Mapping[str, Artifact]  # by module hash
    wanted: tuple[Wanted, ...]
    only: int | None = None  # the number that this is about; the service's others stay as they are

    def within(self, world: World) -> tuple[Version, ...]:
        """All versions of the service that are to be served, in the place of those in `world`."""
        if self.only is None:
            return self.versions
        others = (v for v in world.versions_of(self.id) if v.number != self.only)
        return (*others, *self.versions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its developer should know, each once."""
        return tuple(dict.fromkeys(text for each in self.wanted for text in each.warnings))


class Publisher:
    """Builds versions of the catalogue and publishes them."""

    def __init__(
        self,
        catalogue: Catalogue,
        packages: PackageStore,
        loader: Loader,
        builder: WorldBuilder,
        fleet: Fleet,
        breaker: Breaker,
    ) -> None:
        self._catalogue = catalogue
        self._packages = packages
        self._loader = loader
        self._builder = builder
        self._fleet = fleet
        self._breaker = breaker

    async def build(
        self, service_id: str, serving: Serving, *, progress: Progress = no_progress
    ) -> Built:
        """Read and compile what is wanted of a service.  ApiRefused when it cannot be served."""
        wanted = await self._catalogue.read(lambda tx: self._loader.load(tx, service_id, serving))
        versions: list[Version] = []
        artifacts: dict[str, Artifact] = {}
        try:
            for each in wanted:
                version, artifact = await self._build_one(each, progress)
                versions.append(version)
                artifacts[each.sha256] = artifact
        except BaseException:
            self.discard(Built(service_id, tuple(versions), {}, ()))
            raise
        return Built(service_id, tuple(versions), artifacts, tuple(wanted))

    async def is_current(self, version: Version) -> bool:
        """Whether a version that is loaded, staged, is what the catalogue says of it."""
        serving = Serving(staged=version.number)
        wanted = await self._catalogue.read(lambda tx: self._loader.load(tx, version.id, serving))
        return [(w.service, w.sha256) for w in wanted] == [(version.service, version.sha256)]

    async def refused(self, service_id: str, serving: Serving, why: str) -> Built:
        """The active version as one that cannot be served: whoever asks for it is told so.

        It has no stores: nobody reads them.  ApiRefused when not even its routes are known.
        """
        active = Serving(active=serving.active)
        wanted = await self._catalogue.read(
            lambda tx: self._loader.load(tx, service_id, active, stores=False)
        )
        versions = tuple(
            Version(each.service, each.number, sha256=each.sha256, refused=why, id=each.id)
            for each in wanted
        )
        return Built(service_id, versions, {}, tuple(wanted))

    async def _build_one(self, wanted: Wanted, progress: Progress) -> tuple[Version, Artifact]:
        name = wanted.service.name
        try:
            return await self._builder.build_version(
                wanted.service,
                id=wanted.id,
                number=wanted.number,
                role=wanted.role,
                share=wanted.share,
                sha256=wanted.sha256,
                read=partial(self._packages.read, wanted.sha256),
                progress=progress,
            )
        except ModuleRefused as refused:
            raise ApiRefused(
                Refusal.MODULE_REFUSED, f"version {wanted.number} of {name}: {refused}"
            ) from refused
        except OSError as error:
            raise ApiRefused(
                Refusal.STORAGE, f"the package of {name} cannot be read or compiled: {error}"
            ) from error

    def discard(self, built: Built) -> None:
        """Forget what was built and will not be published."""
        self._fleet.discard_versions(built.versions)

    def is_served(self, built: Built) -> bool:
        """Whether workers have exactly this."""
        present = [v for v in self._fleet.world.snapshot.versions if v.id == built.id]
        return [replace(v, quarantined=False) for v in present] == list(built.versions)

    async def publish(
        self,
        built: Sequence[Built],
        *,
        actor: Actor | None = None,
        persist: Persist | None = None,
        progress: Progress = no_progress,
    ) -> World:
        """Have every worker serve this, and remember it with `persist` before they do.

        ApiRefused when they cannot or it cannot be remembered; then nothing has changed.
        """
        try:
            return await self._try(built, actor, persist, progress)
        except BaseException:
            for each in built:
                self.discard(each)
            raise

    async def _try(
        self,
        built: Sequence[Built],
        actor: Actor | None,
        persist: Persist | None,
        progress: Progress,
    ) -> World:
        def make(world: World) -> World:
            for each in built:
                present, versions = world.snapshot.versions, each.within(world)
                refuse_taken(each.id, versions, present)
                if actor is not None and actor.service_id:
                    domain = self._loader.config.settings.deploy.domain
                    refuse_foreign_hosts(each.id, versions, present, domain)
                world = world.with_service(each.id, versions, each.artifacts)
            return world.with_quarantined(self._breaker.quarantined)

        remember = None
        if persist is not None:
            assert actor is not None
            remember = partial(self._remember, built, actor, persist)
        for attempt in range(1, _ATTEMPTS + 1):
            await self._wait_for_worker()
            progress("linking", {"workers": len(self._fleet.workers)})
            try:
                world = await self._fleet.publish(make, strict=True, persist=remember)
            except PublishFailed as failed:
                if self._fleet.draining:
                    raise ApiRefused(
                        Refusal.STOPPING, "the server is stopping; nothing was changed"
                    ) from failed
                if attempt == _ATTEMPTS or any(failed.reasons):
                    raise _not_activated(failed) from failed
            except ConfigError as error:
                raise ApiRefused(
                    Refusal.ROUTE_CONFLICT, str(error), problems=error.problems
                ) from error
            else:
                self._builder.pin(world)
                return world
        raise AssertionError("the last attempt returns or raises")

    async def _remember(self, built: Sequence[Built], actor: Actor, persist: Persist) -> None:
        def write(tx: Transaction) -> None:
            for each in built:
                self._loader.refuse_changed(tx, each.wanted)
            persist(tx)

        await to_its_end(self._catalogue.write(actor, write))

    async def _wait_for_worker(self) -> None:
        """Until some worker can be asked: what nobody has tried to load is not activated."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WORKER_SECONDS
        while not any(worker.phase is Phase.READY for worker in self._fleet.workers):
            if loop.time() > deadline or self._fleet.draining:
                raise ApiRefused(
                    Refusal.BUSY, "no worker is ready to load it; nothing was changed, try again"
                )
            await asyncio.sleep(_LOOK_SECONDS)


async def to_its_end(work: Awaitable[None]) -> None:
    """Wait for `work` even when cancelled: what it wrote must not be forgotten half way.

    A cancellation that comes while it succeeds is not passed on: the rest takes microseconds.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        task.result()


def _not_activated(failed: PublishFailed) -> ApiRefused:
    return ApiRefused(
        Refusal.NOT_ACTIVATED,
        "; ".join(
            f"{label.partition('@')[0]}: {why}" if label else why
            for label, why in failed.reasons.items()
        ),
    )

"""A control plane over a real catalogue and a fake fleet that says in which order it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from edge.catalogue import services, versions
from edge.catalogue.database import Catalogue, CatalogueLimits, Transaction
from edge.catalogue.keyring import Keyring
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Actor, Package, ServiceRecord
from edge.clock import SystemClock
from edge.errors import ModuleRefused
from edge.model.parse import Config
from edge.model.service import Version
from edge.rollout.baselines import Baselines
from edge.rollout.changes import Changes
from edge.rollout.errands import Errands
from edge.rollout.loader import Loader
from edge.rollout.publisher import Publisher
from edge.rollout.refresher import Refresher
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler, Progress
from edge.runtime.inspect import ModuleInfo
from edge.settings import Settings
from edge.supervisor.breaker import Breaker
from edge.supervisor.fleet import Fleet, PublishFailed
from edge.supervisor.process import Phase
from edge.supervisor.world import World, WorldBuilder, empty_world
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

ALICE = Actor("alice", remote="192.0.2.7")


@dataclass
class FakeCompiler:
    """Every module compiles, but those whose text begins with `bad`."""

    held: dict[bytes, asyncio.Event] = field(default_factory=dict)  # what some modules wait for
    during: Callable[[], None] | None = None  # called while a module compiles

    async def artifact_named(
        self, sha256: str, read: Callable[[], bytes], service: str, progress: Progress
    ) -> Artifact:
        data = read()
        if data in self.held:
            await self.held[data].wait()
        if self.during is not None:
            self.during()
        if data.startswith(b"bad"):
            raise ModuleRefused(data.decode())
        info = ModuleInfo(sha256, len(data), "wasi", (), 0, (), start_function=False)
        return Artifact(Path(f"/{sha256}.code"), "digest", 1, info)

    def pin(self, sha256s: frozenset[str]) -> None:
        """Nothing is evicted."""


@dataclass
class FakeFleet:
    """Publishes as `edge.supervisor.fleet` promises to, to one worker that does as it is told."""

    world: World
    events: list[str] = field(default_factory=list)
    failures: list[Mapping[str, str]] = field(default_factory=list)  # of the next publications
    failing: str = ""  # a service of which nothing new can be loaded
    discarded: list[str] = field(default_factory=list)
    draining: bool = False
    workers: Sequence[SimpleNamespace] = (SimpleNamespace(phase=Phase.READY),)

    async def publish(
        self,
        make: Callable[[World], World],
        *,
        strict: bool,
        persist: Callable[[], Awaitable[None]] | None = None,
    ) -> World:
        assert strict
        candidate = make(self.world).numbered(self.world.generation + 1)
        self.events.append("prepare")
        if self.failures:
            raise PublishFailed(self.failures.pop(0))
        for version in candidate.snapshot.versions:
            if version.service.name == self.failing and version not in self.world.snapshot.versions:
                raise PublishFailed({version.label: "it does not link"})
        if persist is not None:
            await persist()
            self.events.append("remembered")
        self.world = candidate
        self.events.append("commit")
        return candidate

    def discard_versions(self, built: Iterable[Version]) -> None:
        present = self.world.snapshot.versions
        self.discarded += [version.label for version in built if version not in present]


class Yard:
    """Everything, and shortcuts for what tests do with it."""

    def __init__(self, folder: Path) -> None:
        keyring = Keyring(folder / "secrets.key")
        self.catalogue = Catalogue(
            folder / "catalogue.sqlite3",
            clock=SystemClock(),
            limits=CatalogueLimits(),
            keyring=keyring,
        )
        self.packages = PackageStore(folder)
        self.packages.start()
        self.catalogue.start()
        self.compiler = FakeCompiler()
        self.cells = SharedCells.create(1, 32)
        self.directory = BlockDirectory(self.cells)
        self.counters = SupervisorCounters()
        self.breaker = Breaker(SystemClock())
        self.fleet = FakeFleet(empty_world(Settings()))
        fleet = cast("Fleet", self.fleet)
        builder = WorldBuilder(
            cast("Compiler", self.compiler),
            self.directory,
            self.counters,
            known_imports={},
            max_module_bytes=1000,
        )
        self.loader = Loader(Config(Settings()), self.packages)
        self.publisher = Publisher(
            self.catalogue, self.packages, self.loader, builder, fleet, self.breaker
        )
        self.errands = Errands()
        self.baselines = Baselines(self.cells)
        self.prunings = 0
        self.changes = Changes(
            self.catalogue,
            self.publisher,
            fleet,
            self.errands,
            self.baselines,
            self.counters,
            keep_versions=100,
            pruned=self._pruned,
        )
        self.refresher = Refresher(self.catalogue, self.publisher, self.errands)

    def _pruned(self) -> None:
        self.prunings += 1

    def service(self, name: str, *modules: str) -> str:
        """The id of a service with a version for each module."""
        hashes = [self.packages.put(module.encode()) for module in modules]

        def work(tx: Transaction) -> str:
            made = services.create(tx, name)
            for sha256 in hashes:
                number = versions.create(tx, made.id).number
                versions.set_package(tx, made.id, number, Package(sha256, 1))
            return made.id

        return self.catalogue.write_now(ALICE, work)

    def record(self, service_id: str) -> ServiceRecord:
        return self.catalogue.read_now(lambda tx: services.get(tx, service_id))

    def served(self) -> list[str]:
        """`NAME@NUMBER ROLE` of every version that is served."""
        return [
            f"{v.service.name}@{v.number} {v.role.value}"
            for v in self.fleet.world.snapshot.versions
        ]

    def add(self, version: Version) -> None:
        """A version of the configuration file."""
        snapshot = self.fleet.world.snapshot
        self.fleet.world = World(
            replace(snapshot, versions=(*snapshot.versions, version)), self.fleet.world.artifacts
        )

    def close(self) -> None:
        self.catalogue.close()
        self.cells.close()


@asynccontextmanager
async def yard(folder: Path) -> AsyncIterator[Yard]:
    """A yard whose errands run."""
    made = Yard(folder)
    owner = asyncio.create_task(made.errands.run())
    await asyncio.sleep(0)
    try:
        yield made
    finally:
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)
        made.close()

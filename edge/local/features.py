"""What guests of a local server can reach: a worker's platform, with memory for what is kept."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final

from edge.abi.capabilities import Capabilities
from edge.clock import SystemClock
from edge.errors import ConfigError, HostcallError, Problem
from edge.local.faults import FaultyUpstream
from edge.local.world import LocalWorld, Seed
from edge.model.service import Version
from edge.platform import OnFailure, Platform
from edge.stores.kv import KvEngine, KvLimits, KvStore, identity_of, insertion_of
from edge.stores.kv_memory import MemoryKvEngine
from edge.stores.kv_settled import settled
from edge.stores.kv_sqlite import SqliteKvEngine
from edge.stores.rates_memory import MemoryRates
from edge.telemetry.service_block import ServiceBlock

MAX_CONNECTIONS: Final = 512
KV_FILE: Final = "kv.sqlite3"


class Features:
    """Of one local server; what a new world does not change lives on."""

    def __init__(
        self, world: LocalWorld, listening: tuple[str, int], on_failure: OnFailure
    ) -> None:
        """Opens nothing.  `listening`: our own address, which dynamic backends never reach.

        `on_failure` is told of each request to a backend that failed.
        """
        self._world = world  # that is served
        self._offered = world  # that is being prepared
        self._seeded: Mapping[str, Mapping[str, Seed]] = {}
        self.platform = Platform(
            world.settings,
            kv=_kv_engine(world),
            rates=MemoryRates(world.settings.storage.rate_bytes, time.monotonic),
            own_addresses=[listening],
            max_connections=MAX_CONNECTIONS,
            on_failure=on_failure,
            default_loopback=world.default_loopback,
        )

    async def start(self) -> None:
        """Raises ConfigError when the KV directory cannot be used."""
        directory = self._world.kv_directory
        if directory is not None:
            try:
                await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
            except OSError as error:
                problem = Problem("kv_directory", f"{directory}: {error.strerror}")
                raise ConfigError(problem) from error
        await self.platform.start()

    async def aclose(self) -> None:
        """Close connections and stores."""
        await self.platform.aclose()

    async def prepare(self, world: LocalWorld) -> None:
        """Before the services of a world are equipped.  Raises ConfigError, nothing changed."""
        if world.kv_directory != self._world.kv_directory:
            raise ConfigError(Problem("kv_directory", "cannot change while the server runs"))
        if world.default_loopback != self._world.default_loopback:
            problem = Problem("use_default_loopback", "cannot change while the server runs")
            raise ConfigError(problem)
        await self.platform.prepare(world.settings, world.services)
        self._offered = world

    async def commit(self, world: LocalWorld) -> None:
        """It is about to be served: plant the seeds that are new or have changed.

        Raises ConfigError for seeds that a KV store does not take.
        """
        for name, seeds in world.seeds.items():
            if self._seeded.get(name) != seeds:
                await _plant(self.kv_store(name), seeds, name)
        self._seeded = world.seeds
        self._world = world
        self.platform.commit(world.settings, world.services)

    @property
    def valid_keys(self) -> frozenset[str]:
        """`fastly-key` values that count as valid."""
        return self._world.valid_keys

    def kv_store(self, shared: str) -> KvStore:
        """A KV store by its shared name, as tests and seeds see it."""
        return self.platform.kv.open(identity_of("", "", shared))

    def equip(self, version: Version, block: ServiceBlock) -> Capabilities:
        """For the dispatcher: what guests of one version are given."""
        given = self.platform.equip(version, block)
        faults = self._offered.faults.get(version.service.name)
        if faults and given.upstream is not None:
            given.upstream = FaultyUpstream(given.upstream, faults, random.SystemRandom())
        return given


def _kv_engine(world: LocalWorld) -> KvEngine:
    storage = world.settings.storage
    limits = KvLimits(storage.kv_value_bytes, storage.kv_store_bytes, storage.kv_total_bytes)
    if world.kv_directory is None:
        return MemoryKvEngine(limits, SystemClock())
    return SqliteKvEngine(world.kv_directory / KV_FILE, limits, SystemClock())


async def _plant(store: KvStore, seeds: Mapping[str, Seed], name: str) -> None:
    problems = []
    for key, seed in seeds.items():
        try:
            await settled(store.insert(key, insertion_of(seed.data, metadata=seed.metadata)))
        except HostcallError as error:
            problems.append(Problem(f"kv_stores.{name}.{key}", str(error)))
    if problems:
        raise ConfigError(*problems)

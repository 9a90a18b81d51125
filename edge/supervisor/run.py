"""The supervisor's life: sockets, first world, workers, signals, reloads, and the orderly end.

It never creates an engine and never runs a guest.  Everything that can be wrong with a
configuration is found before anything is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final

import edge
from edge.admin.app import AdminApp
from edge.admin.around import Around
from edge.admin.status import ServiceStatus, Status, WorkerStatus
from edge.admin.tls import ServerTls
from edge.clock import SystemClock
from edge.errors import ConfigError, Problem
from edge.hostmodules import known_imports
from edge.model.parse import Config
from edge.process_log import open_log, start_log
from edge.rollout.compose import Server, control_plane
from edge.rollout.conflicts import check_file
from edge.rollout.facts import deployed_routes, state_of
from edge.rollout.first import add_deployed, check_start, rebased
from edge.rollout.loader import Loader
from edge.rollout.plane import Plane
from edge.rollout.publisher import Publisher
from edge.rollout.storage import Storage, kv_engine, open_storage
from edge.runtime.artifacts import Artifact, ArtifactCache
from edge.runtime.compile import Compiler
from edge.server.listener import Listener
from edge.settings import CodeLabel, Settings
from edge.stores.rates_file import choose_directory, discard, prepare
from edge.supervisor.admin_side import (
    address_of,
    admin_listeners,
    close_admin,
    control_app,
    open_admin,
    open_tls,
)
from edge.supervisor.breaker import Breaker
from edge.supervisor.fleet import Fleet, PublishFailed
from edge.supervisor.launch import Launch
from edge.supervisor.reloading import check_ceilings, clamped, differing, reloaded
from edge.supervisor.sizing import machine_memory, raise_descriptor_limit, sizing, worker_count
from edge.supervisor.sockets import PublicSockets
from edge.supervisor.watching import WatchPorts
from edge.supervisor.world import World, WorldBuilder, empty_world
from edge.telemetry.collector import EdgeCollector
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.exposition import Exposition
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

log = logging.getLogger("edge.supervisor")

EXIT_OK: Final = 0
EXIT_CONFIG: Final = 2
WATCH_SECONDS: Final = 0.1
LATE_SECONDS: Final = 0.5  # when we are this late ourselves, a worker's silence proves nothing
RETIRE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs from the first world to the last request."""

    fleet: Fleet
    builder: WorldBuilder
    compiler: Compiler
    storage: Storage
    publisher: Publisher
    plane: Plane
    tls: ServerTls | None  # of the control API


class Supervisor:
    """One per server.  `load` reads the configuration again and may raise ConfigError."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        """Opens nothing before `run`."""
        self._config = config
        self._settings = config.settings
        self._load = load
        self._status = EXIT_OK
        self._counters = SupervisorCounters()
        self._breaker = Breaker(SystemClock())
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._attention = asyncio.Event()
        self._stops = 0
        self._fleet: Fleet | None = None
        self._lost: dict[str, str] = {}  # services that workers cannot load, and why
        self._repaired: dict[str, Artifact] = {}  # by module hash

    async def run(self) -> int:
        """Serve until told to stop; returns the exit status.

        Raises ConfigError, with nothing started and nothing left open, when it cannot begin.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        descriptors = raise_descriptor_limit()
        workers = worker_count(settings)
        with contextlib.ExitStack() as opened:
            share = sizing(
                settings, self._config.ceilings, workers=workers, memory=machine_memory()
            )
            cache, fingerprint = _open_cache(settings, share.slots, self._config)
            sockets = PublicSockets(settings.server.listen, workers)
            sockets.open()
            opened.callback(sockets.close)
            tls = open_tls(settings)
            admin = open_admin(settings, opened)
            log_fd = open_log(settings.log)
            opened.callback(os.close, _claim(settings.state_dir))
            storage = open_storage(settings, opened)
            loader = Loader(self._config, storage.packages)
            check_start(storage.catalogue, loader, self._config.services)
            rates = prepare(
                choose_directory(settings.state_dir, settings.storage.rate_bytes),
                settings.storage.rate_bytes,
            )
            opened.callback(discard, rates)
            cells = SharedCells.create(workers)
            opened.callback(cells.close)
            sink = start_log(settings.log, log_fd, lock_fd=cells.fd, process="supervisor")
            opened.callback(sink.close)
            directory = BlockDirectory(cells)
            compiler = Compiler(
                cache,
                settings.compile,
                max_module_bytes=settings.admin.package_bytes,
                exceptions=settings.wasm.exceptions,
            )
            builder = WorldBuilder(
                compiler,
                directory,
                self._counters,
                known_imports=known_imports(),
                max_module_bytes=settings.admin.package_bytes,
            )
            watch = WatchPorts(loop)
            opened.callback(watch.close_all)
            fleet = self._fleet = Fleet(
                Launch(
                    workers,
                    sockets,
                    cells,
                    log_fd,
                    share,
                    rates,
                    tuple(address_of(sock) for sock, _ in admin),
                    watch,
                ),
                empty_world(settings),
                cells=cells,
                directory=directory,
                counters=self._counters,
                breaker=self._breaker,
                attention=self._attention.set,
            )
            exposition = Exposition(
                EdgeCollector(
                    cells,
                    directory,
                    self._counters,
                    build={
                        "version": edge.__version__,
                        "wasmtime": metadata.version("wasmtime"),
                        "python": ".".join(map(str, _python())),
                    },
                    exact_codes=settings.metrics.code is CodeLabel.EXACT,
                )
            )
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop_signal)
            loop.add_signal_handler(signal.SIGHUP, self._reload.set)
            log.info(
                "starting",
                extra={
                    "listen": ", ".join(map(str, sockets.addresses)),
                    "admin": address_of(admin[0][0]),
                    "metrics": address_of(admin[-1][0]),
                    "workers": workers,
                    "slots": share.slots,
                    "memory_budget": share.memory_budget,
                    "descriptors": descriptors,
                    "engine": fingerprint,
                },
            )
            if storage.made_token:
                log.info(
                    "a token for the control API was made; whoever reads this file may do anything",
                    extra={"file": str(storage.token_file)},
                )
            self._counters.catalogue = storage.write_statistics
            kv = kv_engine(settings)
            await kv.start()
            plane, publisher = control_plane(
                storage,
                loader,
                Server(
                    fleet=fleet,
                    breaker=self._breaker,
                    builder=builder,
                    compiler=compiler,
                    cells=cells,
                    directory=directory,
                    watch=watch,
                    counters=self._counters,
                    kv=kv,
                    known_imports=known_imports(),
                    report=self._report,
                ),
            )
            around = Around(
                catalogue=storage.catalogue,
                packages=storage.packages,
                keyring=storage.keyring,
                control=plane,
                kv=kv,
                settings=settings,
                document=lambda: loader.config,
                clock=SystemClock(),
                report=self._report,
                listens=lambda: sockets.addresses,
            )
            app = control_app(around, exposition.render, loop)
            listeners = admin_listeners(admin, app, loop, tls=tls)
            parts = _Parts(fleet, builder, compiler, storage, publisher, plane, tls)
            try:
                await self._serve(parts, listeners, app)
            finally:
                await kv.aclose()
            sockets.close()
        return self._status

    # Running ----------------------------------------------------------------------------------

    async def _serve(self, parts: _Parts, listeners: list[Listener], app: AdminApp) -> None:
        fleet = parts.fleet
        for listener in listeners:
            listener.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._work(parts))
                stopping = tasks.create_task(self._stop.wait())
                await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    log.info("draining", extra={"seconds": self._settings.server.drain})
                    await parts.plane.stop()
                    await fleet.drain(self._settings.server.drain)
                    work.cancel()
                stopping.cancel()
        finally:
            fleet.kill()
            await close_admin(listeners, app)
            log.info("stopped", extra={"status": self._status})

    async def _work(self, parts: _Parts) -> None:
        fleet, builder = parts.fleet, parts.builder
        first = await builder.build(self._config.services, self._settings, before=fleet.world)
        first = await add_deployed(first, parts.storage.catalogue, parts.publisher)
        world = await fleet.publish(lambda _: first, strict=False)
        builder.pin(world)
        self._counters.reload(ok=True, wall=time.time())
        _tell(world)
        for note in sorted(parts.compiler.notes):
            log.warning("%s", note)
        async with asyncio.TaskGroup() as tasks:
            for slot in range(worker_count(self._settings)):
                tasks.create_task(fleet.keep(slot))
            tasks.create_task(self._watch(fleet))
            tasks.create_task(self._attend(fleet, builder))
            tasks.create_task(parts.plane.run())
            tasks.create_task(self._reload_on_signal(parts))

    async def _watch(self, fleet: Fleet) -> None:
        loop = asyncio.get_running_loop()
        retire = lift = loop.time()
        while True:
            due = loop.time() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            now = loop.time()
            if now - due <= LATE_SECONDS:
                fleet.watch()
            if now >= retire:
                retire = now + RETIRE_SECONDS
                fleet.retire()
            if now >= lift:
                lift = now + RETIRE_SECONDS
                if self._breaker.lift_expired():
                    self._attention.set()

    async def _attend(self, fleet: Fleet, builder: WorldBuilder) -> None:
        """Publish what cannot wait for a reload: quarantines, and services no worker can load."""
        while True:
            await self._attention.wait()
            self._attention.clear()
            if fleet.unusable and not any(worker.generation for worker in fleet.workers):
                for problem in fleet.unusable:
                    log.error("cannot start: %s", problem)
                self._status = EXIT_CONFIG
                self._stop.set()
                return
            self._lost = fleet.take_refusals()
            if fleet.damaged:
                fleet.damaged = False
                self._repaired, lost = await builder.repair(fleet.world)
                self._lost |= lost
            world = await fleet.publish(self._safer, strict=False)
            builder.pin(world)
            _tell(world)

    def _safer(self, world: World) -> World:
        repaired = world.with_artifacts(self._repaired).with_refused(self._lost)
        return repaired.with_quarantined(self._breaker.quarantined)

    async def _reload_on_signal(self, parts: _Parts) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                await self._reload_once(parts)
            except (ConfigError, PublishFailed) as error:
                self._counters.reload(ok=False, wall=time.time())
                for line in str(error).splitlines():
                    log.error("not reloaded: %s", line)
            except Exception:
                self._counters.reload(ok=False, wall=time.time())
                log.exception("not reloaded")

    async def _reload_once(self, parts: _Parts) -> None:
        fleet, builder = parts.fleet, parts.builder
        config = await asyncio.to_thread(self._load)
        check_ceilings(config, fleet.sizing)
        settings = reloaded(self._settings, config.settings)
        for name in differing(settings, config.settings):
            log.warning("%s has changed; that takes effect after a restart", name)
        before = fleet.world
        check_file(config.services, deployed_routes(before))
        built = await builder.build(config.services, settings, before=before)
        worse = {n: why for n, why in built.refused.items() if n not in before.refused}
        if worse:
            fleet.discard(built)
            raise PublishFailed(worse)
        if parts.tls is not None:
            await asyncio.to_thread(parts.tls.load)
        self._breaker.reset()
        world = await fleet.publish(lambda now: rebased(built, before, now), strict=True)
        builder.pin(world)
        self._config = config
        self._settings = settings
        parts.plane.configured(clamped(replace(config, settings=settings), fleet.sizing))
        self._counters.reload(ok=True, wall=time.time())
        log.info("reloaded", extra={"generation": world.generation})
        _tell(world)

    def _stop_signal(self) -> None:
        self._stops += 1
        self._stop.set()
        if self._stops > 1 and self._fleet is not None:
            log.warning("told to stop again: ending every worker now")
            self._fleet.kill()

    def _report(self) -> Status:
        fleet = self._fleet
        assert fleet is not None, "the control API starts after the fleet"
        return Status(
            version=edge.__version__,
            ready=fleet.ready,
            draining=fleet.draining,
            generation=fleet.world.generation,
            workers=tuple(
                WorkerStatus(w.slot, w.pid, w.phase.value, w.generation) for w in fleet.workers
            ),
            services=tuple(
                ServiceStatus(
                    v.service.name,
                    v.number,
                    v.sha256,
                    state_of(v),
                    v.refused,
                    v.id,
                    v.role.value,
                )
                for v in fleet.world.snapshot.versions
            ),
        )


def _open_cache(settings: Settings, slots: int, config: Config) -> tuple[ArtifactCache, str]:
    """The artifact cache, once it is clear that the pool fits.  Raises ConfigError."""
    # Imported for its arithmetic; no engine is created in this process.
    from edge.runtime.engine import PoolSettings, fingerprint, refuse_what_cannot_fit

    ceilings = config.ceilings
    refuse_what_cannot_fit(PoolSettings(slots, ceilings.memory, ceilings.table_elements))
    found = fingerprint(exceptions=settings.wasm.exceptions)
    cache = ArtifactCache(settings.state_dir, fingerprint=found)
    cache.start()
    return cache, found


def _claim(state_dir: Path) -> int:
    """A descriptor that keeps other servers out: two would take each other's rate counters away.

    The kernel lets go of it with this process, however that ends.  Raises ConfigError.
    """
    descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        taken = isinstance(error, BlockingIOError)
        why = "is in use by another server" if taken else f"cannot be locked: {error.strerror}"
        raise ConfigError(Problem("state_dir", f"{state_dir} {why}")) from None
    return descriptor


def _tell(world: World) -> None:
    for version in world.snapshot.versions:
        facts = {"service": version.service.name, "version": version.number}
        if version.refused:
            log.error("service refused: %s", version.refused, extra=facts)
        elif version.quarantined:
            log.warning("service quarantined", extra=facts)
        else:
            log.info("service loaded", extra={**facts, "sha256": version.sha256})


def _python() -> tuple[int, int, int]:
    return sys.version_info[:3]

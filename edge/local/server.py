"""LocalServer: what a worker and its supervisor do, in one loop of one process.  No children but
the one that compiles, no metrics, no privileges to drop: for development and tests.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge.abi.sandbox import Sandbox
from edge.clock import SystemClock
from edge.dispatch import Dispatcher
from edge.errors import ConfigError, Problem
from edge.hostmodules import HOST_MODULES, known_imports
from edge.http.addresses import TrustedProxies
from edge.local.compiled import MAX_MODULE_BYTES, CompiledModules
from edge.local.features import Features
from edge.local.hostcalls import key_checks, replaced
from edge.local.seen import Notes, SeenLines, SeenRequests, Watcher
from edge.local.world import LocalWorld
from edge.model.backend import Backend
from edge.model.service import Version
from edge.outcome import Ending, Outcome
from edge.platform import OnFailure
from edge.runtime.artifacts import Artifact, ArtifactRefused, open_artifact
from edge.runtime.engine import PoolSettings
from edge.runtime.observed import ObservedRuntime
from edge.server.exchange import Exchange
from edge.server.front import BadRequestInfo, Front, ServerStatistics
from edge.server.listener import Listener
from edge.server.timers import Sweeper
from edge.serving import http_limits
from edge.settings import GIB, Listen, Settings
from edge.supervisor.sizing import machine_memory
from edge.supervisor.world import WorldBuilder, empty_world
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.log_sink import LogSink
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters
from edge.upstream.fetch import UpstreamFailed

BACKLOG: Final = 1024
BEAT_SECONDS: Final = 0.1
DRAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much one local server holds at once."""

    slots: int = 64
    memory_ceiling: int = 4 * GIB  # of one linear memory: address space, and no memory
    table_ceiling: int = 1_000_000


def _nobody(box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
    """The guest is told in any case."""


@dataclass(slots=True)
class LocalOptions:
    """What one may want of a local server besides its services."""

    state_dir: Path  # compiled modules and their key; made if it is not there
    size: Size = field(default_factory=Size)
    trace: bool = False  # keep every hostcall and its status
    # Sees every request before it is routed; what it takes out of `exchange.head` no guest sees.
    on_request: Callable[[Exchange], None] | None = None
    on_failure: OnFailure = _nobody  # told of each request to a backend that failed


class LocalServer:
    """One at a time in a thread; the loop is the one that runs `start`."""

    def __init__(self, options: LocalOptions, watcher: Watcher) -> None:
        """Opens nothing before `start`."""
        self._options = options
        self._watcher = watcher
        self._notes = Notes()
        self._generation = 0
        self._served = empty_world(Settings())
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.runtime: ObservedRuntime
        self.features: Features
        self.port = 0

    async def start(self, world: LocalWorld, listen: Listen) -> None:
        """Compile, link and serve.  `port` is known afterwards.

        Raises ConfigError, with nothing left open, when the address or a module cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        self._socket = _bind(listen)
        self.port = self._socket.getsockname()[1]
        try:
            self.features = Features(world, (listen.host, self.port), self._options.on_failure)
            await self._open(world.settings)
            await self.features.start()
        except BaseException:
            self._socket.close()
            raise
        try:
            await self.reload(world)
        except BaseException:
            await self.aclose(0)
            raise
        self._listener.start()
        self._beat()

    async def _open(self, settings: Settings) -> None:
        options, loop = self._options, self._loop
        size = options.size
        exceptions = settings.wasm.exceptions
        self._store = CompiledModules(options.state_dir, exceptions=exceptions)
        compiler = await self._store.start()
        self.runtime = ObservedRuntime(
            PoolSettings(size.slots, size.memory_ceiling, size.table_ceiling, exceptions),
            replaced(HOST_MODULES, key_checks(lambda: self.features.valid_keys)),
            loop,
            trace=self._notes.called if options.trace else None,
            on_trap=lambda guest, text: self._notes.trapped(guest.box, text),
        )
        self._cells = SharedCells.create(1)
        cells = self._cells.worker(0)
        cells.begin(os.getpid())
        self._builder = WorldBuilder(
            compiler,
            BlockDirectory(self._cells),
            SupervisorCounters(),
            known_imports=known_imports(),
            max_module_bytes=MAX_MODULE_BYTES,
        )
        # Never started: the logs below keep values and write no lines.
        unused = LogSink(2)
        self._dispatcher = Dispatcher(
            runtime=self.runtime,
            cells=cells,
            access=SeenRequests(unused, self._notes, self._watcher),
            guest_log=SeenLines(unused, self._watcher),
            loop=loop,
            memory_budget=int(machine_memory() * settings.pool.memory_share),
            equip=self.features.equip,
        )
        self._statistics = ServerStatistics()
        handler = self._dispatcher.handle
        self._front = Front(
            handler=handler if options.on_request is None else self._handle,
            loop=loop,
            sweeper=Sweeper(loop, SystemClock()),
            limits=http_limits(settings),
            statistics=self._statistics,
            proxies=TrustedProxies([]),
            on_bad_request=self._bad_request,
            hurried=self.runtime.is_crowded,
        )
        self._listener = Listener(self._socket, self._front, loop)

    async def reload(self, world: LocalWorld) -> None:
        """Serve it from now on; requests under way end in what they began in.

        Raises ConfigError, with nothing changed, when a module is refused or cannot be read.
        """
        async with self._store.alone():
            built = await self._builder.build(world.services, world.settings, before=self._served)
        if built.refused:
            programs = {service.name: service.module for service in world.services}
            raise ConfigError(
                *(
                    Problem(f"services.{name}", _of_program(programs[name], reason))
                    for name, reason in built.refused.items()
                )
            )
        self._generation += 1
        served = built.numbered(self._generation)
        # Of a service that has not changed, the object that its version has.
        world = replace(world, services=tuple(v.service for v in served.snapshot.versions))
        await self.features.prepare(world)
        opened: dict[str, int] = {}
        try:
            for sha256, artifact in served.artifacts.items():
                opened[sha256] = await asyncio.to_thread(_opened, artifact)

            def artifact_of(version: Version) -> str:
                return f"/proc/self/fd/{opened[version.sha256]}"

            prepared = self._dispatcher.prepare(served.snapshot, artifact_of)
        finally:
            for fd in opened.values():
                os.close(fd)
        await self.features.commit(world)
        for deployed in prepared.deployed:
            deployed.make_sandbox = self._notes.watched(deployed.make_sandbox)
        self._dispatcher.commit(prepared)
        self._builder.pin(served)
        self._served = served

    @property
    def busy(self) -> int:
        """Requests under way, those whose guest works on after its response included."""
        return len(self._notes)

    async def aclose(self, seconds: float = DRAIN_SECONDS) -> None:
        """Let what runs end for at most `seconds`, and close everything."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._dispatcher.draining = True
        self._listener.drain()
        deadline = self._loop.time() + seconds
        while self._is_busy() and self._loop.time() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        self._dispatcher.shut_down()
        await self._listener.aclose()
        self._socket.close()
        self._dispatcher.publish()
        self._dispatcher.close()
        self.runtime.close()
        await self.features.aclose()
        await asyncio.sleep(0)  # what was aborted has been recorded by then
        self._cells.close()

    def _is_busy(self) -> bool:
        return bool(self._statistics.connections_open or self.runtime.live)

    def _beat(self) -> None:
        self._dispatcher.publish()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def _handle(self, exchange: Exchange) -> None:
        assert self._options.on_request is not None
        self._options.on_request(exchange)
        self._dispatcher.handle(exchange)

    def _bad_request(self, info: BadRequestInfo) -> None:
        outcome = Outcome(Ending.BAD_REQUEST, info.reason)
        wall = max(time.perf_counter_ns() - info.started_ns, 0)
        self._dispatcher.access.record(
            time.time(), "", "", "", "", b"", b"", info.first_line, info.status, outcome,
            0, wall, 0, 0, 0, 0, 0,
        )  # fmt: skip


def _bind(listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(Problem(str(listen), f"cannot listen: {error.strerror}")) from error


def _of_program(path: Path, reason: str) -> str:
    """A refusal with the file it is about, unless it names it already."""
    return reason if str(path) in reason else f"{path.name}: {reason}"


def _opened(artifact: Artifact) -> int:
    try:
        return open_artifact(artifact)
    except (ArtifactRefused, OSError) as error:
        raise ConfigError(Problem("", f"a compiled module cannot be used: {error}")) from error

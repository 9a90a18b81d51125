"""What a worker is made of, put together: engine, dispatcher, listeners, logs and counters.

The one place in a worker that knows all of them.  It answers the supervisor's messages, beats its
heart, and copies what the parts count into the shared cells.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from typing import Final

from edge.abi.sandbox import Sandbox
from edge.clock import SystemClock
from edge.control import (
    MAX_TO_WORKER,
    Abort,
    Channel,
    Commit,
    Committed,
    Drain,
    Failed,
    Init,
    Prepare,
    Prepared,
    Started,
    bounded,
    decode_to_worker,
)
from edge.dispatch import Dispatcher
from edge.dispatch import Prepared as Linked
from edge.errors import ConfigError
from edge.hostmodules import HOST_MODULES
from edge.http.addresses import TrustedProxies, format_address
from edge.model.backend import Backend
from edge.model.names import read_address
from edge.model.service import Version
from edge.outcome import Ending, Outcome
from edge.platform import Platform
from edge.process_log import start_log
from edge.runtime.artifacts import ArtifactRefused, open_artifact
from edge.runtime.driver import Runtime
from edge.runtime.engine import PoolSettings
from edge.server.front import BadRequestInfo, ConnectionRefusal, Front, HttpLimits, ServerStatistics
from edge.server.listener import Listener
from edge.server.timers import Sweeper
from edge.settings import CodeLabel, Settings
from edge.stores.kv import KvLimits
from edge.stores.kv_sqlite import SqliteKvEngine
from edge.stores.rates_lmdb import LmdbRates
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.layout import (
    NO_SERVICE_BLOCK,
    OTHER_METHOD,
    Gauge,
    Refusal,
    Total,
    WorkerState,
    ending_index,
)
from edge.telemetry.shared import SharedCells
from edge.transfer import Delivery, Receiver
from edge.upstream.client import UpstreamStatistics
from edge.upstream.fetch import UpstreamFailed
from edge.watch import WatchEnd

log = logging.getLogger("edge.worker")

BEAT_SECONDS: Final = 0.1  # the supervisor kills after 1 s of silence
FLUSH_SECONDS: Final = 0.05
# Open files that are not client connections: sockets, pipes, artifacts while they load, the loop.
DESCRIPTOR_RESERVE: Final = 128
# One in so many open files may be a connection to a backend.
UPSTREAM_SHARE: Final = 4
KV_FILE: Final = "kv.sqlite3"
EXIT_ORPHANED: Final = 70

_BAD_REQUEST: Final = ending_index(Ending.BAD_REQUEST)
_REFUSALS: Final = {
    ConnectionRefusal.PER_CLIENT: Refusal.CLIENT_CAP,
    ConnectionRefusal.UNTRUSTED_PROXY: Refusal.PROXY_PROTOCOL,
    ConnectionRefusal.PROXY_HEADER: Refusal.PROXY_PROTOCOL,
}


class Serving:
    """One per worker process."""

    def __init__(self, init: Init, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Builds everything, engine included; listens to nothing yet.

        Raises ConfigError when the engine cannot be had with these settings.
        """
        settings, sizing = init.settings, init.sizing
        self._loop = loop
        self._control = control
        self._shared = SharedCells.attach(init.cells_fd, init.workers, init.blocks)
        self._cells = self._shared.worker(init.slot)
        self._cells.begin(os.getpid())
        self._cells.set(Gauge.SLOTS, sizing.slots)
        self._sink = start_log(
            settings.log,
            init.log_fd,
            lock_fd=init.cells_fd,
            process=f"worker-{init.slot}",
            cells=self._cells,
        )
        self._access = AccessLog(settings.log.access.value, self._sink, worker=init.slot)
        self._guest_log = GuestLog(settings.log.messages.value, self._sink, worker=init.slot)
        exact_codes = settings.metrics.code is CodeLabel.EXACT
        runtime = Runtime(
            PoolSettings(
                sizing.slots,
                sizing.memory_ceiling,
                sizing.table_ceiling,
                settings.wasm.exceptions,
            ),
            HOST_MODULES,
            loop,
            running=self._cells.cells,
            running_at=self._cells.running_index,
        )
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._rates = LmdbRates(init.rates, settings.storage.rate_bytes, time.monotonic)
        self._platform = Platform(
            settings,
            kv=SqliteKvEngine(
                settings.state_dir / KV_FILE,
                KvLimits(
                    settings.storage.kv_value_bytes,
                    settings.storage.kv_store_bytes,
                    settings.storage.kv_total_bytes,
                ),
                SystemClock(),
            ),
            rates=self._rates,
            own_addresses=_own_addresses(init),
            max_connections=descriptors // UPSTREAM_SHARE,
            on_failure=self._backend_failed,
            tolerant=True,  # the supervisor has tried the files before it took the document
        )
        self._dispatcher = Dispatcher(
            runtime=runtime,
            cells=self._cells,
            access=self._access,
            guest_log=self._guest_log,
            loop=loop,
            memory_budget=sizing.memory_budget,
            exact_codes=exact_codes,
            equip=self._platform.equip,
        )
        self._no_service = self._cells.block(NO_SERVICE_BLOCK, exact_codes=exact_codes)
        self._statistics = ServerStatistics()
        self._copied = ServerStatistics()
        self._upstream = UpstreamStatistics()
        sweeper = Sweeper(loop, SystemClock())
        limits = http_limits(settings)
        proxies = TrustedProxies([str(network) for network in settings.server.trusted_proxies])
        self._listeners = [
            Listener(
                socket.socket(fileno=item.fd),
                Front(
                    handler=self._dispatcher.handle,
                    loop=loop,
                    sweeper=sweeper,
                    limits=limits,
                    statistics=self._statistics,
                    proxies=proxies,
                    proxy_protocol=item.proxy_protocol,
                    on_bad_request=self._bad_request,
                    hurried=runtime.is_crowded,
                ),
                loop,
            )
            for item in init.listeners
        ]
        self._watch: WatchEnd | None = None
        if init.watch_fd >= 0:
            self._watch = WatchEnd(
                socket.socket(fileno=init.watch_fd),
                loop,
                limits=limits,
                sweeper=sweeper,
                handle=self._dispatcher.handle_invoke,
                on_follow=self._access.watch,
            )
            self._access.tap = self._guest_log.tap = self._watch.tap
        self._channel = Channel(limit=MAX_TO_WORKER, on_body=self._take, on_close=self._orphaned)
        self._orders: asyncio.Queue[Prepare] = asyncio.Queue(maxsize=1)  # the newest
        self._receiver = Receiver()
        self._linked: tuple[Delivery, Linked] | None = None
        self._listening = False
        self._drain: asyncio.Future[float] = loop.create_future()
        self._beat_due = 0.0

    async def run(self) -> int:
        """Serve until drained; returns the exit status."""
        self._rates.start()
        await self._platform.start()
        self._beat_due = self._loop.time()
        self._beat()
        self._flush()
        self._control.setblocking(False)
        await self._loop.create_unix_connection(lambda: self._channel, sock=self._control)
        if self._watch is not None:
            self._watch.start()
        self._channel.send(Started())
        async with asyncio.TaskGroup() as tasks:
            preparing = tasks.create_task(self._prepare_all())
            seconds = await self._drain
            preparing.cancel()
        await self._finish(seconds)
        return 0

    # Orders -----------------------------------------------------------------------------------

    def _take(self, body: bytes) -> None:
        match decode_to_worker(body):
            case Prepare() as order:
                if self._orders.full():  # nobody waits for what a newer world replaces
                    self._orders.get_nowait()
                self._orders.put_nowait(order)
            case Commit(generation):
                self._commit(generation)
            case Abort(generation):
                if self._linked is not None and self._linked[1].generation == generation:
                    self._linked = None
            case Drain(seconds):
                if not self._drain.done():
                    self._drain.set_result(seconds)
            case Init():
                log.error("a second Init from the supervisor")

    async def _prepare_all(self) -> None:
        while True:
            order = await self._orders.get()
            generation = order.generation
            try:
                self._linked = await self._prepare(order)
            except ConfigError as error:
                reasons = {
                    problem.path.removeprefix("services."): problem.message
                    for problem in error.problems
                }
                self._channel.send(Failed(generation, bounded(reasons)))
            except Exception as error:
                log.exception("preparing generation %d failed", generation)
                self._channel.send(Failed(generation, {"": f"{type(error).__name__}: {error}"}))
            else:
                self._channel.send(Prepared(generation))

    async def _prepare(self, order: Prepare) -> tuple[Delivery, Linked]:
        """Read it and check its artifacts in a thread, then link what is new in one go."""
        fds: dict[str, int] = {}
        try:
            delivery = await asyncio.to_thread(self._receiver.unpack, order)
            snapshot = delivery.snapshot
            for version in snapshot.versions:
                sha256 = version.sha256
                if sha256 not in fds and self._dispatcher.needs_artifact(version):
                    artifact = order.artifacts[sha256]
                    fds[sha256] = await asyncio.to_thread(open_artifact, artifact)
            keep = await self._platform.prepare(
                snapshot.settings, [version.service for version in snapshot.versions]
            )

            def artifact_of(version: Version) -> str:
                return f"/proc/self/fd/{fds[version.sha256]}"

            return delivery, self._dispatcher.prepare(snapshot, artifact_of, keep=keep)
        except (ArtifactRefused, FileNotFoundError) as error:
            log.exception("an artifact cannot be used")
            raise OSError(f"an artifact cannot be used: {error}") from error
        finally:
            for fd in fds.values():
                os.close(fd)

    def _commit(self, generation: int) -> None:
        if self._linked is None or self._linked[1].generation != generation:
            log.error("told to commit generation %d, which is not prepared", generation)
            return
        (delivery, linked), self._linked = self._linked, None
        self._dispatcher.commit(linked)
        self._platform.commit(linked.settings, linked.public)
        self._receiver.commit(delivery)
        if not self._listening:
            self._listening = True
            self._cells.set(Gauge.STATE, WorkerState.READY)
            for listener in self._listeners:
                listener.start()
        self._channel.send(Committed(generation))

    def _orphaned(self, reason: str) -> None:
        """Nobody watches us any more: end at once, a drain might never do."""
        self._flush_logs()
        self._sink.close(0.2)
        os._exit(EXIT_ORPHANED)

    # Timers -----------------------------------------------------------------------------------

    def _beat(self) -> None:
        now = self._loop.time()
        self._cells.beat(time.monotonic_ns())
        self._cells.loop_lag(int((now - self._beat_due) * 1e9))
        self._beat_due = now + BEAT_SECONDS
        self._dispatcher.publish()
        self._publish_connections()
        self._publish_upstream()
        self._loop.call_later(BEAT_SECONDS, self._beat)

    def _flush(self) -> None:
        self._flush_logs()
        self._loop.call_later(FLUSH_SECONDS, self._flush)

    def _flush_logs(self) -> None:
        self._access.flush()
        self._guest_log.flush()
        if self._watch is not None:
            self._watch.tap.flush()

    def _publish_connections(self) -> None:
        """Add what was counted since the last time; a worker that is killed loses one beat's."""
        now, before, cells = self._statistics, self._copied, self._cells
        cells.set(Gauge.CONNECTIONS, now.connections_open)
        dispatcher = self._dispatcher
        cells.set(Gauge.REQUESTS_IN_FLIGHT, dispatcher.runtime.live - len(dispatcher.idle))
        accepted = now.connections_accepted - before.connections_accepted
        if accepted:
            cells.add(Total.CONNECTIONS_ACCEPTED, accepted)
            before.connections_accepted = now.connections_accepted
        for reason, cell in _REFUSALS.items():
            count = now.connections_refused[reason]
            if count != before.connections_refused[reason]:
                cells.add(cell, count - before.connections_refused[reason])
                before.connections_refused[reason] = count
        if now.accept_pauses_full != before.accept_pauses_full:
            cells.add(Refusal.CONNECTION_CAP, now.accept_pauses_full - before.accept_pauses_full)
            before.accept_pauses_full = now.accept_pauses_full
        pauses = now.accept_pauses_descriptors - before.accept_pauses_descriptors
        if pauses:
            cells.add(Refusal.NO_DESCRIPTORS, pauses)
            before.accept_pauses_descriptors = now.accept_pauses_descriptors
        if now.faults != before.faults:
            cells.add(Total.FAULTS, now.faults - before.faults)
            before.faults = now.faults

    def _publish_upstream(self) -> None:
        now, before, cells = self._platform.client.statistics(), self._upstream, self._cells
        cells.set(Gauge.UPSTREAM_OPEN, now.connections_open)
        cells.set(Gauge.UPSTREAM_IDLE, now.connections_idle)
        cells.add(Total.UPSTREAM_OPENED, now.connections_opened - before.connections_opened)
        cells.add(Total.UPSTREAM_REUSED, now.connections_reused - before.connections_reused)
        self._upstream = now
        rates = self._rates.news()
        if rates is not None:
            cells.set(Gauge.RATE_ENTRIES, rates.entries)
            cells.set(Gauge.RATE_CAPACITY, rates.capacity)
            cells.set(Gauge.RATE_EVICTED, rates.evicted)

    def _backend_failed(self, box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
        self._dispatcher.reports.backend_failed(
            box.service.name, str(box.version), box.downstream.request_id, backend, failure
        )

    # Requests that no service ever sees -------------------------------------------------------

    def _bad_request(self, info: BadRequestInfo) -> None:
        wall_ns = max(time.perf_counter_ns() - info.started_ns, 0)
        self._no_service.record(
            OTHER_METHOD, info.status, _BAD_REQUEST, wall_ns, 0, 0, 0, 0, 0, 0, 0, 0
        )
        if self._access.enabled:
            outcome = Outcome(Ending.BAD_REQUEST, info.reason)
            self._access.record(
                time.time(), "", format_address(info.client), "", "", b"", b"", info.first_line,
                info.status, outcome, 0, wall_ns, 0, 0, 0, 0, 0,
            )  # fmt: skip

    # The end ----------------------------------------------------------------------------------

    async def _finish(self, seconds: float) -> None:
        """Take what is queued, let what runs end for at most `seconds`, and close."""
        self._cells.set(Gauge.STATE, WorkerState.DRAINING)
        self._dispatcher.draining = True
        for listener in self._listeners:
            listener.drain()
        deadline = self._loop.time() + seconds
        while self._busy() and self._loop.time() < deadline:  # noqa: ASYNC110 - counts, no event
            await asyncio.sleep(0.02)
        self._dispatcher.shut_down()
        for listener in self._listeners:
            await listener.aclose()
        if self._watch is not None:
            self._watch.close()
        self._dispatcher.publish()
        self._publish_connections()
        self._dispatcher.close()
        await self._platform.aclose()
        self._rates.close()
        self._flush_logs()
        self._sink.close(1.0)

    def _busy(self) -> bool:
        invoked = self._watch is not None and self._watch.busy
        return bool(invoked or self._statistics.connections_open or self._dispatcher.runtime.live)


def _own_addresses(init: Init) -> list[tuple[str, int]]:
    """Where this server listens, control listeners included: no guest asks us through a backend."""
    found = [item.address for item in init.listeners] + list(init.own_addresses)
    return [(listen.host, listen.port) for listen in map(read_address, found)]


def http_limits(settings: Settings) -> HttpLimits:
    """Settings as the HTTP side takes them."""
    server = settings.server
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HttpLimits(
        max_head=server.head_bytes,
        max_target=server.url_bytes,
        head_timeout=server.timeouts.head,
        body_idle=server.timeouts.body_idle,
        write_stall=server.timeouts.write_stall,
        keep_alive=server.timeouts.keep_alive,
        pipeline_depth=server.connections.pipeline,
        max_connections=server.connections.max
        or max(16, descriptors - descriptors // UPSTREAM_SHARE - DESCRIPTOR_RESERVE),
        max_per_client=server.connections.per_client,
    )

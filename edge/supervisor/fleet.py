"""All workers together: keeps every slot filled, publishes worlds, and watches heartbeats.

A world is published in two phases: every ready worker prepares it, and only then all commit.  A
worker that starts meanwhile is brought to the published world before it serves anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from edge.control import (
    Abort,
    Commit,
    Committed,
    Drain,
    Failed,
    Prepare,
    Prepared,
    Sizing,
    Started,
    ToSupervisor,
    Unusable,
    encode,
)
from edge.supervisor.breaker import Backoff, Breaker, VersionKey
from edge.supervisor.launch import Launch
from edge.supervisor.process import End, Phase, WorkerProcess
from edge.supervisor.retirement import Retirement
from edge.supervisor.world import World
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.layout import Gauge
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

log = logging.getLogger("edge.supervisor")

SILENCE_NS: Final = 1_000_000_000  # a ready worker beats ten times in this
START_SECONDS: Final = 60.0
PREPARE_SECONDS: Final = 60.0

Reasons = Mapping[str, str]  # by service; "" for a worker itself


class PublishFailed(Exception):
    """Some worker could not prepare the world, and nothing has changed."""

    def __init__(self, reasons: Reasons) -> None:
        super().__init__("; ".join(f"{name or 'worker'}: {why}" for name, why in reasons.items()))
        self.reasons = dict(reasons)


class Fleet:
    """The workers.  `attention` is called when `take_refusals` or the breaker has news."""

    def __init__(
        self,
        launch: Launch,
        world: World,
        *,
        cells: SharedCells,
        directory: BlockDirectory,
        counters: SupervisorCounters,
        breaker: Breaker,
        attention: Callable[[], None],
    ) -> None:
        """Starts nothing: `keep` fills one slot."""
        self.world = world
        self.draining = False
        self.damaged = False  # a worker could not use an artifact; whoever repairs it clears this
        self.unusable: tuple[str, ...] = ()  # why no worker can start, if one said so
        self._launch = launch
        self._cells = cells
        self._counters = counters
        self._breaker = breaker
        self._attention = attention
        self._workers: dict[int, WorkerProcess] = {}
        self._votes: dict[WorkerProcess, asyncio.Future[Reasons]] = {}
        self._publishing = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._refusals: dict[str, str] = {}
        self._directory = directory
        self._retirement = Retirement(directory, cells)
        self._generation = world.generation
        self._frame = (world.generation, encode(Prepare(world.snapshot, world.artifacts)))

    # Reading ----------------------------------------------------------------------------------

    @property
    def workers(self) -> tuple[WorkerProcess, ...]:
        """Those alive, by slot."""
        return tuple(self._workers[slot] for slot in sorted(self._workers))

    @property
    def ready(self) -> bool:
        """Whether every slot serves the published world."""
        return (
            not self.draining
            and len(self._workers) == self._launch.workers
            and all(self._serves(worker) for worker in self._workers.values())
        )

    @property
    def sizing(self) -> Sizing:
        """What each worker may hold."""
        return self._launch.sizing

    def take_refusals(self) -> dict[str, str]:
        """Services that no worker can load, and why; handed out once."""
        taken, self._refusals = self._refusals, {}
        return taken

    # Slots ------------------------------------------------------------------------------------

    async def keep(self, slot: int) -> None:
        """Fill one slot for ever; returns when the fleet has drained, kills when cancelled."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        while not self.draining:
            worker = WorkerProcess(slot, on_message=self._received)
            began = loop.time()
            self._workers[slot] = worker
            self._empty.clear()
            try:
                await self._launch.start(worker, self.world.snapshot.settings)
                end = await worker.wait()
            except OSError as error:
                end = End("spawn", f"could not be started: {error}")
            finally:
                worker.kill("shutdown")
                del self._workers[slot]
                if not self._workers:
                    self._empty.set()
            self._died(worker, end)
            await asyncio.sleep(backoff.after(loop.time() - began))

    def watch(self) -> None:
        """Kill the worker that is silent for longest; called ten times a second, and when on time.

        Only that one: others may be waiting for a lock that it holds, and go on when it is gone.
        """
        now_ns, now = time.monotonic_ns(), asyncio.get_running_loop().time()
        longest, silent = SILENCE_NS, None
        for worker in self._workers.values():
            if worker.phase is Phase.STARTING:
                if worker.pid and now - worker.started_at > START_SECONDS:
                    worker.kill("start_timeout")
                continue
            beat = self._cells.worker(worker.slot).get(Gauge.HEARTBEAT_NS)
            if worker.phase in (Phase.READY, Phase.DRAINING) and now_ns - beat > longest:
                longest, silent = now_ns - beat, worker
        if silent is not None:
            silent.kill("heartbeat")

    def discard(self, world: World) -> None:
        """Forget a world that was built and will not be published."""
        self._retirement.forget(world.series - self.world.series)

    def retire(self) -> None:
        """Give back the counters of versions that nobody serves any more; once a second."""
        living = [worker.generation for worker in self._workers.values()]
        self._retirement.advance(min(living, default=self.world.generation))

    async def drain(self, seconds: float) -> None:
        """Have every worker finish and exit; those still there after `seconds` are killed."""
        self.draining = True
        for worker in self.workers:
            if worker.phase is Phase.READY:
                worker.phase = Phase.DRAINING
                worker.send(Drain(seconds))
            else:
                worker.kill("shutdown")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 2.0):  # they watch `seconds` themselves
                await self._empty.wait()
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all."""
        self.draining = True
        for worker in self.workers:
            worker.kill("shutdown")

    def _died(self, worker: WorkerProcess, end: End) -> None:
        cells = self._cells.worker(worker.slot)
        running = cells.get(Gauge.RUNNING)
        cells.end()
        vote = self._votes.get(worker)
        if vote is not None and not vote.done():
            vote.set_result({"": f"worker {worker.slot} {end.detail}"})
        if self.draining:
            return
        self._counters.restarts.add(str(worker.slot), end.cause)
        blamed = self._of_series(running - 1) if running > 0 else None
        facts = {"worker": worker.slot, "pid": worker.pid, "cause": end.cause}
        if blamed is not None:
            facts |= {"service": blamed.service, "version": blamed.number}
        log.error("worker %s; starting another", end.detail, extra=facts)
        if blamed is not None and self._breaker.died(blamed):
            self._counters.quarantines.add(blamed.service, str(blamed.number))
            log.error(
                "service %s version %d keeps killing workers: quarantined, its requests get 503",
                blamed.service,
                blamed.number,
                extra={"service": blamed.service, "version": blamed.number},
            )
            self._attention()

    def _of_series(self, block: int) -> VersionKey | None:
        for series, its in self._directory.assigned.items():
            if its == block:
                return VersionKey(series.service, int(series.version))
        return None

    # Worlds -----------------------------------------------------------------------------------

    async def publish(self, make: Callable[[World], World], *, strict: bool) -> World:
        """Have every worker serve `make(the world now)`.

        Strict: PublishFailed when any worker cannot, and nothing has changed.  Not strict, for
        what makes the world safer: a worker that cannot is killed and its successor tries again.
        """
        async with self._publishing:
            self._generation += 1
            candidate = make(self.world).numbered(self._generation)
            self._frame = (
                candidate.generation, encode(Prepare(candidate.snapshot, candidate.artifacts))
            )  # fmt: skip
            asked = [worker for worker in self.workers if worker.phase is Phase.READY]
            reasons = await self._poll(asked, candidate)
            living = [worker for worker in asked if worker.phase is Phase.READY]
            if strict and any(reasons.values()):
                for worker in living:
                    worker.asked = 0
                    worker.send(Abort(candidate.generation))
                self._retirement.forget(candidate.series - self.world.series)
                self._frame = (0, b"")
                for worker in self.workers:  # one may have been on its way to the present world
                    self._converge(worker)
                raise PublishFailed({k: v for why in reasons.values() for k, v in why.items()})
            self._retirement.retire(self.world.series - candidate.series, candidate.generation)
            self._retirement.keep(candidate.series)
            self.world = candidate
            for worker in living:
                if reasons.get(worker):
                    worker.kill("cannot_load")
                else:
                    worker.send(Commit(candidate.generation))
            for worker in self.workers:
                self._converge(worker)
            return candidate

    async def _poll(
        self, asked: list[WorkerProcess], candidate: World
    ) -> dict[WorkerProcess, Reasons]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PREPARE_SECONDS
        reasons: dict[WorkerProcess, Reasons] = {}
        self._votes = {worker: loop.create_future() for worker in asked}
        try:
            for worker in asked:
                worker.asked = candidate.generation
                worker.send_frame(self._frame[1])
            for worker, vote in self._votes.items():
                try:
                    async with asyncio.timeout_at(deadline):
                        reasons[worker] = await vote
                except TimeoutError:
                    worker.kill("prepare_timeout")
                    reasons[worker] = {"": f"no answer from worker {worker.slot} in time"}
        finally:
            self._votes = {}
        return reasons

    def _converge(self, worker: WorkerProcess) -> None:
        """Bring one worker to the published world, unless it is there or on its way."""
        wanted = self.world.generation
        if not worker.engine_ready or worker.phase not in (Phase.STARTING, Phase.READY):
            return
        if wanted in (worker.generation, worker.asked):
            return
        if self._frame[0] != wanted:
            self._frame = (wanted, encode(Prepare(self.world.snapshot, self.world.artifacts)))
        worker.asked = wanted
        worker.send_frame(self._frame[1])

    def _received(self, worker: WorkerProcess, message: ToSupervisor) -> None:
        vote = self._votes.get(worker)
        match message:
            case Started():
                worker.engine_ready = True
                self._converge(worker)
            case Prepared(generation) | Failed(generation) if generation != worker.asked:
                pass  # of a world that has been replaced in the meantime
            case Prepared() if vote is not None:
                if not vote.done():
                    vote.set_result({})
            case Failed(_, reasons) if vote is not None:
                if not vote.done():
                    vote.set_result(reasons or {"": "it gave no reason"})
            case Prepared(generation):
                if generation == self.world.generation:
                    worker.send(Commit(generation))
                else:
                    self._converge(worker)
            case Failed(_, reasons):
                worker.asked = 0
                self._cannot_load(worker, reasons)
            case Committed(generation):
                worker.asked = 0 if worker.asked == generation else worker.asked
                worker.generation = generation
                if worker.phase is Phase.STARTING:
                    worker.phase = Phase.READY
                    log.info("worker ready", extra={"worker": worker.slot, "pid": worker.pid})
                if vote is None:
                    self._converge(worker)
            case Unusable(problems):
                self.unusable = problems
                self._attention()

    def _serves(self, worker: WorkerProcess) -> bool:
        return worker.phase is Phase.READY and worker.generation == self.world.generation

    def _cannot_load(self, worker: WorkerProcess, reasons: Reasons) -> None:
        """Blame the module when no worker serves it, and the worker when another one does."""
        known = {version.service.name for version in self.world.snapshot.versions}
        log.error("worker %d cannot load: %s", worker.slot, PublishFailed(reasons))
        others = any(self._serves(other) for other in self._workers.values())
        if others or not reasons or not known.issuperset(reasons):
            if "" in reasons:
                self.damaged = True
                self._attention()
            worker.kill("cannot_load")
            return
        self._refusals.update(reasons)
        self._attention()

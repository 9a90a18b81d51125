"""All workers together: keeps every slot filled, publishes worlds, and watches heartbeats.

A world is published in two phases: every ready worker prepares it, and only then all commit.  A
worker that starts meanwhile is brought to the published world before it serves anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from edge.control import (
    Abort,
    Commit,
    Committed,
    ControlError,
    Drain,
    Failed,
    Prepared,
    Sizing,
    Started,
    ToSupervisor,
    Unusable,
)
from edge.model.service import Version
from edge.supervisor.breaker import Backoff, Breaker, VersionKey
from edge.supervisor.launch import Launch
from edge.supervisor.process import End, Phase, WorkerProcess
from edge.supervisor.retirement import Retirement
from edge.supervisor.world import World, series_of
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.layout import Gauge
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters
from edge.transfer import Parcel, Sender

log = logging.getLogger("edge.supervisor")

SILENCE_NS: Final = 1_000_000_000  # a ready worker beats ten times in this
START_SECONDS: Final = 60.0
PREPARE_SECONDS: Final = 60.0
COMMIT_SECONDS: Final = 10.0  # a worker swaps one reference; one that cannot is not let serve on

Reasons = Mapping[str, str]  # by label of a version; "" for a worker itself
Persist = Callable[[], Awaitable[None]]


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
        self._sender = Sender()
        self._packing = asyncio.Lock()
        self._moved = asyncio.Event()  # some worker has committed, or died

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
        """Versions that no worker can load, by label, and why; handed out once."""
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
                end = await self._accompany(worker)
            except OSError as error:
                end = End("spawn", f"could not be started: {error}")
            finally:
                worker.kill("shutdown")
                del self._workers[slot]
                if not self._workers:
                    self._empty.set()
            self._died(worker, end)
            await asyncio.sleep(backoff.after(loop.time() - began))

    async def _accompany(self, worker: WorkerProcess) -> End:
        """Bring a worker to what is published, whenever it is behind, until it has ended."""
        async with asyncio.TaskGroup() as tasks:
            catching_up = tasks.create_task(self._catch_up(worker))
            end = await worker.wait()
            catching_up.cancel()
        return end

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
        self.discard_versions(world.snapshot.versions)

    def discard_versions(self, versions: Iterable[Version]) -> None:
        """The same for single versions."""
        self._retirement.forget(frozenset(map(series_of, versions)) - self.world.series)

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
        self._moved.set()
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
                return VersionKey(series.service, int(series.version), series.id)
        return None

    # Worlds -----------------------------------------------------------------------------------

    async def publish(
        self, make: Callable[[World], World], *, strict: bool, persist: Persist | None = None
    ) -> World:
        """Have every worker serve `make(the world now)`; none serves another one afterwards.

        Strict: PublishFailed when any worker cannot, and nothing has changed.  Not strict, for
        what makes the world safer: a worker that cannot is killed and its successor tries again.
        `persist` makes it durable: called when all have prepared, before any commits.  What it or
        `make` raises is raised, with nothing changed.  Who might be cancelled meanwhile shields
        it: what `persist` has written is to be served.
        """
        async with self._publishing:
            if strict and self.draining:
                raise PublishFailed({"": "the server is stopping"})
            self._generation += 1
            candidate = self._counted(make(self.world)).numbered(self._generation)
            self._retirement.hold(candidate.series)
            try:
                await self._offer(candidate, strict=strict, persist=persist)
            except BaseException:
                self._retirement.hold(())
                self._retirement.forget(candidate.series - self.world.series)
                for worker in self.workers:  # one may have been on its way to the present world
                    self._converge(worker)
                raise
            self._retirement.hold(())
            await self._arrive(candidate.generation)
            return candidate

    async def _offer(self, candidate: World, *, strict: bool, persist: Persist | None) -> None:
        """Have it prepared, remembered and committed; or aborted, and raise."""
        asked, reasons = await self._poll(candidate)
        try:
            if strict and any(reasons.values()):
                raise PublishFailed({k: v for why in reasons.values() for k, v in why.items()})
            if persist is not None:
                await persist()
        except BaseException:
            for worker in asked:
                if worker.phase is Phase.READY:
                    worker.asked = 0
                    worker.send(Abort(candidate.generation))
            raise
        self._retirement.retire(self.world.series - candidate.series, candidate.generation)
        self._retirement.keep(candidate.series)
        self.world = candidate
        for worker in asked:
            if worker.phase is not Phase.READY:
                continue
            if reasons.get(worker):
                worker.kill("cannot_load")
            else:
                self._commit(worker, candidate.generation)
        for worker in self.workers:
            self._converge(worker)

    async def _poll(
        self, candidate: World
    ) -> tuple[list[WorkerProcess], dict[WorkerProcess, Reasons]]:
        """Ask every ready worker to prepare it: those asked, and why some of them cannot."""
        loop = asyncio.get_running_loop()
        reasons: dict[WorkerProcess, Reasons] = {}
        parcels: dict[frozenset[str], Parcel] = {}
        while True:  # what a worker holds may change, or a worker come, while something is packed
            asked = [worker for worker in self.workers if worker.phase is Phase.READY]
            missing = {worker.holds for worker in asked} - parcels.keys()
            if not missing and parcels:
                break
            # Packed even when nobody is there to ask: what cannot be sent must not be published.
            for held in missing or {frozenset[str]()}:
                parcels[held] = await self._pack(candidate, held)
        deadline = loop.time() + PREPARE_SECONDS
        self._votes = {worker: loop.create_future() for worker in asked}
        try:
            for worker in asked:
                self._ask(worker, candidate.generation, parcels[worker.holds])
            for worker, vote in self._votes.items():
                try:
                    async with asyncio.timeout_at(deadline):
                        reasons[worker] = await vote
                except TimeoutError:
                    worker.kill("prepare_timeout")
                    reasons[worker] = {"": f"no answer from worker {worker.slot} in time"}
        except BaseException:
            for worker in asked:
                worker.asked = 0
                worker.send(Abort(candidate.generation))
            raise
        finally:
            self._votes = {}
        return asked, reasons

    async def _arrive(self, generation: int) -> None:
        """Until no worker serves an older world, or is about to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMMIT_SECONDS):
                while any(_lags(worker, generation) for worker in self.workers):
                    self._moved.clear()
                    await self._moved.wait()
        for worker in self.workers:
            if _lags(worker, generation):
                worker.kill("commit_timeout")

    async def _pack(self, world: World, held: frozenset[str]) -> Parcel:
        async with self._packing:
            try:
                return await asyncio.to_thread(
                    self._sender.pack, world.snapshot, world.artifacts, held
                )
            except ControlError as error:
                raise PublishFailed({"": str(error)}) from error

    def _counted(self, world: World) -> World:
        """The same with counters of its own: one that had left may have lost them meanwhile.

        It was built before, and its counters may have been given to another version since.
        """
        served = {id(version) for version in self.world.snapshot.versions}
        moved: dict[int, int] = {}
        for version in world.snapshot.versions:
            if id(version) not in served:
                block = self._directory.assign(series_of(version))
                if block != version.series:
                    moved[id(version)] = block
        if not moved:
            return world
        versions = tuple(
            replace(v, series=moved.get(id(v), v.series)) for v in world.snapshot.versions
        )
        return World(replace(world.snapshot, versions=versions), world.artifacts)

    # One worker -------------------------------------------------------------------------------

    def _ask(self, worker: WorkerProcess, generation: int, parcel: Parcel) -> None:
        worker.asked = generation
        worker.offered = parcel.digests
        worker.send_frame(parcel.frame)

    def _commit(self, worker: WorkerProcess, generation: int) -> None:
        """It holds from here on what it was asked to prepare: it reads in the order we write."""
        worker.told = generation
        worker.holds = worker.offered
        worker.send(Commit(generation))

    def _converge(self, worker: WorkerProcess) -> None:
        """Have one worker brought to the published world, unless it is there or on its way."""
        if self._is_behind(worker):
            worker.behind.set()

    def _is_behind(self, worker: WorkerProcess) -> bool:
        if not worker.engine_ready or worker.phase not in (Phase.STARTING, Phase.READY):
            return False
        return self.world.generation not in (worker.generation, worker.told, worker.asked)

    async def _catch_up(self, worker: WorkerProcess) -> None:
        while True:
            await worker.behind.wait()
            worker.behind.clear()
            if not self._is_behind(worker):
                continue
            world, held = self.world, worker.holds
            worker.asked = world.generation
            try:
                parcel = await self._pack(world, held)
            except PublishFailed:  # it was published, so it could be sent
                log.exception("worker %d cannot be told what to serve", worker.slot)
                worker.kill("cannot_load")
                return
            if worker.asked != world.generation:
                continue  # a newer one has been offered meanwhile
            if self.world is world and worker.holds == held:
                self._ask(worker, world.generation, parcel)
            else:
                worker.asked = 0
                self._converge(worker)

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
                if "" in reasons:
                    self._doubt(worker)
                if not vote.done():
                    vote.set_result(reasons or {"": "it gave no reason"})
            case Prepared(generation):
                if generation == self.world.generation:
                    self._commit(worker, generation)
                else:
                    self._converge(worker)
            case Failed(_, reasons):
                worker.asked = 0
                self._cannot_load(worker, reasons)
            case Committed(generation):
                worker.asked = 0 if worker.asked == generation else worker.asked
                worker.generation = generation
                self._moved.set()
                if worker.phase is Phase.STARTING:
                    worker.phase = Phase.READY
                    log.info("worker ready", extra={"worker": worker.slot, "pid": worker.pid})
                if vote is None:
                    self._converge(worker)
            case Unusable(problems):
                self.unusable = problems
                self._attention()

    def _doubt(self, worker: WorkerProcess) -> None:
        """It cannot prepare, and not for a module's sake: it is sent all, and all is looked at."""
        worker.holds = frozenset()
        self.damaged = True
        self._attention()

    def _serves(self, worker: WorkerProcess) -> bool:
        return worker.phase is Phase.READY and worker.generation == self.world.generation

    def _cannot_load(self, worker: WorkerProcess, reasons: Reasons) -> None:
        """Blame the module when no worker serves it, and the worker when another one does."""
        known = {version.label for version in self.world.snapshot.versions}
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


def _lags(worker: WorkerProcess, generation: int) -> bool:
    """Whether it serves an older world, or was told to."""
    serving = worker.phase in (Phase.STARTING, Phase.READY) and worker.told > 0
    return serving and worker.generation < generation

"""Publishing to workers that are values: who is asked, when it is durable, what is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from edge.clock import SystemClock
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
    ToWorker,
    decode_to_worker,
)
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.settings import Settings
from edge.supervisor import fleet as fleet_module
from edge.supervisor.breaker import Breaker
from edge.supervisor.fleet import Fleet, PublishFailed
from edge.supervisor.launch import Launch
from edge.supervisor.process import End, Phase, WorkerProcess
from edge.supervisor.world import World, empty_world, series_of
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters
from edge.transfer import Delivery, Receiver
from tests.support.serving import run, until

WORKERS = 2


class FakeWorker:
    """A worker that prepares and commits in this loop; a test makes it refuse, wait or die."""

    def __init__(
        self, slot: int, *, on_message: Callable[[WorkerProcess, ToSupervisor], None]
    ) -> None:
        self.slot = slot
        self.phase = Phase.STARTING
        self.pid = 100 + slot
        self.generation = self.asked = self.told = 0
        self.offered: frozenset[str] = frozenset()
        self.holds: frozenset[str] = frozenset()
        self.behind = asyncio.Event()
        self.engine_ready = False
        self.started_at = 0.0
        self.refuses: dict[str, str] = {}
        self.commits = True  # False: it keeps the commit to itself until `let_commit`
        self.orders: list[ToWorker] = []
        self.served: Delivery | None = None
        self._receiver = Receiver()
        self._prepared: Delivery | None = None
        self._waiting: Commit | None = None
        self._on_message = on_message
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    async def wait(self) -> End:
        return await asyncio.shield(self._ended)

    def kill(self, cause: str) -> None:
        if not self._ended.done():
            self.phase = Phase.ENDED
            self._ended.set_result(End(cause, f"killed: {cause}"))

    def send(self, message: ToWorker) -> None:
        self.orders.append(message)
        match message:
            case Commit() if self.commits:
                self._commit(message)
            case Commit():
                self._waiting = message
            case Abort():
                self._prepared = None

    def let_commit(self) -> None:
        assert self._waiting is not None
        self._commit(self._waiting)

    def send_frame(self, frame: bytes) -> None:
        order = decode_to_worker(frame[4:])
        assert isinstance(order, Prepare)
        self.orders.append(order)
        if self.refuses:
            self.say(Failed(order.generation, self.refuses))
        else:
            self._prepared = self._receiver.unpack(order)
            self.say(Prepared(order.generation))

    def _commit(self, order: Commit) -> None:
        assert self._prepared is not None
        self.served = self._prepared
        assert self.served.snapshot.generation == order.generation
        self._receiver.commit(self.served)
        self.say(Committed(order.generation))

    def say(self, message: ToSupervisor) -> None:
        """As a message of a worker comes: in a turn of its own."""

        def deliver() -> None:
            if not self._ended.done():
                self._on_message(cast("WorkerProcess", self), message)

        asyncio.get_running_loop().call_soon(deliver)

    @property
    def names(self) -> list[str]:
        """Of the services it serves."""
        assert self.served is not None
        return [version.label for version in self.served.snapshot.versions]

    def orders_of(self, kind: type[Any]) -> list[Any]:
        return [order for order in self.orders if isinstance(order, kind)]


class FakeLaunch:
    """Starts workers that have their engine at once."""

    workers = WORKERS
    sizing = Sizing(1, 1, 1, 1)

    async def start(self, worker: FakeWorker, settings: Settings) -> None:
        worker.say(Started())


class Town:
    def __init__(self) -> None:
        self.cells = SharedCells.create(WORKERS, 32)
        self.directory = BlockDirectory(self.cells)
        self.attentions: list[bool] = []
        self.fleet = Fleet(
            cast("Launch", FakeLaunch()),
            empty_world(Settings()),
            cells=self.cells,
            directory=self.directory,
            counters=SupervisorCounters(),
            breaker=Breaker(SystemClock()),
            attention=lambda: self.attentions.append(True),
        )

    @property
    def workers(self) -> list[FakeWorker]:
        return cast("list[FakeWorker]", list(self.fleet.workers))

    def version(self, name: str, number: int) -> Version:
        service = Service(name, Path(name), (Route(f"{name}.test"),))
        made = Version(service, number, f"{name}{number}", refused="a value", id=f"id-{name}")
        return replace(made, series=self.directory.assign(series_of(made)))

    def makes(self, *versions: Version) -> Callable[[World], World]:
        def make(world: World) -> World:
            for version in versions:
                world = world.with_service(version.id, (version,), {})
            return world

        return make

    def run(self, act: Callable[[Town], Awaitable[None]], *services: str) -> None:
        """`act` with workers that serve the first version of these."""

        async def main() -> None:
            first = self.makes(*(self.version(name, 1) for name in services))
            await self.fleet.publish(first, strict=False)
            async with asyncio.TaskGroup() as tasks:
                keeping = [tasks.create_task(self.fleet.keep(slot)) for slot in range(WORKERS)]
                await until(lambda: self.fleet.ready)
                await act(self)
                for each in keeping:
                    each.cancel()

        run(main())


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setattr(fleet_module, "WorkerProcess", FakeWorker)
    made = Town()
    yield made
    made.cells.close()


def test_a_change_of_one_service_sends_each_worker_that_service(place: Town) -> None:
    async def act(town: Town) -> None:
        await town.fleet.publish(town.makes(town.version("b", 2)), strict=True)
        for worker in town.workers:
            first, second = worker.orders_of(Prepare)
            assert (len(first.versions), len(second.versions)) == (3, 1)
            assert worker.names == ["a", "b", "c"]
            assert worker.served is not None
            assert worker.served.snapshot == town.fleet.world.snapshot

    place.run(act, "a", "b", "c")


def test_a_worker_that_starts_later_is_sent_everything_and_then_only_changes(place: Town) -> None:
    async def act(town: Town) -> None:
        await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        town.workers[0].kill("test")
        await until(lambda: town.fleet.ready)
        fresh = town.workers[0]
        assert [len(order.versions) for order in fresh.orders_of(Prepare)] == [2]
        await town.fleet.publish(town.makes(town.version("b", 2)), strict=True)
        assert [len(order.versions) for order in fresh.orders_of(Prepare)] == [2, 1]
        assert all(worker.served == fresh.served for worker in town.workers)

    place.run(act, "a", "b")


def test_it_is_durable_when_all_have_prepared_and_before_any_commits(place: Town) -> None:
    async def act(town: Town) -> None:
        seen: list[tuple[int, int]] = []

        async def persist() -> None:
            for worker in town.workers:
                orders = worker.orders_of(Prepare)
                seen.append((len(orders), len(worker.orders_of(Commit))))

        await town.fleet.publish(town.makes(town.version("a", 2)), strict=True, persist=persist)
        assert seen == [(2, 1), (2, 1)]
        assert [len(worker.orders_of(Commit)) for worker in town.workers] == [2, 2]

    place.run(act, "a")


def test_what_cannot_be_made_durable_is_served_by_nobody(place: Town) -> None:
    async def act(town: Town) -> None:
        before = town.fleet.world
        second = town.version("a", 2)

        async def persist() -> None:
            raise OSError("no space left on device")

        with pytest.raises(OSError, match="no space"):
            await town.fleet.publish(town.makes(second), strict=True, persist=persist)
        assert town.fleet.world is before
        assert town.fleet.ready
        for worker in town.workers:
            assert len(worker.orders_of(Abort)) == len(worker.orders_of(Commit)) == 1
        assert series_of(second) not in town.directory.assigned
        again = town.version("a", 2)
        await town.fleet.publish(town.makes(again), strict=True)
        assert all(worker.served and worker.names == ["a"] for worker in town.workers)
        assert town.fleet.world.snapshot.versions[0].number == 2

    place.run(act, "a")


def test_a_worker_that_refuses_keeps_it_from_being_durable(place: Town) -> None:
    async def act(town: Town) -> None:
        persisted: list[bool] = []

        async def persist() -> None:
            persisted.append(True)

        town.workers[1].refuses = {"a": "no such import"}
        with pytest.raises(PublishFailed, match="a: no such import"):
            await town.fleet.publish(town.makes(town.version("a", 2)), strict=True, persist=persist)
        assert not persisted
        assert len(town.workers[0].orders_of(Abort)) == 1
        assert [len(worker.orders_of(Commit)) for worker in town.workers] == [1, 1]

    place.run(act, "a")


def test_a_worker_that_dies_while_it_prepares_changes_nothing(place: Town) -> None:
    async def act(town: Town) -> None:
        victim = town.workers[1]
        victim.send_frame = lambda frame: victim.kill("test")  # type: ignore[method-assign]
        before = town.fleet.world
        with pytest.raises(PublishFailed, match="worker: worker 1 killed"):
            await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        assert town.fleet.world is before
        await until(lambda: town.fleet.ready)
        assert all(w.generation == before.generation for w in town.workers)

    place.run(act, "a")


def test_a_worker_that_fails_for_no_modules_sake_is_sent_everything_the_next_time(
    place: Town,
) -> None:
    async def act(town: Town) -> None:
        doubtful = town.workers[1]
        doubtful.refuses = {"": "an artifact cannot be used"}
        with pytest.raises(PublishFailed, match="artifact"):
            await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        assert town.fleet.damaged
        assert town.attentions
        doubtful.refuses = {}
        await town.fleet.publish(town.makes(town.version("a", 3)), strict=True)
        sent = [[len(o.versions) for o in w.orders_of(Prepare)][-1] for w in town.workers]
        assert sent == [1, 2]
        assert doubtful.served == town.workers[0].served

    place.run(act, "a", "b")


def test_a_worker_that_never_commits_is_ended_and_replaced(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "COMMIT_SECONDS", 0.01)

    async def act(town: Town) -> None:
        stuck = town.workers[1]
        stuck.commits = False
        world = await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        assert (await stuck.wait()).cause == "commit_timeout"
        await until(lambda: town.fleet.ready)
        assert [worker.generation for worker in town.workers] == [world.generation] * 2

    place.run(act, "a")


def test_it_returns_when_no_worker_serves_the_old_world_any_more(place: Town) -> None:
    async def act(town: Town) -> None:
        slow = town.workers[1]
        slow.commits = False
        second = town.makes(town.version("a", 2))
        publishing = asyncio.ensure_future(town.fleet.publish(second, strict=True))
        await until(lambda: len(slow.orders_of(Commit)) == 2)
        await until(lambda: town.workers[0].generation == town.fleet.world.generation)
        assert not publishing.done()
        slow.let_commit()
        assert (await publishing).generation == slow.generation

    place.run(act, "a")


def test_a_worker_that_dies_before_it_commits_is_not_waited_for(place: Town) -> None:
    async def act(town: Town) -> None:
        slow = town.workers[1]
        slow.commits = False
        second = town.makes(town.version("a", 2))
        publishing = asyncio.ensure_future(town.fleet.publish(second, strict=True))
        await until(lambda: len(slow.orders_of(Commit)) == 2)
        slow.kill("test")
        await publishing
        await until(lambda: town.fleet.ready)
        assert all(worker.served == town.workers[0].served for worker in town.workers)

    place.run(act, "a")


def test_a_worker_that_becomes_ready_with_the_old_world_is_waited_for(place: Town) -> None:
    async def act(town: Town) -> None:
        before = town.workers[1]
        before.kill("test")
        await until(lambda: len(town.workers) == WORKERS and town.workers[1] is not before)
        late = town.workers[1]
        late.commits = False
        await until(lambda: late.orders_of(Commit))
        assert late.phase is Phase.STARTING
        second = town.makes(town.version("a", 2))
        publishing = asyncio.ensure_future(town.fleet.publish(second, strict=True))
        await until(lambda: town.workers[0].generation == town.fleet.world.generation)
        assert not publishing.done()
        late.commits = True
        late.let_commit()
        await publishing
        assert late.generation == town.fleet.world.generation
        assert [len(order.versions) for order in late.orders_of(Prepare)] == [1, 1]

    place.run(act, "a")


def test_publications_that_come_together_all_arrive(place: Town) -> None:
    async def act(town: Town) -> None:
        wanted = [town.version(name, 2) for name in "abc"]
        worlds = await asyncio.gather(
            *(town.fleet.publish(town.makes(each), strict=True) for each in wanted)
        )
        assert sorted(world.generation for world in worlds) == [2, 3, 4]
        for worker in town.workers:
            assert worker.served is not None
            assert list(worker.served.snapshot.versions) == wanted

    place.run(act, "a", "b", "c")


def test_a_version_that_comes_back_while_its_counters_leave_counts_in_a_place_of_its_own(
    place: Town,
) -> None:
    async def act(town: Town) -> None:
        first = town.fleet.world.snapshot.versions[0]
        await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        again = town.version("a", 1)  # built: its block is still the one of before
        assert again.series == first.series
        for _ in range(5):
            town.fleet.retire()
        assert series_of(first) not in town.directory.assigned
        other = town.version("b", 1)
        assert other.series == first.series, "given away since"
        world = await town.fleet.publish(town.makes(again, other), strict=True)
        places = [version.series for version in world.snapshot.versions]
        assert len(set(places)) == 2
        assert {town.directory.assigned[series_of(v)] for v in world.snapshot.versions} == set(
            places
        )

    place.run(act, "a")


def test_counters_are_not_given_away_while_their_version_is_being_published(place: Town) -> None:
    async def act(town: Town) -> None:
        first = town.fleet.world.snapshot.versions[0]
        await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)

        async def persist() -> None:
            for _ in range(5):
                town.fleet.retire()

        again = town.makes(replace(first))
        await town.fleet.publish(again, strict=True, persist=persist)
        assert town.directory.assigned[series_of(first)] == first.series

    place.run(act, "a")


def test_nothing_is_published_strictly_once_the_server_is_stopping(place: Town) -> None:
    async def act(town: Town) -> None:
        draining = asyncio.ensure_future(town.fleet.drain(0.0))
        await until(lambda: any(worker.orders_of(Drain) for worker in town.workers))
        with pytest.raises(PublishFailed, match="stopping"):
            await town.fleet.publish(town.makes(town.version("a", 2)), strict=True)
        town.fleet.kill()
        await draining

    place.run(act, "a")

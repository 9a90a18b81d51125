"""The supervisor's smaller parts: sizes, sockets, worlds, and counters on their way out."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.model.limits import DEFAULT_CEILINGS
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.model.snapshot import Snapshot
from edge.runtime.artifacts import Artifact
from edge.runtime.inspect import ModuleInfo
from edge.settings import Listen, Pool, Settings
from edge.supervisor.breaker import VersionKey
from edge.supervisor.retirement import QUIET_LOOKS, Retirement
from edge.supervisor.sizing import MIN_SLOTS, machine_memory, sizing, worker_count
from edge.supervisor.sockets import PublicSockets, open_listener
from edge.supervisor.world import World, series_of
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.layout import IN_FLIGHT
from edge.telemetry.shared import SharedCells

GIB = 1 << 30


def test_slots_follow_from_memory_and_stop_at_a_thousand() -> None:
    def slots(memory: int, workers: int) -> int:
        return sizing(Settings(), DEFAULT_CEILINGS, workers=workers, memory=memory).slots

    rates = Settings().storage.rate_bytes
    assert slots(2 * GIB, 2) == int((2 * GIB - rates) * 0.7) // 2 // (16 << 20)
    assert slots(1 << 50, 2) == 1000
    assert slots(1 << 20, 2) == MIN_SLOTS
    set_by_hand = replace(Settings(), pool=Pool(slots=7))
    assert sizing(set_by_hand, DEFAULT_CEILINGS, workers=1, memory=GIB).slots == 7


def test_workers_are_the_cores_this_process_may_use() -> None:
    assert worker_count(Settings()) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("sys/fs/cgroup/memory.max", "1048576\n", 1 << 20),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n", 2 << 20),
        ("sys/fs/cgroup/a/memory.max", "4194304\n", 4 << 20),
        ("sys/fs/cgroup/a/b/memory.max", "8388608\n", 8 << 20),
        ("sys/fs/cgroup/memory.max", "max\n", None),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096), None),
    ],
)
def test_memory_is_the_smallest_limit_above_us(
    tmp_path: Path, path: str, text: str, expected: int | None
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine_memory(tmp_path) == (expected or machine)


@pytest.fixture
def cells() -> Iterator[SharedCells]:
    made = SharedCells.create(2)
    yield made
    made.close()


def test_each_slot_has_its_own_socket_of_each_address() -> None:
    sockets = PublicSockets((Listen("127.0.0.1", 0), Listen("::1", 0)), 3)
    sockets.open()
    try:
        for position, address in enumerate(sockets.addresses):
            row = [slot[position] for slot in sockets.slots]
            assert {sock.getsockname()[1] for sock in row} == {address.port}
            assert len({sock.fileno() for sock in row}) == 3
            assert not any(sock.get_inheritable() for sock in row)
    finally:
        sockets.close()


def test_an_address_of_another_server_is_refused_even_if_it_shares() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        listens = (Listen("127.0.0.1", 0), Listen("127.0.0.1", other.getsockname()[1]))
        sockets = PublicSockets(listens, 2)
        with pytest.raises(ConfigError, match=r"server\.listen: cannot listen"):
            sockets.open()
        assert sockets.slots == [[], []]


def test_an_address_that_is_not_ours_names_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"admin\.listen: cannot listen on 192\.0\.2\.1:80"):
        open_listener(Listen("192.0.2.1", 80), setting="admin.listen")


def _world(**refused: str) -> World:
    def version(name: str) -> Version:
        service = Service(name, Path(name), (Route(f"{name}.test", "/"),))
        return Version(service, 1, name * 64, None if name in refused else Path(name),
                       refused.get(name, ""))  # fmt: skip

    info = ModuleInfo("a" * 64, 1, "wasi", (), 0, (), start_function=False)
    names = ("a", "b")
    artifacts = {
        n * 64: Artifact(Path(n), "d", 1, replace(info, sha256=n * 64))
        for n in names
        if n not in refused
    }
    return World(Snapshot(3, Settings(), tuple(map(version, names))), artifacts)


def test_a_world_can_lose_a_service_and_keep_the_others() -> None:
    world = _world().with_refused({"a": "too large"})
    assert world.refused == {"a": "too large"}
    assert set(world.artifacts) == {"b" * 64}
    assert world.snapshot.versions[0].artifact is None
    assert world.snapshot.versions[1] == _world().snapshot.versions[1]


def test_exactly_the_named_versions_are_in_quarantine() -> None:
    world = _world().with_quarantined([VersionKey("a", 1), VersionKey("b", 9)])
    assert [v.quarantined for v in world.snapshot.versions] == [True, False]
    assert [v.quarantined for v in world.with_quarantined([]).snapshot.versions] == [False, False]
    refused = _world(a="broken").with_quarantined([VersionKey("a", 1)])
    assert not refused.snapshot.versions[0].quarantined


def test_a_repaired_artifact_replaces_the_lost_one() -> None:
    world = _world()
    fresh = replace(world.artifacts["a" * 64], digest="new")
    repaired = world.with_artifacts({"a" * 64: fresh})
    assert repaired.artifacts["a" * 64].digest == "new"
    assert repaired.artifacts["b" * 64] == world.artifacts["b" * 64]


def test_counters_are_given_back_only_when_nobody_can_write_them(cells: SharedCells) -> None:
    directory = BlockDirectory(cells)
    old, new = Series("a", "1"), Series("a", "2")
    block = directory.assign(old)
    directory.assign(new)
    retirement = Retirement(directory, cells)
    retirement.retire([old], 5)
    for _ in range(QUIET_LOOKS + 1):
        retirement.advance(4)  # a worker still serves it
    in_flight = cells.base(1) + IN_FLIGHT + block
    cells.cells[in_flight] = 1
    for _ in range(QUIET_LOOKS + 1):
        retirement.advance(5)  # a request of it still runs
    assert old in directory.assigned
    cells.cells[in_flight] = 0
    for _ in range(QUIET_LOOKS):
        retirement.advance(5)
    assert old not in directory.assigned
    assert new in directory.assigned


def test_counters_of_a_world_that_was_never_served_are_free_at_once(cells: SharedCells) -> None:
    directory = BlockDirectory(cells)
    series = series_of(_world().snapshot.versions[0])
    directory.assign(series)
    Retirement(directory, cells).forget([series])
    assert series not in directory.assigned


def test_a_version_that_comes_back_keeps_its_counters() -> None:
    cells = SharedCells.create(1)
    try:
        directory = BlockDirectory(cells)
        series = Series("shop", "1")
        block = directory.assign(series)
        retirement = Retirement(directory, cells)
        retirement.retire([series], 2)
        retirement.keep([series])  # the next world serves it again
        for _ in range(QUIET_LOOKS + 1):
            retirement.advance(9)
        assert directory.assigned[series] == block
    finally:
        cells.close()

"""The catalogue's file and its lanes: all or nothing, one at a time, bounded, honest errors."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.catalogue import audit, file, lane, services, versions
from edge.catalogue.database import Catalogue, CatalogueLimits, Transaction
from edge.catalogue.migrations import MIGRATIONS
from edge.catalogue.records import Page, ServiceRecord
from edge.errors import ApiRefused, ConfigError, Refusal
from edge.settings import Deploy
from tests.support.catalogue import ALICE, FILE, Desk, desk
from tests.support.clock import SteppedClock
from tests.support.loop import in_loop, turns


def names(tx: Transaction) -> list[str]:
    return [each.name for each in services.listing(tx, Page())]


def create(name: str) -> Callable[[Transaction], ServiceRecord]:
    return lambda tx: services.create(tx, name)


def test_what_raises_leaves_nothing(tmp_path: Path) -> None:
    with desk(tmp_path) as at:

        def work(tx: Transaction) -> None:
            services.create(tx, "a")
            raise RuntimeError

        with pytest.raises(RuntimeError):
            at.write(work)
        assert at.read(names) == []
        assert at.read(lambda tx: audit.listing(tx, Page())) == []
        assert at.catalogue.statistics().failed == 1


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        with pytest.raises(ApiRefused):
            at.read(lambda tx: services.create(tx, "a"))
        assert at.read(names) == []


@in_loop
async def test_an_acknowledged_write_is_seen_by_the_next_read(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        for number in range(20):
            await at.catalogue.write(ALICE, create(f"s{number}"))
            assert len(await at.catalogue.read(names)) == number + 1


@in_loop
async def test_the_loop_turns_and_readers_read_while_a_write_takes_its_time(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as at:
        go, begun = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> None:
            services.create(tx, "slow")
            begun.set()
            assert go.wait(30)

        writing = asyncio.ensure_future(at.catalogue.write(ALICE, slow))
        await asyncio.to_thread(begun.wait, 30)
        assert await at.catalogue.read(names) == []
        go.set()
        await writing
        assert await at.catalogue.read(names) == ["slow"]


@in_loop
async def test_an_urgent_read_waits_for_no_large_one_and_sees_every_acknowledged_write(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as at:
        go, begun = threading.Event(), threading.Event()

        def large(tx: Transaction) -> list[str]:
            begun.set()
            assert go.wait(30)
            return names(tx)

        reading = asyncio.ensure_future(at.catalogue.read(large))
        await asyncio.to_thread(begun.wait, 30)
        await at.catalogue.write(ALICE, create("a"))
        async with asyncio.timeout(10):
            assert await at.catalogue.read(names, urgent=True) == ["a"]
        assert not reading.done()
        go.set()
        await reading
        with pytest.raises(ApiRefused):
            await at.catalogue.read(create("b"), urgent=True)


@in_loop
async def test_too_many_waiting_writes_are_refused_and_the_others_are_done(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as at:
        go = threading.Event()
        writes = [
            asyncio.ensure_future(at.catalogue.write(ALICE, lambda tx: go.wait(30)))
            for _ in range(lane.MOST_WAITING)
        ]
        await turns()
        assert at.catalogue.statistics().waiting == lane.MOST_WAITING
        with pytest.raises(ApiRefused) as caught:
            await at.catalogue.write(ALICE, names)
        assert caught.value.refusal is Refusal.BUSY
        go.set()
        assert await asyncio.gather(*writes) == [True] * lane.MOST_WAITING
        assert at.catalogue.statistics().waiting == 0


@in_loop
async def test_a_write_whose_caller_has_gone_before_it_began_is_not_done(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        go = threading.Event()
        first = asyncio.ensure_future(at.catalogue.write(ALICE, lambda tx: go.wait(30)))
        second = asyncio.ensure_future(
            at.catalogue.write(ALICE, lambda tx: services.create(tx, "a"))
        )
        await turns()
        second.cancel()
        await turns()
        go.set()
        assert await first
        await at.catalogue.write(ALICE, lambda tx: services.create(tx, "b"))
        assert await at.catalogue.read(names) == ["b"]


@in_loop
async def test_after_it_is_closed_calls_are_refused(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        pass
    for call in (at.catalogue.read(names), at.catalogue.write(ALICE, names)):
        with pytest.raises(ApiRefused) as caught:
            await call
        assert caught.value.refusal is Refusal.STOPPING


def test_a_closed_catalogue_is_one_file(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "a"))
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / f"{FILE}-wal").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob(f"{FILE}*")] == [FILE]
    with desk(tmp_path) as at:
        assert at.read(names) == ["a"]


def test_limits_are_those_of_the_settings() -> None:
    assert CatalogueLimits.of(Deploy()) == CatalogueLimits()
    assert CatalogueLimits.of(Deploy(services=7, audit_records=100)).services == 7


def test_a_file_of_a_newer_server_is_refused_untouched(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "a"))
    path = tmp_path / FILE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"newer version of this server.*format 99"):
        desk(tmp_path).__enter__()
    assert path.read_bytes() == before


@pytest.mark.parametrize("place", [0, 30, 2096, 4096 * 3 + 100, -4000])
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, place: int) -> None:
    with desk(tmp_path) as at:
        for number in range(200):
            at.write(services.create, f"service-{number}", "c" * 900)
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + 2000] = bytes(2000) if place else b"no database at all".ljust(2000)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"catalogue\.sqlite3 there cannot be used"):
        desk(tmp_path).__enter__()


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        desk(tmp_path).__enter__()


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(ConfigError):
        desk(tmp_path).__enter__()
    with pytest.raises(ConfigError):
        desk(tmp_path / "gone").__enter__()
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / FILE).symlink_to(tmp_path / "target")
    with pytest.raises(ConfigError):
        desk(other).__enter__()


def test_a_migration_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "a"))
    broken = "ALTER TABLE service ADD COLUMN more TEXT;;\nCREATE TABLE service (a);;\n"
    with pytest.raises(ConfigError, match="already exists"):
        file.open_writer(path, (*MIGRATIONS, broken))
    with desk(tmp_path) as at:
        assert at.read(names) == ["a"]
    good = "ALTER TABLE service ADD COLUMN more TEXT;;\nCREATE TABLE another (a);;\n"
    connection = file.open_writer(path, (*MIGRATIONS, good))
    assert connection.execute("SELECT name, more FROM service").fetchone()["name"] == "a"
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    connection.close()
    with pytest.raises(ConfigError, match="newer version"):
        desk(tmp_path).__enter__()


def test_a_full_disk_is_told_and_the_catalogue_goes_on(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "a"))
        pages = at.read(lambda tx: tx.count("PRAGMA page_count"))
        writer = at.catalogue._writer
        assert writer is not None
        writer.execute(f"PRAGMA max_page_count = {pages}")

        def much(tx: Transaction) -> None:
            for number in range(1000):
                services.create(tx, f"s{number}", "c" * 4000)

        with pytest.raises(ApiRefused, match="disk of the catalogue is full") as caught:
            at.write(much)
        assert caught.value.refusal is Refusal.STORAGE
        assert at.read(names) == ["a"]
        writer.execute("PRAGMA max_page_count = 1000000")
        at.write(lambda tx: services.create(tx, "b"))
        assert at.read(names) == ["a", "b"]


def fill(at: Desk, done: list[str]) -> None:
    """Services until there is no more room; `done` has those that were acknowledged."""
    for number in range(1000):
        at.write(services.create, f"b{number:03}", "c" * 4000)
        done.append(f"b{number:03}")


def test_a_write_that_fails_half_way_is_undone(tmp_path: Path) -> None:
    """Files that may not grow: what the log cannot take is told, and is not there afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with desk(tmp_path) as at:
        at.write(lambda tx: services.create(tx, "a"))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            done = ["a"]
            with pytest.raises(ApiRefused) as caught:
                fill(at, done)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.refusal is Refusal.STORAGE
        assert len(done) > 3
        assert at.read(names) == done[:100]
        at.write(services.create, "z")
    with desk(tmp_path) as at:
        assert at.read(lambda tx: services.by_name(tx, done[-1]))
        assert at.read(lambda tx: services.by_name(tx, "z"))
        assert at.read(Transaction.count, "SELECT count(*) FROM service") == len(done) + 1


def test_what_cannot_be_stored_is_not_found_out_by_a_crash(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        assert at.refused(services.find, "\ud800") is Refusal.INVALID
        made = at.write(services.create, "a")
        assert at.refused(versions.get, made.id, 2**70) is Refusal.NOT_FOUND
        big = at.refused(services.set_active, made.id, 2**70, reason="activate")
        assert big is Refusal.INVALID


def test_another_program_that_holds_the_file_is_told_of(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        writer = at.catalogue._writer
        assert writer is not None
        writer.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert at.refused(lambda tx: services.create(tx, "a")) is Refusal.BUSY
        other.execute("ROLLBACK")
        other.close()
        at.write(lambda tx: services.create(tx, "a"))


def test_a_catalogue_without_a_keyring_has_no_secrets(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / FILE, clock=SteppedClock(), limits=CatalogueLimits())
    catalogue.start()
    with pytest.raises(ApiRefused) as caught:
        catalogue.write_now(ALICE, lambda tx: tx.keyring)
    assert caught.value.refusal is Refusal.UNSUPPORTED
    catalogue.close()

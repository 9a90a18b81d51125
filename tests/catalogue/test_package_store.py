"""Modules on disk: whole or not there, by content, and not removed between put and use."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from pathlib import Path

import pytest

from edge.catalogue import services, versions
from edge.catalogue.packages import RESERVE, PackageStore
from edge.catalogue.records import Package
from edge.catalogue.tidy import Tidier
from edge.errors import ApiRefused, ConfigError, Refusal
from tests.support.catalogue import ALICE, desk
from tests.support.loop import in_loop


def started(directory: Path) -> PackageStore:
    store = PackageStore(directory)
    store.start()
    return store


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "packages").rglob("*") if path.is_file())


def test_a_module_is_stored_by_its_content(tmp_path: Path) -> None:
    store = started(tmp_path)
    sha256 = store.put(b"module")
    assert sha256 == hashlib.sha256(b"module").hexdigest() == store.put(b"module")
    assert store.read(sha256) == b"module"
    assert store.path(sha256) == tmp_path / "packages" / sha256[:2] / sha256
    assert files(tmp_path) == [sha256]
    assert store.path(sha256).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"mod", b"modulE", b"module and more"])
def test_a_damaged_module_is_noticed_and_mended_by_the_next_put(
    tmp_path: Path, damage: bytes
) -> None:
    store = started(tmp_path)
    sha256 = store.put(b"module")
    store.path(sha256).write_bytes(damage)
    with pytest.raises(ApiRefused) as caught:
        store.read(sha256)
    assert caught.value.refusal is Refusal.STORAGE
    store.put(b"module")
    assert store.read(sha256) == b"module"


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_only_a_digest_is_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        started(tmp_path).path(name)


def test_a_start_removes_what_was_half_written(tmp_path: Path) -> None:
    store = started(tmp_path)
    sha256 = store.put(b"module")
    (tmp_path / "packages" / "new-half").write_bytes(b"mod")
    started(tmp_path)
    assert files(tmp_path) == [sha256]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = started(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ApiRefused, match="No space left") as caught:
        store.put(b"module")
    assert caught.value.refusal is Refusal.STORAGE
    assert files(tmp_path) == []


def test_the_last_room_of_the_disk_is_not_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = started(tmp_path)
    real = os.statvfs(tmp_path)

    def with_free(free: int) -> None:
        blocks = [real.f_frsize, real.f_frsize, 10**9, 10**9, free // real.f_frsize]
        found = os.statvfs_result((*blocks, *tuple(real)[5:]))
        monkeypatch.setattr(os, "statvfs", lambda path: found)

    with_free(RESERVE)
    with pytest.raises(ApiRefused) as caught:
        store.put(b"module")
    assert caught.value.refusal is Refusal.STORAGE
    assert files(tmp_path) == []
    with_free(RESERVE + real.f_frsize)
    store.put(b"module")
    assert len(files(tmp_path)) == 1
    with_free(0)
    store.put(b"module")  # it is there already


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "packages").chmod(0o777)
    with pytest.raises(ConfigError, match="others can write"):
        started(tmp_path)


def test_a_sweep_leaves_what_is_referenced_and_a_removal_what_is_held(tmp_path: Path) -> None:
    store = started(tmp_path)
    kept, gone = store.put(b"kept"), store.put(b"gone")
    assert store.sweep({kept}) == 1
    assert files(tmp_path) == [kept]
    _, before = store.take_left()
    with store.holding(gone), store.holding(gone):
        store.put(b"gone")
    with store.holding(gone):
        _, now = store.take_left()
        assert not store.remove(gone, now)
    assert not store.remove(gone, before)  # it may have got a version since
    left, now = store.take_left()
    assert left == {gone}
    assert store.take_left() == (set(), now)
    assert store.remove(gone, now)
    assert files(tmp_path) == [kept]


@in_loop
async def test_modules_of_deleted_versions_go_and_no_others(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = started(tmp_path)
        tidier = Tidier(at.catalogue, store)
        made = await at.catalogue.write(ALICE, lambda tx: services.create(tx, "a"))
        for data in (b"one", b"two"):
            program = Package(store.put(data), len(data))
            number = at.write(lambda tx: versions.create(tx, made.id)).number
            at.write(versions.set_package, made.id, number, program)
        assert await tidier.tidy() == 0
        at.write(lambda tx: versions.delete(tx, made.id, 1))
        assert await tidier.tidy() == 1
        assert files(tmp_path) == [hashlib.sha256(b"two").hexdigest()]


@in_loop
async def test_a_module_that_an_upload_holds_stays_and_goes_when_no_version_came_of_it(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as at:
        store = started(tmp_path)
        told: list[str] = []
        store.on_left = lambda: told.append("left")
        tidier = Tidier(at.catalogue, store)
        made = at.write(lambda tx: services.create(tx, "a"))
        program = Package(hashlib.sha256(b"one").hexdigest(), 3)

        def deploy(number: int) -> None:
            at.write(lambda tx: versions.create(tx, made.id))
            at.write(lambda tx: versions.set_package(tx, made.id, number, program))

        with store.holding(program.sha256):
            await asyncio.to_thread(store.put, b"one")
            deploy(1)
            at.write(lambda tx: versions.delete(tx, made.id, 1))
            assert await tidier.tidy() == 0
            deploy(2)
        assert told == ["left"]
        assert await tidier.tidy() == 0
        assert files(tmp_path) == [program.sha256]
        with store.holding(program.sha256):  # another upload of it, that comes to nothing
            at.write(lambda tx: versions.delete(tx, made.id, 2))
        for text in (b"two", b"three"):  # what is refused takes no room either
            with store.holding(hashlib.sha256(text).hexdigest()):
                await asyncio.to_thread(store.put, text)
        assert len(files(tmp_path)) == 3
        assert await tidier.tidy() == 3
        assert files(tmp_path) == []


@in_loop
async def test_a_module_that_gets_a_version_while_it_is_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk(tmp_path) as at:
        store = started(tmp_path)
        tidier = Tidier(at.catalogue, store)
        made = at.write(lambda tx: services.create(tx, "a"))
        program = Package(store.put(b"one"), 3)
        with store.holding(program.sha256):
            pass
        remove = store.remove

        def later(sha256: str, since: int) -> bool:
            with store.holding(sha256):
                store.put(b"one")
                at.write(lambda tx: versions.create(tx, made.id))
                at.write(lambda tx: versions.set_package(tx, made.id, 1, program))
            return remove(sha256, since)

        monkeypatch.setattr(store, "remove", later)
        assert await tidier.tidy() == 0
        assert files(tmp_path) == [program.sha256]

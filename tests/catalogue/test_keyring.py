"""The keyring: who may read it, what is said when it is missing, and rotation without loss."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.catalogue import entries, parts, services, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.keyring import Keyring, Unopened
from edge.catalogue.records import PartKind, StoreKind
from edge.catalogue.rotation import rotate
from edge.catalogue.sealed import keys_in_use, reseal
from edge.errors import ApiRefused, ConfigError, Refusal
from tests.support.catalogue import ALICE, KEYS, Desk, desk
from tests.support.loop import in_loop

BACKEND = {"url": "https://b.example", "client_certificate": {"certificate": "C", "key": "K"}}


def fill(at: Desk, count: int = 3) -> str:
    """A secret store and a backend with a private key; returns the id of the store."""

    def work(tx: Transaction) -> str:
        store = stores.create(tx, StoreKind.SECRET, "s")
        for number in range(count):
            entries.put(tx, store, f"k{number}", b"v%d" % number)
        service = services.create(tx, "a").id
        versions.create(tx, service)
        parts.add(tx, service, 1, PartKind.BACKEND, "b", BACKEND)
        versions.lock(tx, service, 1)
        return store.id

    return at.write(work)


def check(at: Desk, store: str, count: int = 3) -> None:
    revealed = at.read(lambda tx: entries.reveal(tx, store))
    assert revealed == {f"k{number}": b"v%d" % number for number in range(count)}
    service = at.read(lambda tx: services.find(tx, "a")).id
    part = at.read(lambda tx: parts.get(tx, service, 1, PartKind.BACKEND, "b"))
    assert part.data == BACKEND


def test_the_file_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    first = Keyring(tmp_path / KEYS)
    first.start()
    assert (tmp_path / KEYS).stat().st_mode & 0o777 == 0o600
    second = Keyring(tmp_path / KEYS)
    second.start()
    sealed = first.seal("store", "name", b"value")
    assert second.open(sealed.sealed_by, "store", "name", sealed.value) == b"value"
    for holder, name in (("other", "name"), ("store", "other")):
        with pytest.raises(Unopened):
            second.open(sealed.sealed_by, holder, name, sealed.value)
    with pytest.raises(Unopened):
        second.open("another", "store", "name", sealed.value)
    assert sealed.value != first.seal("store", "name", b"value").value


def test_digests_tell_equality_within_a_store_only(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / KEYS)
    keyring.start()
    digest = keyring.seal("store", "a", b"v").digest
    assert digest == keyring.seal("store", "b", b"v").digest
    assert digest != keyring.seal("other", "a", b"v").digest
    assert digest != keyring.seal("store", "a", b"w").digest


def test_a_missing_key_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / KEYS
    with desk(tmp_path) as at:
        store = fill(at)
    path.rename(tmp_path / "aside")
    with pytest.raises(ConfigError, match=r"secrets\.key is missing.*put it back"):
        desk(tmp_path).__enter__()
    assert not path.exists()
    Keyring(path).start()  # somebody makes another
    with pytest.raises(ConfigError, match="does not have the keys"):
        desk(tmp_path).__enter__()
    (tmp_path / "aside").rename(path)
    with desk(tmp_path) as at:
        check(at, store)


def test_a_missing_key_that_nothing_needs_is_made_anew(tmp_path: Path) -> None:
    with desk(tmp_path):
        (tmp_path / KEYS).unlink()
    with desk(tmp_path) as at:
        check(at, fill(at))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o640), "can be read by others"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged"),
        (lambda path: path.write_text('{"keys": []}'), "is damaged"),
        (lambda path: path.write_text('{"keys": [{"id": "a", "key": "AAAA"}]}'), "is damaged"),
        (lambda path: path.write_text("[" * 50_000), "is damaged"),
        (lambda path: (path.rename(f"{path}2"), path.symlink_to(f"{path}2")), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_said_in_words(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / KEYS
    Keyring(path).start()
    spoil(path)
    with pytest.raises(ConfigError, match=said):
        Keyring(path).start()


@in_loop
async def test_rotation_seals_everything_anew_and_forgets_the_old_key(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = fill(at, 450)
        old = at.keyring.newest
        made = await rotate(at.catalogue, at.keyring, ALICE)
        assert at.keyring.ids == (made,)
        assert made != old
        assert at.read(keys_in_use) == {made}
        check(at, store, 450)
    with desk(tmp_path) as at:
        check(at, store, 450)
        assert old not in (tmp_path / KEYS).read_text()


@pytest.mark.parametrize("steps", range(6))
@in_loop
async def test_a_crash_between_any_two_steps_of_a_rotation_loses_nothing(
    tmp_path: Path, steps: int
) -> None:
    with desk(tmp_path) as at:
        store = fill(at)
        done: list[Callable[[], object]] = [
            lambda: (tmp_path / f"{KEYS}.tmp").write_text("half a key"),
            at.keyring.rotate,
            lambda: at.write(lambda tx: entries.put(tx, store, "k1", b"v1")),
            lambda: at.write(lambda tx: reseal(tx, 1)),
            lambda: at.write(reseal),
            lambda: at.keyring.retire(at.read(keys_in_use)),
        ]
        for step in done[: steps + 1]:
            step()
    with desk(tmp_path) as at:
        assert not (tmp_path / f"{KEYS}.tmp").exists()
        check(at, store)
        made = await rotate(at.catalogue, at.keyring, ALICE)
        assert at.keyring.ids == (made,)
        check(at, store)


def test_a_key_that_still_seals_is_not_forgotten(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        store = fill(at)
        at.keyring.rotate()
        at.write(lambda tx: reseal(tx, 1))
        assert at.keyring.retire(at.read(keys_in_use)) == 0
        check(at, store)


@in_loop
async def test_a_rotation_that_cannot_be_written_keeps_the_old_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk(tmp_path) as at:
        store = fill(at)
        before = at.keyring.ids

        def broken(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", broken)
            with pytest.raises(ApiRefused, match="not rotated") as caught:
                await rotate(at.catalogue, at.keyring, ALICE)
        assert caught.value.refusal is Refusal.STORAGE
        assert at.keyring.ids == before
        check(at, store)
    with desk(tmp_path) as at:
        check(at, store)


@in_loop
async def test_a_secret_that_does_not_open_stops_a_rotation_and_keeps_its_key(
    tmp_path: Path,
) -> None:
    with desk(tmp_path) as at:
        fill(at)
        old = at.keyring.newest
        at.write(lambda tx: tx.run("UPDATE entry SET value = x'00' WHERE key = 'k1'"))
        with pytest.raises(ApiRefused, match="'k1' is damaged"):
            await rotate(at.catalogue, at.keyring, ALICE)
        assert old in at.keyring.ids

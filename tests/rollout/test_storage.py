"""What the control plane keeps on the disk, and what a start says of it when it is not in order."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.catalogue import entries, stores
from edge.catalogue.database import Transaction
from edge.catalogue.records import Actor, StoreKind
from edge.errors import ConfigError
from edge.rollout.storage import Storage, open_storage
from edge.settings import Settings

ALICE = Actor("alice")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Storage]:
    with contextlib.ExitStack() as stack:
        yield open_storage(replace(Settings(), state_dir=folder), stack)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_everything_is_for_its_owner_alone_and_the_first_token_is_made_once(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as storage:
        assert storage.made_token
        text = (tmp_path / "admin.token").read_text()
        found = modes(tmp_path)
        assert found.pop("packages") == 0o700
        assert set(found) >= {"admin.token", "catalogue.sqlite3", "secrets.key"}
        assert set(found.values()) == {0o600}
    with opened(tmp_path) as storage:
        assert not storage.made_token
        assert (tmp_path / "admin.token").read_text() == text


def test_packages_that_no_version_has_go_at_a_start(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        sha256 = storage.packages.put(b"module")
        assert storage.packages.path(sha256).exists()
    with opened(tmp_path) as storage:
        assert not storage.packages.path(sha256).exists()


def test_writes_are_counted_for_the_metrics(tmp_path: Path) -> None:
    with opened(tmp_path) as storage:
        before = storage.write_statistics()
        storage.catalogue.write_now(ALICE, lambda tx: stores.create(tx, StoreKind.KV, "carts"))
        count, seconds = storage.write_statistics()
        assert count == before[0] + 1
        assert seconds > before[1]


def _lose_key(folder: Path) -> None:
    (folder / "secrets.key").unlink()


def _damage(folder: Path) -> None:
    (folder / "catalogue.sqlite3").write_bytes(b"no database at all" * 100)


def _expose(folder: Path) -> None:
    (folder / "secrets.key").chmod(0o644)


@pytest.mark.parametrize(
    ("harm", "named"),
    [(_lose_key, "secrets.key"), (_damage, "catalogue.sqlite3"), (_expose, "secrets.key")],
)
def test_what_cannot_be_used_is_named_and_nothing_is_made_anew(
    tmp_path: Path, harm: Callable[[Path], None], named: str
) -> None:
    def keep_secret(tx: Transaction) -> None:
        store = stores.create(tx, StoreKind.SECRET, "keys")
        entries.put(tx, store.id, "api", b"very secret")

    with opened(tmp_path) as storage:
        storage.catalogue.write_now(ALICE, keep_secret)
    harm(tmp_path)
    before = modes(tmp_path)
    with pytest.raises(ConfigError, match=named) as caught, opened(tmp_path):
        pass
    assert "very secret" not in str(caught.value)
    made = modes(tmp_path).keys() - before.keys()
    assert made <= {"catalogue.sqlite3-wal", "catalogue.sqlite3-shm"}

"""Killed at any instant, the catalogue has all that was acknowledged, and nothing by half."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.catalogue import entries, erasures, parts, services, stores, tokens, versions
from edge.catalogue.database import Transaction
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Page, PartKind, ServiceRecord, StoreKind
from tests.support.catalogue_writer import KEEP, WRITER, Change, open_catalogue, secret_store

ROOT = Path(__file__).parents[2]
KILLINGS = 250
FIRST_STARTS = 40


class Told:
    """What the writers have acknowledged, and what was under way when one was killed."""

    def __init__(self) -> None:
        self.active: dict[str, int | None] = {}
        self.canary: dict[str, int | None] = {}
        self.modules: dict[tuple[str, int], str] = {}  # of versions that were made
        self.secrets: dict[str, str | None] = {}
        self.tokens: list[str] = []
        self.kept: dict[str, str] = {}  # KV stores, and the names of their services
        self.dropped = 0  # KV stores that are to be erased
        self.count = 0
        self.begun: Change | None = None

    def hear(self, line: dict[str, object]) -> None:
        for kind, facts in line.items():
            change = Change(**facts) if isinstance(facts, dict) else None
            match kind:
                case "begin":
                    self.begun = change
                case "refused":
                    self.begun = None
                case "done":
                    assert change is not None
                    self.begun = None
                    self.count += 1
                    self._apply(change)

    def _apply(self, change: Change) -> None:
        name = change.name
        match change.op:
            case "draft":
                self.active.setdefault(name, None)
                self.canary.setdefault(name, None)
                self.modules[name, change.number] = change.text
            case "activate":
                self.active[name] = change.number
                if self.canary[name] == change.number:
                    self.canary[name] = None
            case "canary":
                self.canary[name] = change.number
            case "deactivate":
                self.active[name] = self.canary[name] = None
            case "delete":
                del self.active[name], self.canary[name]
                for key in [key for key in self.modules if key[0] == name]:
                    del self.modules[key]
                for store in [store for store, owner in self.kept.items() if owner == name]:
                    self._drop(store)
            case "keep":
                self.kept[name] = change.text
            case "drop":
                self._drop(name)
            case "secret":
                self.secrets[name] = change.text
            case "forget":
                self.secrets[name] = None
            case "token":
                self.tokens.append(change.text)

    def _drop(self, store: str) -> None:
        del self.kept[store]
        self.dropped += 1

    def settle(self, tx: Transaction) -> None:
        """What was under way was done or was not: both are right, and nothing in between."""
        change, self.begun = self.begun, None
        if change is None or change.op in ("token", "rotate"):
            return
        if self._is_done(tx, change):
            self._apply(change)

    def _is_done(self, tx: Transaction, change: Change) -> bool:
        if change.op in ("secret", "forget"):
            found = secrets_of(tx).get(change.name)
            return found == (change.text.encode() if change.op == "secret" else None)
        if change.op in ("keep", "drop"):
            return (change.name in kept_of(tx)) != (change.name in self.kept)
        service = services.by_name(tx, change.name)
        match change.op:
            case "draft":
                return service is not None and service.latest == change.number
            case "activate":
                return service is not None and service.active == change.number
            case "canary":
                return (
                    service is not None
                    and service.canary is not None
                    and service.canary.number == change.number
                )
            case "deactivate":
                return service is not None and service.active is None
            case _:
                return service is None


def secrets_of(tx: Transaction) -> dict[str, bytes]:
    row = tx.one("SELECT id FROM store WHERE kind = 'secret'")
    return entries.reveal(tx, row["id"]) if row else {}


def kept_of(tx: Transaction) -> set[str]:
    return {store.name for store in stores.listing(tx, StoreKind.KV, Page(1000))}


class Writers:
    """The process that forks writers, and what it tells."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.catalogue_writer"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def lines(self, directory: Path, seed: int) -> Iterator[dict[str, object]]:
        """What is told until the writer has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed} {directory}\n".encode())
        self._process.stdin.flush()
        for line in self._process.stdout:
            found: dict[str, object] = json.loads(line)
            yield found
            if "ended" in found:
                assert found["ended"] == signal.SIGKILL, "it ended by itself"
                return
        raise AssertionError("the process that forks writers has ended")

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


@pytest.fixture
def writers() -> Iterator[Writers]:
    found = Writers()
    yield found
    found.close()


def check_service(tx: Transaction, packages: PackageStore, found: ServiceRecord) -> None:
    """What is served is locked and has a module that is whole."""
    canary = found.canary.number if found.canary else None
    for version in versions.listing(tx, found.id, Page(1000)):
        serves = version.number in (found.active, canary)
        assert not serves or (version.locked and version.package)
        assert version.active == (version.number == found.active)
        if version.package is not None:
            assert len(packages.read(version.package.sha256)) == version.package.size
            domains = parts.listing(tx, found.id, version.number, PartKind.DOMAIN)
            assert [part.name for part in domains] == [f"{found.name}.example"]


def check(directory: Path, told: Told) -> None:
    catalogue, packages = open_catalogue(directory)  # checks the file, and that all keys are there
    try:
        catalogue.read_now(lambda tx: told.settle(tx))
        catalogue.read_now(lambda tx: check_told(tx, packages, told))
        packages.sweep(catalogue.read_now(services.referenced_packages))
    finally:
        catalogue.close()
    assert not [path.name for path in directory.rglob("*") if path.name.startswith("new-")]
    assert not list(directory.glob("*.tmp"))


def check_told(tx: Transaction, packages: PackageStore, told: Told) -> None:
    there = {found.name: found for found in services.listing(tx, Page(1000))}
    assert there.keys() == told.active.keys()
    for name, found in there.items():
        assert found.active == told.active[name], name
        assert (found.canary.number if found.canary else None) == told.canary[name], name
        check_service(tx, packages, found)
        numbers = {each.number: each for each in versions.listing(tx, found.id, Page(1000))}
        newest = sorted(number for service, number in told.modules if service == name)[-KEEP:]
        for number in newest:
            package = numbers[number].package
            assert (package.sha256 if package else "") == told.modules[name, number]
    wanted = {key: text.encode() for key, text in told.secrets.items() if text is not None}
    assert secrets_of(tx) == wanted
    assert kept_of(tx) == told.kept.keys()
    assert len(erasures.pending(tx, 10_000)) == told.dropped
    for text in told.tokens:
        assert tokens.authenticate(tx, text)


def write_and_kill(
    writers: Writers, directory: Path, told: Told, *, seed: int, changes: int, wait: float
) -> None:
    """Kill a writer so many changes, and then seconds, after its begin."""
    child, left = 0, changes
    for line in writers.lines(directory, seed):
        told.hear(line)
        if "pid" in line:
            child = int(str(line["pid"]))
        left -= "done" in line
        if left <= 0 and child:
            until = time.perf_counter() + wait
            while time.perf_counter() < until:  # anywhere within what comes next
                pass
            os.kill(child, signal.SIGKILL)
            child = 0


def test_whatever_was_acknowledged_survives_a_kill_at_any_instant(
    tmp_path: Path, writers: Writers
) -> None:
    chance, told = random.Random(7), Told()
    for seed in range(KILLINGS):
        changes, wait = chance.randrange(1, 25), chance.uniform(0, 0.003)
        write_and_kill(writers, tmp_path, told, seed=seed, changes=changes, wait=wait)
        check(tmp_path, told)
    assert told.count > KILLINGS * 5
    assert len(told.tokens) > 20
    assert told.dropped > 20


def test_a_kill_while_the_files_are_made_leaves_what_can_be_started(
    tmp_path: Path, writers: Writers
) -> None:
    chance = random.Random(8)
    for seed in range(FIRST_STARTS):
        directory, told = tmp_path / str(seed), Told()
        directory.mkdir()
        wait = chance.uniform(0, 0.02)
        write_and_kill(writers, directory, told, seed=seed, changes=0, wait=wait)
        check(directory, told)


def test_a_change_that_is_lost_is_noticed(tmp_path: Path) -> None:
    """The test above can fail: forgetting one acknowledged secret is enough."""
    told = Told()
    catalogue, _ = open_catalogue(tmp_path)
    store = catalogue.write_now(WRITER, secret_store)
    catalogue.write_now(WRITER, lambda tx: entries.put(tx, store, "key-1", b"x"))
    catalogue.close()
    told.hear({"done": {"op": "secret", "name": "key-1", "text": "x"}})
    check(tmp_path, told)
    told.hear({"done": {"op": "secret", "name": "key-2", "text": "y"}})
    with pytest.raises(AssertionError):
        check(tmp_path, told)

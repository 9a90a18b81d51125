"""Developers who mean harm to the server or to their neighbours: what they deploy, and how much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge import transfer
from edge.catalogue import entries, entry_rules, file, parts, stores, tokens
from edge.catalogue.database import CatalogueLimits, Transaction
from edge.catalogue.migrations import MIGRATIONS
from edge.catalogue.records import Page, PartKind, Scope, Store, StoreKind
from edge.control import ControlError
from edge.errors import ApiRefused, Refusal
from edge.model.definition import read_definition
from edge.model.service import Role, Version
from edge.model.snapshot import Snapshot
from edge.rollout import definition, refresher
from edge.rollout.first import add_deployed
from edge.settings import Settings
from tests.process.test_transfer import artifacts, version
from tests.support.catalogue import Desk
from tests.support.loop import in_loop, turns
from tests.support.rollout import ALICE, Yard, yard

KEY = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def with_store(at: Yard, name: str, size: int, links: int = 1) -> str:
    """The id of a service that opens a store with `size` bytes under `links` names."""
    service_id = at.service(name, name)

    def work(tx: Transaction) -> None:
        store = stores.create(tx, StoreKind.CONFIG, name)
        fill(tx, store.id, size)
        for number in range(links):
            parts.add(tx, service_id, 1, PartKind.LINK, f"flags{number}", {"store": store.id})

    at.catalogue.write_now(ALICE, work)
    return service_id


def fill(tx: Transaction, store: str, size: int) -> None:
    for at in range(0, size, 4000):
        entries.put(tx, store, f"{at:04}", b"v" * 3996)


async def restarted(at: Yard) -> dict[str, Version]:
    """What is served after a start, by service."""
    at.fleet.world = await add_deployed(at.fleet.world, at.catalogue, at.publisher)
    return {version.service.name: version for version in at.fleet.world.snapshot.versions}


@in_loop
async def test_services_that_no_longer_fit_together_start_all_the_same_without_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard(tmp_path) as at:
        for name, size in (("a-hog", 40_000), ("b", 4_000), ("c", 8_000)):
            await at.changes.activate(ALICE, with_store(at, name, size), 1)
    monkeypatch.setattr(transfer, "SHARES", 1)
    monkeypatch.setattr(transfer, "MAX_TO_WORKER", transfer.RESERVE + 35_000)
    async with yard(tmp_path) as at:
        served = await restarted(at)
        assert "do not fit beside those of other services" in served["a-hog"].refused
        assert served["a-hog"].service.routes  # whoever asks for it is told, and not by another
        assert not served["a-hog"].service.config_stores
        assert not served["b"].refused
        assert not served["c"].refused
        packed = transfer.Sender().pack(at.fleet.world.snapshot, {}, frozenset())
        assert len(packed.frame) < 35_000


@in_loop
async def test_what_fits_again_can_be_activated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard(tmp_path) as at:
        hog = with_store(at, "hog", 40_000)
        await at.changes.activate(ALICE, hog, 1)
    monkeypatch.setattr(transfer, "SHARES", 1)
    monkeypatch.setattr(transfer, "MAX_TO_WORKER", transfer.RESERVE + 20_000)
    async with yard(tmp_path) as at:
        assert (await restarted(at))["hog"].refused
        at.catalogue.write_now(
            ALICE,
            lambda tx: entries.replace_all(tx, stores.find(tx, StoreKind.CONFIG, "hog"), {}),
        )
        await at.changes.activate(ALICE, hog, 1)
        assert not at.fleet.world.versions_of(hog)[0].refused


@in_loop
async def test_one_store_under_a_hundred_names_is_refused_before_it_fills_our_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definition, "MAX_CONTENTS", 100_000)
    async with yard(tmp_path) as at:
        read: list[str] = []
        contents = entries.contents

        def counted(tx: Transaction, store: Store | str) -> dict[str, bytes]:
            read.append(str(store))
            return contents(tx, store)

        monkeypatch.setattr(entries, "contents", counted)
        hog = with_store(at, "hog", 20_000, links=100)
        with pytest.raises(ApiRefused, match="100000 are allowed") as caught:
            await at.changes.activate(ALICE, hog, 1)
        assert caught.value.refusal is Refusal.LIMIT
        assert len(read) < 5
        assert at.record(hog).active is None


@in_loop
async def test_a_store_that_grew_too_large_while_it_was_served_takes_its_own_service_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard(tmp_path) as at:
        for name in ("hog", "other"):
            await at.changes.activate(ALICE, with_store(at, name, 8_000), 1)
        at.catalogue.write_now(
            ALICE, lambda tx: fill(tx, stores.find(tx, StoreKind.CONFIG, "hog").id, 40_000)
        )
    monkeypatch.setattr(definition, "MAX_CONTENTS", 20_000)
    async with yard(tmp_path) as at:
        served = await restarted(at)
        assert "20000 are allowed" in served["hog"].refused
        assert served["hog"].service.routes
        assert not served["other"].refused


def test_one_service_does_not_take_what_there_is_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    room = transfer.SHARES * 20_000
    monkeypatch.setattr(transfer, "MAX_TO_WORKER", transfer.RESERVE + room)
    active, other, c, d = (large(version(name)) for name in ("hog", "other", "c", "d"))
    canary = large(version("hog", 2, role=Role.CANARY, share=500))
    sender = transfer.Sender()
    with pytest.raises(ControlError, match="one may take 20000"):
        sender.pack(Snapshot(1, Settings(), (active, canary)), {}, frozenset())
    # Of two services as much is no trouble, nor is it of the file's.
    sender.pack(Snapshot(2, Settings(), (active, other)), {}, frozenset())
    filed = (replace(c, id=""), replace(d, id=""))
    sender.pack(Snapshot(3, Settings(), filed), {}, frozenset())


def large(version: Version) -> Version:
    return replace(version, service=replace(version.service, env={"A": "x" * 12_000}))


def test_facts_of_modules_count_as_well() -> None:
    """Incremental frames are small; the one that a fresh worker needs has them all."""
    one = version("one")
    (artifact,) = artifacts(one).values()
    named = replace(artifact.info, exports=tuple(f"{'e' * 100}{n}" for n in range(100)))
    wordy = replace(artifact, info=named)
    assert transfer.size_of(one, wordy) > transfer.size_of(one, artifact) + 10_000


@pytest.mark.parametrize(
    "backend",
    [
        {"client_certificate": {"certificate": CERTIFICATE + KEY, "key": KEY}},
        {"client_certificate": {"certificate": KEY, "key": KEY}},
        {"ca_certificate": CERTIFICATE + KEY},
    ],
)
def test_a_private_key_where_certificates_are_shown_is_refused_and_not_quoted(
    backend: dict[str, object],
) -> None:
    fields = {"backends": {"origin": {"url": "https://origin.test", **backend}}}
    with pytest.raises(ApiRefused, match="has a private key in it") as caught:
        read_definition("shop", fields)
    assert "hush" not in caught.value.detail + "".join(map(str, caught.value.problems))


@pytest.mark.parametrize("at", [253_402_300_800.0, 1e300, float("inf"), float("nan")])
@in_loop
async def test_a_token_that_no_calendar_can_tell_the_end_of_is_refused(
    at: float, tmp_path: Path
) -> None:
    """Else nobody could list tokens any more."""
    async with yard(tmp_path) as its:
        with pytest.raises(ApiRefused, match="9999"):
            its.catalogue.write_now(
                ALICE, lambda tx: tokens.create(tx, "for ever", [Scope.READ], expires_at=at)
            )


LARGE = b"v" * 6_000
GROWTH: list[Callable[[Transaction, str], object]] = [
    lambda tx, store: entries.put(tx, store, "two", LARGE),
    lambda tx, store: entries.insert(tx, store, "two", LARGE),
    lambda tx, store: entries.batch(tx, store, [("upsert", "two", LARGE)]),
    lambda tx, store: entries.replace_all(tx, store, {"one": LARGE, "two": LARGE}),
]


@pytest.mark.parametrize("kind", [StoreKind.CONFIG, StoreKind.SECRET])
@pytest.mark.parametrize("grow", GROWTH)
def test_a_store_that_would_be_too_large_stays_as_it_was(
    kind: StoreKind,
    grow: Callable[[Transaction, str], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry_rules, "STORE_BYTES", 10_000)
    with Desk(tmp_path, CatalogueLimits()) as at:
        store = at.catalogue.write_now(ALICE, lambda tx: stores.create(tx, kind, "s").id)
        at.catalogue.write_now(ALICE, lambda tx: entries.put(tx, store, "one", LARGE))
        with pytest.raises(ApiRefused) as caught:
            at.catalogue.write_now(ALICE, lambda tx: grow(tx, store))
        assert caught.value.refusal is Refusal.LIMIT
        kept = at.catalogue.read_now(lambda tx: entries.listing(tx, store, Page(10)))
        assert [entry.key for entry in kept] == ["one"]
        swap = [("delete", "one", b""), ("create", "two", LARGE)]
        at.catalogue.write_now(ALICE, lambda tx: entries.batch(tx, store, swap))


def test_the_bytes_of_a_store_are_known_whatever_is_done_to_it(tmp_path: Path) -> None:
    with Desk(tmp_path, CatalogueLimits()) as at:
        store = at.catalogue.write_now(
            ALICE, lambda tx: stores.create(tx, StoreKind.CONFIG, "flags").id
        )
        steps: list[Callable[[Transaction], object]] = [
            lambda tx: entries.put(tx, store, "b\u00e4r", b"1234"),
            lambda tx: entries.put(tx, store, "b\u00e4r", b"12"),
            lambda tx: entries.batch(
                tx, store, [("create", "x", b"12345"), ("delete", "b\u00e4r", b"")]
            ),
            lambda tx: entries.replace_all(tx, store, {"x": b"", "y": b"1"}),
        ]
        sizes = []
        for step in steps:
            at.catalogue.write_now(ALICE, step)
            sizes.append(at.catalogue.read_now(lambda tx: entries.total_bytes(tx, store)))
        assert sizes == [8, 6, 6, 3]


def test_a_catalogue_of_before_knows_the_bytes_of_its_stores(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite3"
    old = file.open_writer(path, MIGRATIONS[:1])
    old.execute("INSERT INTO store (id, kind, name, created_at, updated_at) "
                "VALUES (?, 'config', 'flags', 0, 0)", ("s" * 22,))  # fmt: skip
    old.execute("INSERT INTO entry (store, key, value, created_at, updated_at) "
                "VALUES (?, 'key', CAST('value' AS BLOB), 0, 0)", ("s" * 22,))  # fmt: skip
    old.close()
    new = file.open_writer(path)
    assert new.execute("SELECT bytes FROM store").fetchone()[0] == 8
    new.close()


@in_loop
async def test_one_service_does_not_own_all_stores_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MOST_OF_ONE", 3)
    async with yard(tmp_path) as at:
        hog, other = at.service("hog"), at.service("other")

        def make(owner: str, name: str) -> None:
            at.catalogue.write_now(
                ALICE, lambda tx: stores.create(tx, StoreKind.KV, name, owner=owner)
            )

        for number in range(3):
            make(hog, f"hog{number}")
        with pytest.raises(ApiRefused, match="owns 3 stores"):
            make(hog, "hog3")
        make(other, "other")
        make("", "shared")


@in_loop
async def test_a_service_that_workers_refuse_again_and_again_is_tried_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher, "TROUBLE_SECONDS", 0.001)
    async with yard(tmp_path) as at:
        hog = with_store(at, "hog", 4_000)
        await at.changes.activate(ALICE, hog, 1)
        at.fleet.failing = "hog"
        loop = asyncio.get_running_loop()
        real, delays = loop.call_later, list[float]()

        def spy(delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
            if callback == at.refresher.services_changed:
                delays.append(delay)
            return real(delay, callback, *args)

        monkeypatch.setattr(loop, "call_later", spy)
        running = asyncio.create_task(at.refresher.run())
        store = at.catalogue.read_now(lambda tx: stores.find(tx, StoreKind.CONFIG, "hog").id)
        at.catalogue.write_now(ALICE, lambda tx: entries.put(tx, store, "new", b"1"))
        at.refresher.stores_changed([store])
        async with asyncio.timeout(10):
            while len(delays) < 4:
                await turns(1)
            at.fleet.failing = ""
            while "new" not in at.fleet.world.versions_of(hog)[0].service.config_stores["flags0"]:
                await turns(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert delays[:4] == [0.001, 0.002, 0.004, 0.008]

"""Stores that change: who is published again, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from edge.catalogue import entries, parts, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.records import PartKind, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.limits import DEFAULT_CEILINGS
from edge.rollout.publisher import Built
from edge.rollout.wanted import Serving
from edge.settings import Deploy
from tests.support.loop import in_loop, turns
from tests.support.rollout import ALICE, Yard, yard


@asynccontextmanager
async def refreshing(folder: Path) -> AsyncIterator[Yard]:
    async with yard(folder) as at:
        owner = asyncio.create_task(at.refresher.run())
        try:
            yield at
        finally:
            owner.cancel()
            await asyncio.gather(owner, return_exceptions=True)


def linked(at: Yard, store: str, *service_ids: str) -> None:
    def work(tx: Transaction) -> None:
        for service_id in service_ids:
            parts.add(tx, service_id, 1, PartKind.LINK, "flags", {"store": store})

    at.catalogue.write_now(ALICE, work)


def change(at: Yard, store: str, value: bytes) -> None:
    at.catalogue.write_now(ALICE, lambda tx: entries.put(tx, store, "banner", value))


def make_store(at: Yard) -> str:
    return at.catalogue.write_now(
        ALICE, lambda tx: stores.create(tx, StoreKind.CONFIG, "banners").id
    )


def seen(at: Yard) -> dict[str, str]:
    """What each service reads under `banner`."""
    return {
        v.service.name: v.service.config_stores.get("flags", {}).get("banner", "")
        for v in at.fleet.world.snapshot.versions
    }


async def until(at: Yard, wanted: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while seen(at) != wanted:
            await turns(1)


@in_loop
async def test_only_services_linked_to_a_store_are_published_again_and_together(
    tmp_path: Path,
) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        ids = [at.service(name, "one") for name in ("a", "b", "c")]
        linked(at, store, *ids[:2])
        for service_id in ids:
            await at.changes.activate(ALICE, service_id, 1)
        change(at, store, b"blue")
        at.fleet.events.clear()
        at.refresher.stores_changed([store])
        await until(at, {"a": "blue", "b": "blue", "c": ""})
        assert at.fleet.events == ["prepare", "commit"]
        assert at.served() == ["a@1 active", "b@1 active", "c@1 active"]


@in_loop
async def test_a_change_that_leaves_everything_as_it_is_asks_no_worker(tmp_path: Path) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        shop = at.service("shop", "one")
        linked(at, store, shop)
        await at.changes.activate(ALICE, shop, 1)
        other = make_other(at)
        at.fleet.events.clear()
        at.refresher.stores_changed([store, other])
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"shop": "blue"})
        assert at.fleet.events == ["prepare", "commit"]


@in_loop
async def test_what_was_linked_to_a_store_that_has_gone_is_published_without_it(
    tmp_path: Path,
) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        ids = [at.service(name, "one") for name in ("a", "b")]
        linked(at, store, ids[0])
        change(at, store, b"blue")
        for service_id in ids:
            await at.changes.activate(ALICE, service_id, 1)
        await until(at, {"a": "blue", "b": ""})
        at.catalogue.write_now(ALICE, lambda tx: stores.delete(tx, store, force=True))
        assert at.catalogue.read_now(lambda tx: stores.left(tx, store)) == [(ids[0], 1)]
        at.refresher.stores_changed([store])
        await until(at, {"a": "", "b": ""})


@in_loop
async def test_a_store_that_goes_while_a_version_is_activated_is_taken_from_it(
    tmp_path: Path,
) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        shop = at.service("shop", "one")
        linked(at, store, shop)
        change(at, store, b"blue")

        def delete() -> None:  # while it compiles, its stores have been read already
            at.catalogue.write_now(ALICE, lambda tx: stores.delete(tx, store))
            at.refresher.stores_changed([store])

        at.compiler.during = delete
        await at.changes.activate(ALICE, shop, 1)
        at.compiler.during = None
        assert seen(at) == {"shop": "blue"}
        await until(at, {"shop": ""})


def make_other(at: Yard) -> str:
    return at.catalogue.write_now(ALICE, lambda tx: stores.create(tx, StoreKind.CONFIG, "x").id)


@in_loop
async def test_a_service_that_is_being_activated_reads_what_changes_meanwhile(
    tmp_path: Path,
) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        shop, other = at.service("shop", "one"), at.service("other", "two")
        linked(at, store, shop, other)
        await at.changes.activate(ALICE, other, 1)
        held = at.compiler.held[b"one"] = asyncio.Event()
        activating = asyncio.create_task(at.changes.activate(ALICE, shop, 1))
        while not at.errands.changing:
            await turns()
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"other": "blue"})  # nobody waits for the one that compiles
        held.set()
        await activating
        await until(at, {"other": "blue", "shop": "blue"})


@in_loop
async def test_a_service_that_cannot_be_published_again_keeps_what_it_has(tmp_path: Path) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        good, bad = at.service("good", "one"), at.service("odd", "two")
        linked(at, store, good, bad)
        at.catalogue.write_now(
            ALICE, lambda tx: versions.set_settings(tx, bad, 1, {"limits": {"cpu": "2s"}})
        )
        for service_id in (good, bad):
            await at.changes.activate(ALICE, service_id, 1)
        at.loader.config = replace(at.loader.config, ceilings=replace(DEFAULT_CEILINGS, cpu=1.0))
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"good": "blue", "odd": ""})


@in_loop
async def test_a_publication_that_failed_is_tried_again(tmp_path: Path) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        shop = at.service("shop", "one")
        linked(at, store, shop)
        await at.changes.activate(ALICE, shop, 1)
        at.fleet.failures = [{"shop": "no room"}]
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"shop": "blue"})


@in_loop
async def test_a_change_that_could_not_be_read_for_the_moment_is_not_forgotten(
    tmp_path: Path,
) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        ids = [at.service(name, "one") for name in ("a", "b")]
        linked(at, store, *ids)
        for service_id in ids:
            await at.changes.activate(ALICE, service_id, 1)
        publisher = at.refresher._publisher
        build, failing = publisher.build, [ids[0]]

        async def busy_once(service_id: str, serving: Serving) -> Built:
            if service_id in failing:
                failing.remove(service_id)
                raise ApiRefused(Refusal.BUSY, "too many requests wait for the catalogue")
            return await build(service_id, serving)

        with patch.object(publisher, "build", busy_once):
            change(at, store, b"blue")
            at.refresher.stores_changed([store])
            await until(at, {"a": "", "b": "blue"})
            await until(at, {"a": "blue", "b": "blue"})


@in_loop
async def test_a_service_that_workers_do_not_take_holds_up_no_other(tmp_path: Path) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        ids = [at.service(name, "one") for name in ("a", "b", "c")]
        linked(at, store, *ids)
        for service_id in ids:
            await at.changes.activate(ALICE, service_id, 1)
        at.fleet.failing = "b"
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"a": "blue", "b": "", "c": "blue"})
        at.fleet.failing = ""
        await until(at, {"a": "blue", "b": "blue", "c": "blue"})


@in_loop
async def test_a_name_that_a_reload_makes_a_taken_route_holds_up_no_other(tmp_path: Path) -> None:
    async with refreshing(tmp_path) as at:
        store = make_store(at)
        ids = [at.service(name, "one") for name in ("a", "b", "c")]
        linked(at, store, *ids)
        domain = {"host": "b.new.example", "path": "/", "exact": False, "comment": ""}
        at.catalogue.write_now(
            ALICE, lambda tx: parts.add(tx, ids[2], 1, PartKind.DOMAIN, "b.new.example", domain)
        )
        for service_id in ids:
            await at.changes.activate(ALICE, service_id, 1)
        settings = replace(at.loader.config.settings, deploy=Deploy(domain="new.example"))
        at.loader.config = replace(at.loader.config, settings=settings)
        change(at, store, b"blue")
        at.refresher.stores_changed([store])
        await until(at, {"a": "blue", "b": "", "c": "blue"})

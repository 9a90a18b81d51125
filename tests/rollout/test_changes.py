"""What becomes of a service's versions: the order of things, and what each failure leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from edge.admin.control import Activated
from edge.catalogue import parts, services, versions
from edge.catalogue.records import PartKind
from edge.errors import ApiRefused, Refusal
from edge.model.route import Route
from edge.model.service import Role, Service, Version
from edge.rollout.canaries import Canaries
from edge.supervisor.breaker import DEATHS, VersionKey
from edge.supervisor.fleet import Fleet
from edge.supervisor.world import World, key_of
from edge.telemetry.directory import Series
from edge.telemetry.layout import OTHER_BLOCK
from tests.support.loop import in_loop, turns
from tests.support.rollout import ALICE, Yard, yard


async def refused(work: object) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        await work  # type: ignore[misc]  # a coroutine
    return caught.value


async def begin_canary(at: Yard, service_id: str, number: int, share: int) -> Activated:
    return await at.changes.canary(
        ALICE, service_id, number, share=share, max_error_rate=0.1, max_limit_rate=0.1,
        min_requests=10,
    )  # fmt: skip


@in_loop
async def test_an_activation_is_remembered_after_all_prepared_and_before_any_commits(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        done = await at.changes.activate(ALICE, shop, 1)
        assert at.fleet.events == ["prepare", "remembered", "commit"]
        assert (done.number, done.previous) == (1, None)
        done = await at.changes.activate(ALICE, shop, 2)
        assert (done.number, done.previous) == (2, 1)
        assert at.served() == ["shop@2 active"]
        assert at.record(shop).active == 2


@in_loop
async def test_activating_what_serves_already_asks_no_worker(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one")
        await at.changes.activate(ALICE, shop, 1)
        at.fleet.events.clear()
        done = await at.changes.activate(ALICE, shop, 1)
        assert (done.number, done.previous) == (1, 1)
        assert at.fleet.events == []


@in_loop
async def test_a_version_that_no_worker_can_load_changes_nothing(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        at.fleet.failures = [{"shop": "it does not link"}]
        error = await refused(at.changes.activate(ALICE, shop, 2))
        assert error.refusal is Refusal.NOT_ACTIVATED
        assert "it does not link" in error.detail
        assert at.served() == ["shop@1 active"]
        assert at.record(shop).active == 1
        assert at.fleet.discarded == ["shop"]


@in_loop
async def test_a_worker_that_dies_while_it_prepares_is_asked_once_more(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        at.fleet.failures = [{"": "worker 0 ended by SIGKILL"}]
        await at.changes.activate(ALICE, shop, 1)
        assert at.served() == ["shop@1 active"]
        at.fleet.failures = [{"": "worker 0 ended by SIGKILL"}] * 2
        error = await refused(at.changes.activate(ALICE, shop, 2))
        assert error.refusal is Refusal.NOT_ACTIVATED
        assert at.served() == ["shop@1 active"]


@in_loop
async def test_a_module_that_is_refused_is_not_activated(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "bad program")
        error = await refused(at.changes.activate(ALICE, shop, 1))
        assert error.refusal is Refusal.MODULE_REFUSED
        assert "version 1 of shop: bad program" in error.detail
        assert at.record(shop).active is None
        assert at.counters.deploys.values == {("shop", "refused"): 1}


@in_loop
async def test_a_draft_that_changes_while_it_compiles_is_not_activated(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one")

        def change() -> None:
            at.catalogue.write_now(
                ALICE, lambda tx: versions.set_settings(tx, shop, 1, {"server_timing": True})
            )

        at.compiler.during = change
        error = await refused(at.changes.activate(ALICE, shop, 1))
        assert error.refusal is Refusal.CONFLICT
        assert at.served() == []
        assert not at.catalogue.read_now(lambda tx: versions.get(tx, shop, 1)).locked


@in_loop
async def test_a_service_of_the_file_keeps_its_name_and_its_routes(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        filed = Service("filed", Path("/filed"), (Route("shop.localhost"),))
        at.add(Version(filed, 1, "f" * 64, Path("/code")))
        shop, same = at.service("shop", "one"), at.service("filed", "one")
        error = await refused(at.changes.activate(ALICE, shop, 1))
        assert error.refusal is Refusal.ROUTE_CONFLICT
        assert "service filed of the configuration file" in str(error.problems[0])
        error = await refused(at.changes.activate(ALICE, same, 1))
        assert error.refusal is Refusal.OWNED_BY_FILE
        assert at.served() == ["filed@1 active"]
        assert at.fleet.events == []


@in_loop
async def test_changes_of_one_service_wait_for_each_other_and_those_of_others_do_not(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop, other = at.service("shop", "one", "two"), at.service("other", "three")
        held = at.compiler.held[b"one"] = asyncio.Event()
        slow = asyncio.create_task(at.changes.activate(ALICE, shop, 1))
        while not at.errands.changing:
            await turns()
        waiting = asyncio.create_task(at.changes.activate(ALICE, shop, 2))
        await turns()
        await at.changes.activate(ALICE, other, 1)
        assert not slow.done()
        assert not waiting.done()
        held.set()
        assert (await slow).previous is None
        assert (await waiting).previous == 1
        assert at.record(shop).active == 2
        assert at.errands.changing == frozenset()


@in_loop
async def test_a_change_is_carried_through_when_its_client_leaves(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one")
        held = at.compiler.held[b"one"] = asyncio.Event()
        client = asyncio.create_task(at.errands.do(partial(at.changes.activate, ALICE, shop, 1)))
        while not at.errands.changing:
            await turns()
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)
        held.set()
        while at.errands.changing:
            await turns()
        assert at.served() == ["shop@1 active"]
        assert at.record(shop).active == 1


@in_loop
async def test_a_stop_ends_what_would_take_long_and_changes_nothing(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one")
        at.compiler.held[b"one"] = asyncio.Event()
        client = asyncio.create_task(at.errands.do(partial(at.changes.activate, ALICE, shop, 1)))
        while not at.errands.changing:
            await turns()
        await at.errands.stop(0.0)
        error = await refused(client)
        assert error.refusal is Refusal.STOPPING
        error = await refused(at.errands.do(partial(at.changes.activate, ALICE, shop, 1)))
        assert error.refusal is Refusal.STOPPING
        assert at.record(shop).active is None
        assert at.served() == []


@in_loop
async def test_a_rollback_returns_to_what_served_before(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        error = await refused(at.changes.rollback(ALICE, shop))
        assert error.refusal is Refusal.CONFLICT
        await at.changes.activate(ALICE, shop, 2)
        done = await at.changes.rollback(ALICE, shop)
        assert (done.number, done.previous) == (1, 2)
        newest = at.catalogue.read_now(lambda tx: services.activations(tx, shop))[0]
        assert (newest.number, newest.reason, newest.actor) == (1, "rollback", "alice")


@in_loop
async def test_a_canary_stands_beside_the_active_version_until_it_ends(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two", "three")
        error = await refused(begin_canary(at, shop, 2, 500))
        assert error.refusal is Refusal.CONFLICT
        await at.changes.activate(ALICE, shop, 1)
        error = await refused(begin_canary(at, shop, 1, 500))
        assert error.refusal is Refusal.VERSION_ACTIVE
        done = await begin_canary(at, shop, 2, 500)
        assert (done.number, done.share) == (2, 500)
        assert at.served() == ["shop@1 active", "shop@2 canary"]
        first = at.record(shop).canary
        await begin_canary(at, shop, 2, 5000)
        second = at.record(shop).canary
        assert first is not None
        assert second is not None
        assert (second.share, second.since) == (5000, first.since)
        await at.changes.rollback(ALICE, shop)
        assert at.served() == ["shop@1 active"]
        assert at.record(shop).canary is None


@in_loop
async def test_a_canary_gets_all_clients_and_is_active_then(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await begin_canary(at, shop, 2, 500)
        await begin_canary(at, shop, 2, 10_000)
        assert at.served() == ["shop@2 active"]
        assert (at.record(shop).active, at.record(shop).canary) == (2, None)


@in_loop
async def test_a_version_without_counters_of_its_own_is_no_canary(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        for number in range(at.directory.capacity):
            at.directory.assign(Series("other", str(number)))
        error = await refused(begin_canary(at, shop, 2, 500))
        assert error.refusal is Refusal.LIMIT
        assert (at.served(), at.record(shop).canary) == (["shop@1 active"], None)
        assert at.fleet.discarded == ["shop@2"]
        done = await at.changes.activate(ALICE, shop, 2)
        assert done.number == 2


@in_loop
async def test_a_canary_that_a_start_left_no_counters_for_is_ended(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await begin_canary(at, shop, 2, 500)
        canaries = Canaries(
            at.catalogue, at.changes, cast("Fleet", at.fleet), at.baselines, at.counters
        )
        world = at.fleet.world
        await canaries.look()
        assert at.served() == ["shop@1 active", "shop@2 canary"]
        active, canary = world.snapshot.versions
        folded = replace(canary, series=OTHER_BLOCK)
        at.fleet.world = World(replace(world.snapshot, versions=(active, folded)), world.artifacts)
        await canaries.look()
        assert (at.served(), at.record(shop).canary) == (["shop@1 active"], None)


@in_loop
async def test_a_service_that_is_long_at_its_changes_keeps_no_other_canary_alive(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        slow, shop = at.service("a-slow", "one", "two"), at.service("shop", "one", "two")
        for service_id in (slow, shop):
            await at.changes.activate(ALICE, service_id, 1)
            await begin_canary(at, service_id, 2, 500)
        world = at.fleet.world
        folded = [
            replace(v, series=OTHER_BLOCK) if v.role is Role.CANARY else v
            for v in world.snapshot.versions
        ]
        at.fleet.world = World(replace(world.snapshot, versions=tuple(folded)), world.artifacts)
        canaries = Canaries(
            at.catalogue, at.changes, cast("Fleet", at.fleet), at.baselines, at.counters
        )
        watching = asyncio.create_task(canaries.run())
        async with at.errands.turn(slow), asyncio.timeout(10):
            while at.record(shop).canary is not None:
                await turns()
            assert at.record(slow).canary is not None
        async with asyncio.timeout(10):
            while at.record(slow).canary is not None:
                await turns()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@in_loop
async def test_a_token_of_one_service_takes_no_path_of_anothers_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with yard(tmp_path) as at:
        shop, thief = at.service("shop", "one"), at.service("thief", "one")
        data = {"host": "shop.localhost", "path": "/login", "exact": False, "comment": ""}
        at.catalogue.write_now(
            ALICE,
            lambda tx: parts.add(tx, thief, 1, PartKind.DOMAIN, "shop.localhost/login", data),
        )
        await at.changes.activate(ALICE, shop, 1)
        error = await refused(at.changes.activate(replace(ALICE, service_id=thief), thief, 1))
        assert error.refusal is Refusal.ROUTE_CONFLICT
        assert at.served() == ["shop@1 active"]
        done = await at.changes.activate(ALICE, thief, 1)
        told = "shop.localhost is shared with service shop"
        assert any(told in text for text in done.warnings)
        assert any(told in text and "deployed, but" in text for text in caplog.messages)
        await at.changes.stage(replace(ALICE, service_id=thief), thief, 1)
        assert at.served() == ["shop@1 active", "thief@1 active"]


@in_loop
async def test_a_new_name_is_published_with_what_serves_by_then(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two", "three", "four")
        await at.changes.refresh(ALICE, shop)
        assert at.fleet.events == []
        await at.changes.activate(ALICE, shop, 1)
        await begin_canary(at, shop, 2, 500)
        await at.changes.stage(ALICE, shop, 3)
        activations = len(at.catalogue.read_now(lambda tx: services.activations(tx, shop)))
        async with at.errands.turn(shop):  # somebody else was faster with an activation
            at.catalogue.write_now(ALICE, lambda tx: services.update(tx, shop, name="store"))
            renaming = asyncio.create_task(at.changes.refresh(ALICE, shop))
            await turns()
            at.catalogue.write_now(
                ALICE, lambda tx: services.set_active(tx, shop, 4, reason="activate")
            )
        await renaming
        assert at.served() == ["store@4 active", "store@2 canary", "store@3 staged"]
        record = at.record(shop)
        assert (record.active, record.staged) == (4, 3)
        found = at.catalogue.read_now(lambda tx: services.activations(tx, shop))
        assert len(found) == activations + 1


@in_loop
async def test_a_canary_that_has_gone_already_is_not_taken_back(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await begin_canary(at, shop, 2, 500)
        assert await at.changes.end_canary(ALICE, shop, 2, "it fails")
        assert not await at.changes.end_canary(ALICE, shop, 2, "it fails")


@in_loop
async def test_a_staged_version_is_loaded_beside_what_serves(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await at.changes.stage(ALICE, shop, 2)
        assert at.served() == ["shop@1 active", "shop@2 staged"]
        await at.changes.activate(ALICE, shop, 2)
        assert at.served() == ["shop@2 active"]
        await at.changes.stage(ALICE, shop, None)
        assert at.record(shop).staged is None


@in_loop
async def test_deactivating_ends_a_canary_as_well_and_leaves_what_is_staged(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two", "three")
        await at.changes.activate(ALICE, shop, 1)
        await begin_canary(at, shop, 2, 500)
        await at.changes.stage(ALICE, shop, 3)
        await at.changes.deactivate(ALICE, shop)
        assert at.served() == ["shop@3 staged"]
        record = at.record(shop)
        assert (record.active, record.canary, record.staged) == (None, None, 3)


@in_loop
async def test_a_served_service_is_deleted_by_force_alone(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await at.changes.stage(ALICE, shop, 2)
        error = await refused(at.changes.delete(ALICE, shop, force=False))
        assert error.refusal is Refusal.VERSION_ACTIVE
        assert at.served() == ["shop@1 active", "shop@2 staged"]
        await at.changes.delete(ALICE, shop, force=True)
        assert at.served() == []
        assert (await refused(at.changes.activate(ALICE, shop, 1))).refusal is Refusal.NOT_FOUND


@in_loop
async def test_a_version_in_quarantine_stays_there_when_others_are_published(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        for _ in range(DEATHS):
            at.breaker.died(VersionKey("shop", 1, shop))
        await at.changes.stage(ALICE, shop, 2)
        quarantined = [v.number for v in at.fleet.world.snapshot.versions if v.quarantined]
        assert quarantined == [1]


@in_loop
async def test_a_service_made_anew_under_a_name_inherits_neither_quarantine_nor_numbers(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        old = at.service("shop", "one")
        await at.changes.activate(ALICE, old, 1)
        (before,) = at.fleet.world.snapshot.versions
        for _ in range(DEATHS):
            at.breaker.died(key_of(before))
        await at.changes.delete(ALICE, old, force=True)
        new = at.service("shop", "one")
        await at.changes.activate(ALICE, new, 1)
        (after,) = at.fleet.world.snapshot.versions
        assert (after.label, after.sha256) == (before.label, before.sha256)
        assert not after.quarantined
        assert after.series != before.series  # where they are counted

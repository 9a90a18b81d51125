"""What is served after a restart: all that was, but for what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge.catalogue import versions
from edge.errors import ConfigError
from edge.model.limits import DEFAULT_CEILINGS
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.rollout.first import add_deployed, check_start, rebased
from edge.supervisor.world import World
from tests.support.loop import in_loop
from tests.support.rollout import ALICE, Yard, yard


async def started(at: Yard) -> World:
    at.fleet.world = await add_deployed(at.fleet.world, at.catalogue, at.publisher)
    return at.fleet.world


def filed(name: str, *hosts: str) -> Service:
    return Service(name, Path(f"/{name}"), tuple(map(Route, hosts)))


@in_loop
async def test_every_version_serves_in_the_role_that_it_had(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop, blog = at.service("shop", "one", "two", "three"), at.service("blog", "four")
        for service_id, number in ((shop, 1), (blog, 1)):
            await at.changes.activate(ALICE, service_id, number)
        await at.changes.canary(
            ALICE, shop, 2, share=500, max_error_rate=0, max_limit_rate=0, min_requests=1
        )
        await at.changes.stage(ALICE, shop, 3)
        before = sorted(at.served())
    async with yard(tmp_path) as at:
        world = await started(at)
        assert sorted(at.served()) == before
        assert [v.share for v in world.versions_of(shop)] == [0, 500, 0]


@in_loop
async def test_a_module_that_is_lost_is_refused_alone_and_its_routes_say_so(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop, blog = at.service("shop", "one"), at.service("blog", "two")
        for service_id in (shop, blog):
            await at.changes.activate(ALICE, service_id, 1)
        (version,) = at.fleet.world.versions_of(shop)
        at.packages.path(version.sha256).unlink()
    async with yard(tmp_path) as at:
        world = await started(at)
        assert world.refused.keys() == {"shop"}
        assert "cannot be read" in world.refused["shop"]
        assert world.versions_of(shop)[0].service.routes == version.service.routes
        assert not world.versions_of(blog)[0].refused
        # What is put right is activated again, under the same number.
        at.packages.put(b"one")
        await at.changes.activate(ALICE, shop, 1)
        assert at.fleet.world.refused == {}


@in_loop
async def test_a_canary_that_cannot_be_loaded_does_not_take_the_active_version_along(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        await at.changes.canary(
            ALICE, shop, 2, share=500, max_error_rate=0, max_limit_rate=0, min_requests=1
        )
        at.packages.path(at.fleet.world.versions_of(shop)[1].sha256).unlink()
    async with yard(tmp_path) as at:
        await started(at)
        assert at.served() == ["shop@1 active"]
        assert at.fleet.world.refused == {}


@in_loop
async def test_a_definition_that_breaks_a_new_ceiling_is_left_out(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        shop, blog = at.service("shop", "one"), at.service("blog", "two")
        at.catalogue.write_now(
            ALICE, lambda tx: versions.set_settings(tx, shop, 1, {"limits": {"cpu": "2s"}})
        )
        for service_id in (shop, blog):
            await at.changes.activate(ALICE, service_id, 1)
    async with yard(tmp_path) as at:
        at.loader.config = replace(at.loader.config, ceilings=replace(DEFAULT_CEILINGS, cpu=1.0))
        await started(at)
        assert at.served() == ["blog@1 active"]


@in_loop
async def test_a_start_whose_file_claims_what_is_deployed_is_refused(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        await at.changes.activate(ALICE, at.service("shop", "one"), 1)
        at.service("idle", "two")  # nobody serves it, and so the file may have its name
        check_start(at.catalogue, at.loader, [filed("idle", "idle.localhost")])
        for claiming in (filed("shop", "a.test"), filed("other", "shop.localhost")):
            with pytest.raises(ConfigError, match="shop"):
                check_start(at.catalogue, at.loader, [claiming])


@in_loop
async def test_what_is_deployed_while_a_reload_compiles_is_served_beside_it(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        shop, blog = at.service("shop", "one", "two"), at.service("blog", "three")
        await at.changes.activate(ALICE, shop, 1)
        await at.changes.activate(ALICE, blog, 1)
        before = at.fleet.world
        at.add(Version(filed("new", "new.test"), 1, "n" * 64, Path("/code")))
        built, at.fleet.world = at.fleet.world, before
        await at.changes.activate(ALICE, shop, 2)
        await at.changes.deactivate(ALICE, blog)
        at.fleet.world = rebased(built, before, at.fleet.world)
        assert sorted(at.served()) == ["new@1 active", "shop@2 active"]
        assert at.fleet.world.artifacts.keys() == {at.fleet.world.versions_of(shop)[0].sha256}

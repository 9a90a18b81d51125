"""What guests are given of the process, and what a new snapshot has made again of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from edge import platform as platform_module
from edge.clock import SystemClock
from edge.model.acl import AclEntry
from edge.model.service import Role, Service, Version
from edge.platform import Platform
from edge.settings import Geolocation, Settings
from edge.stores.acl import Acl
from edge.stores.kv import KvLimits
from edge.stores.kv_memory import MemoryKvEngine
from edge.stores.rates_memory import MemoryRates
from edge.telemetry.layout import OTHER_BLOCK
from edge.telemetry.shared import SharedCells

SETTINGS = Settings()


def service(name: str, prefix: str = "192.0.2.0/24") -> Service:
    return Service(name, Path(name), (), acls={"blocked": (AclEntry(ip_network(prefix), "BLOCK"),)})


def run(act: Callable[[Platform], Awaitable[None]]) -> None:
    async def main() -> None:
        made = Platform(
            SETTINGS,
            kv=MemoryKvEngine(KvLimits(1000, 10_000), SystemClock()),
            rates=MemoryRates(1 << 20, time.monotonic),
            own_addresses=[],
            max_connections=1,
            on_failure=lambda box, backend, failure: None,
        )
        await made.start()
        try:
            await act(made)
        finally:
            await made.aclose()

    asyncio.run(main())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of entries of each access control list, as it is built."""
    found: list[int] = []

    def counted(entries: tuple[AclEntry, ...]) -> Acl:
        found.append(len(entries))
        return Acl(entries)

    monkeypatch.setattr(platform_module, "Acl", counted)
    return found


def test_lists_are_built_for_changed_services_alone(built: list[int]) -> None:
    shop, other = service("shop"), service("other")

    async def act(platform: Platform) -> None:
        await platform.prepare(SETTINGS, [shop, other])
        assert len(built) == 2
        platform.commit(SETTINGS, [shop, other])
        await platform.prepare(SETTINGS, [shop, service("other", "198.51.100.0/24")])
        assert len(built) == 3

    run(act)


def test_two_versions_of_a_service_have_each_its_own_lists() -> None:
    active, canary = service("shop"), service("shop", "198.51.100.0/24")
    cells = SharedCells.create(1)
    block = cells.worker(0).block(OTHER_BLOCK)

    async def act(platform: Platform) -> None:
        await platform.prepare(SETTINGS, [active, canary])
        address = bytes([198, 51, 100, 7])
        first = platform.equip(Version(active, 1), block)
        second = platform.equip(Version(canary, 2, role=Role.CANARY), block)
        assert first.acls["blocked"].lookup(address) is None
        assert second.acls["blocked"].lookup(address) is not None

    run(act)


def test_it_says_whether_what_services_were_given_is_still_right(tmp_path: Path) -> None:
    moved = replace(SETTINGS, geolocation=Geolocation(addresses={"192.0.2.1": '{"city": "Ulm"}'}))

    async def act(platform: Platform) -> None:
        assert not await platform.prepare(SETTINGS, [])
        platform.commit(SETTINGS, [])
        assert await platform.prepare(replace(SETTINGS), [])
        assert not await platform.prepare(moved, []), "and then it is aborted"
        assert not await platform.prepare(moved, []), "nobody was given that yet"
        platform.commit(moved, [])
        assert await platform.prepare(moved, [])

    run(act)

"""Values of KV stores go when the stores have gone, however that came about."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from edge.catalogue import erasures, services, stores
from edge.catalogue.database import Catalogue
from edge.catalogue.records import StoreKind
from edge.rollout.eraser import Eraser
from edge.stores.kv import KvCause, KvFailed, KvLimits, KvOperation, identity_of, insertion_of
from edge.stores.kv_memory import MemoryKvEngine
from tests.support.clock import SteppedClock
from tests.support.loop import in_loop
from tests.support.rollout import ALICE, Yard, yard


class Engine(MemoryKvEngine):
    """One that can be out of order, and says when something is erased."""

    def __init__(self) -> None:
        super().__init__(KvLimits(1000, 10_000), SteppedClock())
        self.broken = False
        self.erased: asyncio.Queue[str] = asyncio.Queue()

    def erase(self, identity: str) -> KvOperation[bool]:
        if self.broken:
            return KvOperation[bool]().fail(KvFailed(KvCause.INTERNAL_ERROR, "disk full"))
        self.erased.put_nowait(identity)
        return super().erase(identity)

    def fill(self, store: str) -> None:
        self.open(identity_of("", "", store)).insert("key", insertion_of(b"value")).result()

    def held(self, store: str) -> int:
        return self.usage(identity_of("", "", store)).result()


def make_store(at: Yard, name: str, owner: str = "") -> str:
    return at.catalogue.write_now(
        ALICE, lambda tx: stores.create(tx, StoreKind.KV, name, owner=owner).id
    )


def pending(catalogue: Catalogue) -> list[str]:
    return catalogue.read_now(lambda tx: erasures.pending(tx, 100))


@in_loop
async def test_a_store_that_went_with_its_service_is_erased(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        engine, owner = Engine(), at.service("shop")
        store, other = make_store(at, "carts", owner), make_store(at, "others")
        engine.fill(store)
        engine.fill(other)
        at.catalogue.write_now(ALICE, lambda tx: services.delete(tx, owner))
        assert pending(at.catalogue) == [store]
        await Eraser(at.catalogue, engine).erase()
        assert (engine.held(store), pending(at.catalogue)) == (0, [])
        assert engine.held(other) > 0


@in_loop
async def test_what_a_killed_server_left_is_erased_at_the_next_start(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        engine, store = Engine(), make_store(at, "carts")
        at.catalogue.write_now(ALICE, lambda tx: stores.delete(tx, store))
        running = asyncio.create_task(Eraser(at.catalogue, engine).run())
        assert await engine.erased.get() == identity_of("", "", store)
        running.cancel()


@in_loop
async def test_what_cannot_be_erased_is_remembered(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        engine, store = Engine(), make_store(at, "carts")
        engine.fill(store)
        engine.broken = True
        eraser = Eraser(at.catalogue, engine)
        at.catalogue.write_now(ALICE, lambda tx: stores.delete(tx, store))
        with pytest.raises(KvFailed):
            await eraser.erase()
        assert pending(at.catalogue) == [store]
        engine.broken = False
        await eraser.erase()
        assert (engine.held(store), pending(at.catalogue)) == (0, [])


@in_loop
async def test_more_than_a_round_takes_are_all_erased(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        engine = Engine()
        gone = [make_store(at, f"s{number}") for number in range(150)]
        for store in gone:
            at.catalogue.write_now(ALICE, partial(stores.delete, store=store))
        await Eraser(at.catalogue, engine).erase()
        assert engine.erased.qsize() == len(gone)
        assert pending(at.catalogue) == []

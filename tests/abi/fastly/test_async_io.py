"""`select` and `is_ready`: found at once, woken by events, ended by a timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge.abi.fastly.ready import RequestPromise, Waitable
from edge.abi.fastly.status import Status
from edge.abi.further import Further
from edge.http.body import HIGH_WATER, Body
from tests.abi.fastly.test_http_body import live_request, streaming
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.loop import in_loop, turns


def listed(guest: FastlyGuest, *handles: int) -> tuple[int, int]:
    """A `list<handle>` in guest memory: its length counts elements."""
    return guest.put(b"".join(handle.to_bytes(4, "little") for handle in handles))[0], len(handles)


def live_items(guest: FastlyGuest, count: int) -> tuple[list[int], list[Body]]:
    """Bodies that somebody else fills."""
    bodies = [Body(live=True) for _ in range(count)]
    return [guest.box.items.insert(body) for body in bodies], bodies


def test_the_lowest_ready_item_is_found_without_waiting() -> None:
    guest, waiting, _ = live_request()
    ready = guest.body(b"x")
    also = guest.body()
    raw = listed(guest, waiting, ready, also)
    assert guest.begin("async_io.select", *raw, 0, 64) == Status.OK
    assert guest.u32_at(64) == 1
    assert guest.read(ready) == b"x", "items are not consumed"


@in_loop
async def test_a_change_wakes_the_guest() -> None:
    guest = FastlyGuest()
    handles, bodies = live_items(guest, 3)
    assert guest.begin("async_io.select", *listed(guest, *handles), 0, 64) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    assert not waiting.done()
    bodies[2].finish()
    assert await waiting == Status.OK
    assert guest.u32_at(64) == 2
    assert not any(body._watchers for body in bodies)


@in_loop
async def test_a_change_that_makes_nothing_ready_does_not_end_the_wait() -> None:
    guest = FastlyGuest()
    body, sent = streaming(guest)
    sent.write(b"x" * (HIGH_WATER + 10))
    assert guest.get("async_io.is_ready", body) == 0
    assert guest.begin("async_io.select", *listed(guest, body), 0, 64) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    sent.write(b"y" * 5000)  # a change, but no room
    await turns()
    assert not waiting.done()
    sent.read(1 << 20)
    assert await waiting == Status.OK
    assert guest.u32_at(64) == 0


@in_loop
async def test_a_timeout_answers_with_its_own_number() -> None:
    guest = FastlyGuest()
    handles, bodies = live_items(guest, 1)
    assert await guest.ado("async_io.select", *listed(guest, *handles), 1, 64) == Status.OK
    assert guest.u32_at(64) == 0xFFFF_FFFF
    assert not bodies[0]._watchers


@in_loop
async def test_an_empty_list_with_a_timeout_sleeps_and_without_one_is_refused() -> None:
    guest = FastlyGuest()
    assert await guest.ado("async_io.select", 0, 0, 1, 64) == Status.OK
    assert guest.u32_at(64) == 0xFFFF_FFFF
    assert guest.do("async_io.select", 0, 0, 0, 64) == Status.INVAL


@in_loop
async def test_a_guest_that_is_killed_while_it_selects_leaves_nothing_behind() -> None:
    guest = FastlyGuest()
    handles, bodies = live_items(guest, 2)
    assert guest.begin("async_io.select", *listed(guest, *handles), 60_000, 64) is None
    guest.cancel()
    assert not any(body._watchers for body in bodies)
    pending = [timer for timer in asyncio.get_running_loop()._scheduled if not timer._cancelled]  # type: ignore[attr-defined]
    assert not pending


@in_loop
async def test_one_body_named_ten_thousand_times_is_watched_once() -> None:
    guest = FastlyGuest()
    handles, bodies = live_items(guest, 1)
    raw = listed(guest, *(handles * 10_000))
    assert guest.begin("async_io.select", *raw, 0, 64) is None
    assert bodies[0]._watchers is not None
    assert len(bodies[0]._watchers) == 1
    bodies[0].finish()
    assert await guest.finish() == Status.OK
    assert guest.u32_at(64) == 0


def test_lies() -> None:
    guest = FastlyGuest()
    ready = guest.body()
    assert guest.do("async_io.select", *listed(guest, ready, INVALID), 0, 64) == Status.BADF
    assert guest.do("async_io.select", guest.size - 4, 2, 0, 64) == Status.INVAL
    assert guest.do("async_io.select", 0, 10_001, 0, 64) == Status.INVAL
    assert guest.do("async_io.is_ready", INVALID, 64) == Status.BADF


@pytest.mark.parametrize("item", [Body(), RequestPromise(Further(None))])
def test_is_ready(item: object) -> None:
    guest = FastlyGuest()
    assert guest.get("async_io.is_ready", guest.box.items.insert(item)) == 1
    assert guest.get("async_io.is_ready", guest.box.items.insert(Body(live=True))) == 0


class Counted(Waitable):
    """Something to wait for that counts how often it is looked at."""

    looks = 0

    def __init__(self) -> None:
        self.is_there = False
        self.watchers: list[Callable[[], None]] = []

    @property
    def is_ready(self) -> bool:
        Counted.looks += 1
        return self.is_there

    def watch(self, callback: Callable[[], None]) -> None:
        self.watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if callback in self.watchers:
            self.watchers.remove(callback)

    def change(self) -> None:
        watchers, self.watchers = self.watchers, []
        for callback in watchers:
            callback()


@in_loop
async def test_a_change_costs_a_look_at_what_changed_and_not_at_all_of_a_thousand() -> None:
    guest = FastlyGuest()
    items = [Counted() for _ in range(1000)]
    handles = [guest.box.insert(item) for item in items]
    Counted.looks = 0
    assert guest.begin("async_io.select", *listed(guest, *handles), 0, 64) is None
    waiting = asyncio.ensure_future(guest.finish())
    for _ in range(100):
        items[500].change()  # nothing that makes it ready
        await turns(3)
    assert not waiting.done()
    assert Counted.looks <= 1000 + 100
    items[900].is_there = items[700].is_there = True
    items[900].change()
    items[700].change()
    assert await waiting == Status.OK
    assert guest.u32_at(64) == 700, "the lowest index of what is ready"
    assert Counted.looks <= 1000 + 102
    assert not any(item.watchers for item in items)

"""poll_oneoff: sleeping and waiting, on clocks that tests move by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any

import pytest

from edge.abi.wasi.errno import Errno
from edge.abi.wasi.poll import MAX_SUBSCRIPTIONS
from edge.http.body import HIGH_WATER, Body
from tests.support.wasi_box import WasiGuest, in_loop

EVENT = Struct("<QHB5xQH6x")
MS = 1_000_000
FOREVER = 0xFFFF_FFFF_FFFF_FFFF


def clock(userdata: int, timeout: int, *, clock: int = 1, flags: int = 0) -> bytes:
    return Struct("<QB7xI4xQQH6x").pack(userdata, 0, clock, timeout, 0, flags)


def stream(userdata: int, fd: int, *, kind: int) -> bytes:
    return Struct("<QB7xI28x").pack(userdata, kind, fd)


class Timer:
    """Stands in for the loop's timers: a test fires them."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0
        asyncio.get_running_loop().call_later = self.call_later  # type: ignore[assignment, method-assign]

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.set.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def fire(self) -> None:
        self.set[-1][1]()


class Poll:
    """One call of poll_oneoff by a guest."""

    def __init__(self, guest: WasiGuest, *subscriptions: bytes) -> None:
        self.guest = guest
        self.source, _ = guest.put(b"".join(subscriptions))
        self.count = len(subscriptions)
        self.events_at = guest.room(32 * self.count)

    def start(self) -> int | None:
        return self.guest.start(
            "poll_oneoff", self.source, self.events_at, self.count, self.guest.out
        )

    def events(self) -> list[tuple[Any, ...]]:
        count = self.guest.u32_at(self.guest.out)
        return list(EVENT.iter_unpack(self.guest.bytes_at(self.events_at, 32 * count)))


def poll_now(guest: WasiGuest, *subscriptions: bytes) -> list[tuple[Any, ...]]:
    poll = Poll(guest, *subscriptions)
    assert poll.start() == 0, "nothing to wait for"
    return poll.events()


@in_loop
async def test_a_sleep_suspends_until_its_time_even_if_the_timer_is_early() -> None:
    timer, guest = Timer(), WasiGuest()
    poll = Poll(guest, clock(77, 5 * MS))
    assert poll.start() is None
    assert timer.set[-1][0] == 0.005
    waiting = asyncio.ensure_future(guest.finish())
    await asyncio.sleep(0)
    guest.clocks.advance(4 * MS + 1)
    timer.fire()
    for _ in range(4):  # turns of the loop: the guest looks at the clock and waits again
        await asyncio.sleep(0)
    assert len(timer.set) == 2
    assert timer.set[-1][0] == 0.001, "the rest, rounded up to a millisecond"
    guest.clocks.advance(1 * MS)
    timer.fire()
    assert await waiting == 0
    assert poll.events() == [(77, 0, 0, 0, 0)]
    assert timer.cancelled == 2


@in_loop
async def test_the_first_of_several_sleeps_wakes_the_guest_alone() -> None:
    timer, guest = Timer(), WasiGuest()
    poll = Poll(guest, clock(1, FOREVER), clock(2, 2 * MS), clock(3, 9 * MS))
    assert poll.start() is None
    assert timer.set[-1][0] == 0.002
    guest.clocks.advance(2 * MS)
    timer.fire()
    assert await guest.finish() == 0
    assert poll.events() == [(2, 0, 0, 0, 0)]


@in_loop
async def test_a_sleep_for_ever_uses_a_bounded_timer_and_can_be_killed() -> None:
    timer, guest = Timer(), WasiGuest()
    assert Poll(guest, clock(1, FOREVER)).start() is None
    assert timer.set[-1][0] == 3600
    guest.cancel()
    assert timer.cancelled == 1


@pytest.mark.parametrize(
    ("which", "timeout"),
    [(1, 1_000_000_000), (1, 0), (0, 1_700_000_000_123_456_000), (0, 5)],
)
def test_an_instant_that_has_passed_is_an_event_at_once(which: int, timeout: int) -> None:
    assert poll_now(WasiGuest(), clock(9, timeout, clock=which, flags=1)) == [(9, 0, 0, 0, 0)]


@pytest.mark.parametrize(("which", "start"), [(1, 1_000_000_000), (0, 1_700_000_000_123_456_789)])
@in_loop
async def test_an_instant_ahead_is_waited_for(which: int, start: int) -> None:
    timer, guest = Timer(), WasiGuest()
    poll = Poll(guest, clock(9, start + 7 * MS, clock=which, flags=1))
    assert poll.start() is None
    assert timer.set[-1][0] == 0.007
    guest.cancel()


@in_loop
async def test_a_guest_that_wakes_sees_its_deadline_behind_on_a_coarse_clock() -> None:
    timer, guest = Timer(), WasiGuest(resolution_ns=10 * MS)
    deadline = 1_000_000_000 + 12 * MS
    poll = Poll(guest, clock(1, deadline, flags=1))
    assert poll.start() is None
    assert timer.set[-1][0] == 0.020
    guest.clocks.advance(20 * MS)
    timer.fire()
    assert await guest.finish() == 0
    assert guest.call("clock_time_get", 1, 0, guest.out) == 0
    assert guest.u64_at(guest.out) >= deadline


@pytest.mark.parametrize(
    ("subscription", "event"),
    [
        (clock(5, 0, clock=2), (5, Errno.NOTSUP, 0, 0, 0)),
        (clock(5, 0, clock=9), (5, Errno.INVAL, 0, 0, 0)),
        (clock(5, 0, flags=2), (5, Errno.INVAL, 0, 0, 0)),
        (stream(5, 3, kind=1), (5, Errno.BADF, 1, 0, 0)),
        (stream(5, 0, kind=1), (5, 0, 1, 0, 0)),
        (stream(5, 1, kind=2), (5, 0, 2, 0, 0)),
        (stream(5, 2, kind=2), (5, 0, 2, 0, 0)),
    ],
)
def test_what_is_ready_or_wrong_is_told_beside_a_sleep(
    subscription: bytes, event: tuple[int, ...]
) -> None:
    assert poll_now(WasiGuest(), clock(1, FOREVER), subscription) == [event]


@pytest.mark.parametrize("count", [0, MAX_SUBSCRIPTIONS + 1, 0xFFFF_FFFF])
def test_too_few_and_too_many_subscriptions_are_refused(count: int) -> None:
    guest = WasiGuest()
    assert guest.call("poll_oneoff", 64, 64, count, guest.out) == Errno.INVAL


def test_an_unknown_kind_is_refused() -> None:
    guest = WasiGuest()
    assert Poll(guest, stream(1, 0, kind=3)).start() == Errno.INVAL


def test_arrays_outside_memory_are_faults() -> None:
    guest = WasiGuest()
    good, _ = guest.put(clock(1, 0))
    for source, events, out in [
        (guest.size - 47, good, guest.out),
        (good, guest.size - 31, guest.out),
        (good, good, guest.size - 3),
    ]:
        assert guest.call("poll_oneoff", source, events, 1, out) == Errno.FAULT


@in_loop
async def test_a_cgi_program_is_woken_by_its_request_body() -> None:
    guest = cgi_guest()
    poll = Poll(guest, stream(1, 0, kind=1), clock(2, FOREVER))
    assert poll.start() is None
    guest.client.body.write(b"hello")
    assert await guest.finish() == 0
    assert poll.events() == [(1, 0, 1, 5, 0)]


@in_loop
async def test_a_cgi_program_is_woken_when_its_client_reads_on() -> None:
    guest = cgi_guest()
    guest.write(1, b"Status: 200\n\n")
    guest.write(1, b"x" * HIGH_WATER)
    poll = Poll(guest, *[stream(1, 1, kind=2)] * MAX_SUBSCRIPTIONS)
    assert poll.start() is None
    assert len(guest.client.read()) == HIGH_WATER
    assert await guest.finish() == 0
    assert len(poll.events()) == MAX_SUBSCRIPTIONS


@in_loop
async def test_a_guest_killed_while_it_polls_leaves_no_watchers() -> None:
    guest = cgi_guest()
    assert Poll(guest, stream(1, 0, kind=1)).start() is None
    guest.cancel()
    assert not guest.client.body._watchers


def cgi_guest() -> WasiGuest:
    return WasiGuest(cgi=True, client_body=Body(live=True))

"""`fastly_erl`: rate counters and penalty boxes as guests call them."""

from __future__ import annotations

import pytest

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.stores.rates_memory import MemoryRates
from tests.support.clock import SteppedClock
from tests.support.fastly_guest import FastlyGuest

MIB = 1024 * 1024


class Limiter(FastlyGuest):
    """A guest with a counter `rc`, a box `pb` and an entry `ip`."""

    def __init__(self, rates: MemoryRates | None = None) -> None:
        self.clock = SteppedClock()
        rates = rates or MemoryRates(MIB, self.clock.monotonic)
        super().__init__(capabilities=Capabilities(rates=rates))
        self.rc, self.pb, self.ip = self.put(b"rc"), self.put(b"pb"), self.put(b"ip")

    def check(self, *, delta: int = 1, window: int = 10, limit: int = 2, ttl: int = 60) -> int:
        raw = (*self.rc, *self.ip, delta, window, limit, *self.pb, ttl)
        return self.get("erl.check_rate", *raw)


@pytest.fixture
def guest() -> Limiter:
    return Limiter()


def test_check_rate_blocks_above_the_limit_and_until_the_penalty_ends(guest: Limiter) -> None:
    assert [guest.check() for _ in range(21)] == [0] * 20 + [1]
    assert guest.get("erl.penaltybox_has", *guest.pb, *guest.ip) == 1
    guest.clock.advance(59)
    assert guest.check() == 1
    guest.clock.advance(1)
    assert guest.check() == 0
    assert guest.get("erl.penaltybox_has", *guest.pb, *guest.ip) == 0


def test_increments_are_seen_as_rates_and_counts(guest: Limiter) -> None:
    assert guest.do("erl.ratecounter_increment", *guest.rc, *guest.ip, 25) == Status.OK
    guest.clock.advance(5)
    assert guest.do("erl.ratecounter_increment", *guest.rc, *guest.ip, 6) == Status.OK
    rates = {
        w: guest.get("erl.ratecounter_lookup_rate", *guest.rc, *guest.ip, w) for w in (1, 10, 60)
    }
    assert rates == {1: 6, 10: 4, 60: 1}
    guest.clock.advance(10)
    counts = [
        guest.get("erl.ratecounter_lookup_count", *guest.rc, *guest.ip, d)
        for d in (10, 20, 30, 40, 50, 60)
    ]
    assert counts == [6, 31, 31, 31, 31, 31]


def test_what_was_never_counted_is_zero_and_not_absent(guest: Limiter) -> None:
    other = guest.put(b"never")
    assert guest.get("erl.ratecounter_lookup_rate", *guest.rc, *other, 1) == 0
    assert guest.get("erl.ratecounter_lookup_count", *guest.rc, *other, 10) == 0
    assert guest.get("erl.penaltybox_has", *guest.pb, *other) == 0


def test_an_entry_can_be_put_into_a_box(guest: Limiter) -> None:
    assert guest.do("erl.penaltybox_add", *guest.pb, *guest.ip, 3600) == Status.OK
    assert guest.check() == 1
    guest.clock.advance(3600)
    assert guest.check() == 0


@pytest.mark.parametrize("number", [0, 2, 59, 61, 3601, 0xFFFF_FFFF])
def test_windows_durations_and_penalties_out_of_range_are_invalid(
    guest: Limiter, number: int
) -> None:
    out = guest.room(4)
    entry = (*guest.rc, *guest.ip)
    assert guest.do("erl.ratecounter_lookup_rate", *entry, number, out) == Status.INVAL
    assert guest.do("erl.ratecounter_lookup_count", *entry, number, out) == Status.INVAL
    raw = (*entry, 1, number, 2, *guest.pb, 60, out)
    assert guest.do("erl.check_rate", *raw) == Status.INVAL
    if number == 0 or number > 3600:
        assert guest.do("erl.penaltybox_add", *guest.pb, *guest.ip, number) == Status.INVAL
        raw = (*entry, 1, 10, 2, *guest.pb, number, out)
        assert guest.do("erl.check_rate", *raw) == Status.INVAL
    assert guest.get("erl.ratecounter_lookup_count", *entry, 60) == 0


def test_texts_are_utf8_inside_memory_and_at_most_64_kib(guest: Limiter) -> None:
    for bad in (guest.put(b"\xff"), (guest.size - 1, 2), (0xFFFF_FFF0, 8), (16, 65_536)):
        out = guest.room(4)
        for raw in ((*bad, *guest.ip), (*guest.rc, *bad)):
            assert guest.do("erl.ratecounter_increment", *raw, 1) == Status.INVAL
            assert guest.do("erl.ratecounter_lookup_rate", *raw, 1, out) == Status.INVAL
            assert guest.do("erl.ratecounter_lookup_count", *raw, 10, out) == Status.INVAL
            assert guest.do("erl.penaltybox_add", *raw, 60) == Status.INVAL
            assert guest.do("erl.penaltybox_has", *raw, out) == Status.INVAL
            assert guest.do("erl.check_rate", *raw, 1, 1, 1, *guest.pb, 60, out) == Status.INVAL
        boxed = (*guest.rc, *guest.ip, 1, 1, 1, *bad, 60, out)
        assert guest.do("erl.check_rate", *boxed) == Status.INVAL
    assert guest.get("erl.ratecounter_lookup_count", *guest.rc, *guest.ip, 60) == 0


def test_nothing_is_counted_when_the_answer_has_nowhere_to_go(guest: Limiter) -> None:
    raw = (*guest.rc, *guest.ip, 1, 1, 1, *guest.pb, 60, guest.size - 3)
    assert guest.do("erl.check_rate", *raw) == Status.INVAL
    assert guest.get("erl.ratecounter_lookup_count", *guest.rc, *guest.ip, 60) == 0


def test_counts_beyond_32_bits_stop_there(guest: Limiter) -> None:
    for _ in range(3):
        guest.do("erl.ratecounter_increment", *guest.rc, *guest.ip, 0xFFFF_FFFF)
        guest.clock.advance(1)
    entry = (*guest.rc, *guest.ip)
    assert guest.get("erl.ratecounter_lookup_count", *entry, 60) == 0xFFFF_FFFF
    assert guest.get("erl.ratecounter_lookup_rate", *entry, 60) == 3 * 0xFFFF_FFFF // 60 + 1


def test_without_counters_it_is_unsupported() -> None:
    guest = FastlyGuest()
    name, out = guest.put(b"x"), guest.room(4)
    assert guest.do("erl.penaltybox_has", *name, *name, out) == Status.UNSUPPORTED

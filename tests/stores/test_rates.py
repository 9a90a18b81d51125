"""Rate counters and penalty boxes: every engine keeps the same promises."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import InvalidArgument
from edge.stores.rates import COUNT_WINDOWS, MAX_PENALTY, RATE_WINDOWS, Rates
from edge.stores.rates_file import prepare
from edge.stores.rates_lmdb import LmdbRates
from edge.stores.rates_memory import MemoryRates
from tests.support.clock import SteppedClock

MIB = 1024 * 1024


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture(params=["memory", "lmdb"])
def rates(request: pytest.FixtureRequest, clock: SteppedClock, tmp_path: Path) -> Iterator[Rates]:
    if request.param == "memory":
        yield MemoryRates(MIB, clock.monotonic)
        return
    engine = LmdbRates(prepare(tmp_path / "rates", MIB), MIB, clock.monotonic)
    engine.start()
    yield engine
    engine.close()


def check(rates: Rates, entry: str = "ip", *, limit: int, delta: int = 1, window: int = 10) -> bool:
    return rates.check(
        "shop", "rc", entry, delta=delta, window=window, limit=limit, box="pb", seconds=60
    )


def test_what_was_never_counted_is_zero(rates: Rates) -> None:
    assert rates.rate("shop", "rc", "ip", 1) == 0
    assert rates.count("shop", "rc", "ip", 60) == 0
    assert not rates.is_penalized("shop", "pb", "ip")


def test_no_window_is_wrong_by_more_than_the_second_it_begins_in(
    rates: Rates, clock: SteppedClock
) -> None:
    chance = random.Random(4)
    log: list[tuple[float, int]] = []
    seen_cut = False
    for _ in range(1500):
        clock.advance(
            chance.choice((0.0, 0.01, 0.3, 0.9, 1.0, 1.7, 12.0 if len(log) % 9 else 65.0))
        )
        if chance.random() < 0.7:
            delta = chance.randrange(0, 40)
            rates.increment("shop", "rc", "ip", delta)
            log.append((clock.monotonic(), delta))
        now = clock.monotonic()
        for window in {*RATE_WINDOWS, *COUNT_WINDOWS}:
            start = now - window
            exact = sum(delta for at, delta in log if start < at <= now)
            cut = sum(delta for at, delta in log if int(at) == int(start))
            if window in RATE_WINDOWS:
                found = rates.rate("shop", "rc", "ip", window)
                assert -(-(exact - cut) // window) <= found <= -(-(exact + cut) // window)
            else:
                found = rates.count("shop", "rc", "ip", window)
                assert abs(found - exact) <= cut
                seen_cut |= bool(cut) and found != exact
    assert seen_cut


def test_a_window_that_begins_with_a_whole_second_is_exact(
    rates: Rates, clock: SteppedClock
) -> None:
    rates.increment("shop", "rc", "ip", 7)
    clock.advance(9.75)
    rates.increment("shop", "rc", "ip", 5)
    assert rates.count("shop", "rc", "ip", 10) == 12
    clock.advance(0.25)
    assert rates.count("shop", "rc", "ip", 10) == 12  # it began this very instant ten seconds ago
    clock.advance(0.5)
    assert rates.count("shop", "rc", "ip", 10) == 5 + 3  # half of the seven, rounded down
    clock.advance(0.5)
    assert rates.count("shop", "rc", "ip", 10) == 5
    assert rates.count("shop", "rc", "ip", 20) == 12


def test_an_entry_is_blocked_once_its_rate_is_over_the_limit_and_not_before(
    rates: Rates, clock: SteppedClock
) -> None:
    assert [check(rates, limit=2) for _ in range(21)] == [False] * 20 + [True]
    assert rates.rate("shop", "rc", "ip", 10) == 3  # 21 in 10 s, rounded up
    assert rates.is_penalized("shop", "pb", "ip")
    clock.advance(30)
    assert rates.count("shop", "rc", "ip", 10) == 0
    assert check(rates, limit=2), "the penalty lasts longer than the rate"
    clock.advance(29.9)
    assert rates.is_penalized("shop", "pb", "ip")
    clock.advance(0.1)
    assert not rates.is_penalized("shop", "pb", "ip")
    assert not check(rates, limit=2)


def test_a_blocked_entry_is_still_counted(rates: Rates) -> None:
    rates.penalize("shop", "pb", "ip", 60)
    assert check(rates, limit=100, delta=30)
    assert rates.count("shop", "rc", "ip", 10) == 30


def test_a_shorter_penalty_does_not_end_a_longer_one(rates: Rates, clock: SteppedClock) -> None:
    rates.penalize("shop", "pb", "ip", 100)
    rates.penalize("shop", "pb", "ip", 1)
    clock.advance(99)
    assert rates.is_penalized("shop", "pb", "ip")
    rates.penalize("shop", "pb", "ip", 5)
    clock.advance(4)
    assert rates.is_penalized("shop", "pb", "ip")


def test_counts_stop_at_the_top_instead_of_starting_again(rates: Rates) -> None:
    for _ in range(3):
        rates.increment("shop", "rc", "ip", 0xFFFF_FFFF)
    assert rates.count("shop", "rc", "ip", 10) == 0xFFFF_FFFF


def test_names_services_and_kinds_are_apart(rates: Rates) -> None:
    rates.increment("shop", "rc", "ip", 5)
    rates.penalize("shop", "rc", "ip", 60)
    for service, counter, entry in (
        ("blog", "rc", "ip"),
        ("shop", "other", "ip"),
        ("shop", "rc", "other"),
        ("shop", "r", "cip"),
        ("shop", "rci", "p"),
    ):
        assert rates.count(service, counter, entry, 10) == 0
        assert not rates.is_penalized(service, counter, entry)
    assert rates.count("shop", "rc", "ip", 10) == 5


def test_long_and_odd_texts_are_entries_like_others(rates: Rates) -> None:
    texts = ["", "\0", "ü", "x" * 65_535, "x" * 65_534 + "y"]
    for number, text in enumerate(texts, 1):
        rates.increment("shop", text, text, number)
    assert [rates.count("shop", text, text, 10) for text in texts] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("window", [0, 2, 9, 11, 61, 0xFFFF_FFFF])
def test_other_windows_are_refused(rates: Rates, window: int) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: rates.rate("shop", "rc", "ip", window),
        lambda: rates.count("shop", "rc", "ip", window),
        lambda: check(rates, limit=1, window=window),
    )
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()
    assert rates.count("shop", "rc", "ip", 10) == 0, "a refused call has counted"


@pytest.mark.parametrize("seconds", [0, MAX_PENALTY + 1, 0xFFFF_FFFF])
def test_other_penalties_are_refused(rates: Rates, seconds: int) -> None:
    with pytest.raises(InvalidArgument):
        rates.penalize("shop", "pb", "ip", seconds)
    with pytest.raises(InvalidArgument):
        rates.check("shop", "rc", "ip", delta=1, window=1, limit=0, box="pb", seconds=seconds)
    assert not rates.is_penalized("shop", "pb", "ip")


def test_when_it_is_full_what_was_idle_longest_goes(rates: Rates, clock: SteppedClock) -> None:
    capacity = rates.statistics().capacity
    for number in range(capacity):
        if number in (100, 200):
            clock.advance(1)
        rates.increment("shop", "rc", f"{number}", 1)
    rates.increment("shop", "rc", "0", 1)  # used again: no longer idle
    clock.advance(1)
    rates.increment("shop", "rc", "new", 1)
    found = rates.statistics()
    assert found.evicted > 0
    assert found.entries == capacity + 1 - found.evicted
    left = [number for number in range(capacity) if rates.count("shop", "rc", f"{number}", 60)]
    assert len(left) == capacity - found.evicted
    assert set(left) >= {0, *range(100, capacity)}, "one that was used later went first"
    assert rates.count("shop", "rc", "new", 60) == 1


def test_what_has_expired_goes_before_anything_else(rates: Rates, clock: SteppedClock) -> None:
    capacity = rates.statistics().capacity
    for number in range(20):
        rates.increment("blog", "rc", f"{number}", 1)
    clock.advance(61)
    for number in range(20, capacity + 20):
        rates.increment("shop", "rc", f"{number}", 1)
    found = rates.statistics()
    assert (found.expired, found.evicted) == (20, 0)
    assert found.entries == capacity


def test_a_service_that_fills_everything_pushes_out_its_own(rates: Rates) -> None:
    capacity = rates.statistics().capacity
    rates.increment("blog", "rc", "ip", 1)
    rates.penalize("blog", "pb", "ip", 60)
    for number in range(2 * capacity):
        rates.penalize("shop", "pb", f"{number}", MAX_PENALTY)
    assert rates.count("blog", "rc", "ip", 60) == 1
    assert rates.is_penalized("blog", "pb", "ip")
    assert rates.statistics().evicted >= capacity


def test_a_penalty_outlasts_counters_when_room_is_made(rates: Rates) -> None:
    capacity = rates.statistics().capacity
    rates.penalize("shop", "pb", "ip", 120)
    for number in range(2 * capacity):
        rates.increment("shop", "rc", f"{number}", 1)
    assert rates.is_penalized("shop", "pb", "ip")


def test_it_fills_to_the_last_entry_with_the_longest_there_are(
    rates: Rates, clock: SteppedClock
) -> None:
    capacity = rates.statistics().capacity
    names = [f"{number}" for number in range(capacity)]
    for _ in range(70):
        for name in names:
            rates.increment("shop", "rc", name, 1)
        clock.advance(1)
    assert rates.statistics().evicted == 0
    assert {rates.count("shop", "rc", name, 60) for name in names} == {60}
    for number in range(2 * capacity):  # and everything is replaced, as short entries that grow
        rates.increment("shop", "rc", f"again {number % capacity}", 1)
        clock.advance(0.001)
    assert rates.statistics().entries <= capacity


def test_many_services_are_each_looked_at(rates: Rates, clock: SteppedClock) -> None:
    capacity = rates.statistics().capacity
    for number in range(capacity):
        rates.increment(f"service {number % 300}", "rc", f"{number}", 1)
    for number in range(100):
        rates.increment("late", "rc", f"{number}", 1)
    assert rates.statistics().entries <= capacity
    assert rates.count("late", "rc", "99", 60) == 1
    clock.advance(120)
    rates.increment("later", "rc", "ip", 1)
    assert rates.statistics().expired + rates.statistics().evicted > 0

"""Back-off and breaker on a clock that is turned by hand."""

from __future__ import annotations

from edge.supervisor.breaker import (
    DEATHS,
    LAST_DELAY,
    MAX_SUSPECTS,
    QUARANTINE,
    SETTLED,
    WINDOW,
    Backoff,
    Breaker,
    VersionKey,
)
from tests.support.clock import SteppedClock

BAD = VersionKey("bad", 1)


def test_the_first_death_costs_no_delay_and_the_next_ones_double_up_to_the_last() -> None:
    backoff = Backoff()
    delays = [backoff.after(0.1) for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_DELAY, LAST_DELAY]


def test_a_worker_that_lived_is_replaced_at_once_again() -> None:
    backoff = Backoff()
    for _ in range(9):
        backoff.after(0.1)
    assert backoff.after(SETTLED) == 0.0
    assert backoff.after(0.1) == 0.1


def test_three_deaths_within_the_window_quarantine_a_version_once() -> None:
    breaker = Breaker(SteppedClock())
    assert [breaker.died(BAD) for _ in range(DEATHS + 1)] == [False, False, True, False]
    assert breaker.quarantined == {BAD}


def test_slow_deaths_and_deaths_of_others_do_not_add_up() -> None:
    clock = SteppedClock()
    breaker = Breaker(clock)
    for number in range(10):
        assert not breaker.died(BAD)
        assert not breaker.died(VersionKey("bad", number + 2))
        clock.advance(WINDOW / 2 + 1)


def test_a_quarantine_ends_by_itself_with_a_clean_record() -> None:
    clock = SteppedClock()
    breaker = Breaker(clock)
    for _ in range(DEATHS):
        breaker.died(BAD)
    clock.advance(QUARANTINE - 1)
    assert breaker.lift_expired() == set()
    clock.advance(1)
    assert breaker.lift_expired() == {BAD}
    assert not breaker.quarantined
    assert not breaker.died(BAD)


def test_a_reload_gives_everything_another_chance() -> None:
    breaker = Breaker(SteppedClock())
    for _ in range(DEATHS):
        breaker.died(BAD)
    breaker.reset()
    assert not breaker.quarantined
    assert [breaker.died(BAD) for _ in range(DEATHS)] == [False, False, True]


def test_suspects_are_bounded_and_the_oldest_is_forgotten() -> None:
    breaker = Breaker(SteppedClock())
    breaker.died(BAD)
    breaker.died(BAD)
    for number in range(MAX_SUSPECTS):
        breaker.died(VersionKey("other", number))
    assert not breaker.died(BAD)

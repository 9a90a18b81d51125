"""What counts against a canary, and when it is enough."""

from __future__ import annotations

import pytest

from edge.catalogue.records import Canary
from edge.outcome import Ending
from edge.rollout.verdict import Tally, breach, tally
from edge.telemetry import layout

CANARY = Canary(2, 500, 0.0, max_error_rate=0.1, max_limit_rate=0.05, min_requests=20)


def row(codes: dict[int, int] | None = None, endings: dict[Ending, int] | None = None) -> list[int]:
    """Counters of one version; `codes` by class of a GET."""
    cells = [0] * layout.PLAIN_CELLS
    for code, count in (codes or {}).items():
        cells[layout.REQUESTS + code] = count
    for ending, count in (endings or {}).items():
        cells[layout.OUTCOMES + layout.ending_index(ending)] = count
    return cells


def test_an_error_that_is_a_5xx_and_a_bad_ending_counts_once() -> None:
    found = tally(row({2: 90, 5: 10}, {Ending.OK: 90, Ending.TRAP: 10}))
    assert found == Tally(100, 10, 0)


def test_a_response_that_broke_off_after_its_head_is_an_error_though_it_said_200() -> None:
    assert tally(row({2: 100}, {Ending.OK: 97, Ending.INCOMPLETE: 3})) == Tally(100, 3, 0)


def test_an_error_page_of_the_program_itself_is_an_error() -> None:
    assert tally(row({2: 98, 5: 2}, {Ending.OK: 100})) == Tally(100, 2, 0)


@pytest.mark.parametrize("ending", [Ending.CPU_LIMIT, Ending.MEMORY_LIMIT, Ending.OUTPUT_LIMIT])
def test_a_limit_that_was_reached_is_an_error_and_a_limit(ending: Ending) -> None:
    assert tally(row({2: 9, 5: 1}, {Ending.OK: 9, ending: 1})) == Tally(10, 1, 1)


def test_what_clients_and_the_machine_did_does_not_count_against_it() -> None:
    found = tally(
        row(
            {0: 5, 2: 80, 4: 5, 5: 10},
            {Ending.OK: 80, Ending.CLIENT_GONE: 5, Ending.BODY_LIMIT: 5, Ending.OVERLOAD: 10},
        )
    )
    assert found == Tally(90, 0, 0)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (Tally(19, 19, 19), ""),  # too few to believe anything
        (Tally(20, 2, 1), ""),  # as much as is allowed
        (Tally(20, 3, 0), "3 of 20 requests ended in an error: 15 %, above 10 %"),
        (Tally(100, 6, 6), "6 of 100 requests reached a limit: 6 %, above 5 %"),
        (Tally(0, 0, 0), ""),
    ],
)
def test_a_bound_is_breached_above_it_and_with_enough_requests(done: Tally, said: str) -> None:
    assert breach(CANARY, done) == said


def test_what_was_counted_before_does_not_count_unless_the_series_began_anew() -> None:
    assert Tally(30, 9, 4).since(Tally(20, 9, 3)) == Tally(10, 0, 1)
    assert Tally(3, 1, 0).since(Tally(20, 9, 3)) == Tally(3, 1, 0)

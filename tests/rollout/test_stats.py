"""Numbers of services from the shared cells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge.outcome import Ending
from edge.rollout.stats import Stats, quantiles
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.layout import ENDING_OK, ending_index
from edge.telemetry.shared import SharedCells


@pytest.fixture
def cells() -> Iterator[SharedCells]:
    found = SharedCells.create(2, 8)
    yield found
    found.close()


def count(cells: SharedCells, block: int, *, slot: int = 0, ms: int = 1, status: int = 200) -> None:
    ending = ENDING_OK if status < 500 else ending_index(Ending.TRAP)
    worker = cells.worker(slot)
    worker.block(block, exact_codes=False).record(
        0, status, ending, ms * 1_000_000, 0, 500_000, 1000, 65536, 10, 20, 3, 0
    )


def test_versions_are_told_apart_and_services_add_up_over_workers_and_retired_versions(
    cells: SharedCells,
) -> None:
    directory = BlockDirectory(cells)
    stats = Stats(cells, directory)
    assert stats.of("shop") is None
    one, two = (directory.assign(Series("shop", number)) for number in "12")
    for slot in (0, 1):
        count(cells, one, slot=slot)
    count(cells, two, status=500)
    count(cells, directory.assign(Series("other", "1")))
    first, whole = stats.of("shop", 1), stats.of("shop")
    assert first is not None
    assert whole is not None
    assert (first.requests, first.by_code, first.by_outcome) == (2, {"2xx": 2}, {"ok": 2})
    assert (whole.requests, whole.by_code) == (3, {"2xx": 2, "5xx": 1})
    assert whole.by_outcome == {"ok": 2, "trap": 1}
    assert (whole.request_bytes, whole.response_bytes) == (30, 60)
    assert whole.cpu_seconds == pytest.approx(0.0015)
    for slot in (0, 1):
        cells.worker(slot).fold()
    directory.release(Series("shop", "1"))
    after = stats.of("shop")
    assert after is not None
    assert after.requests == 3
    assert stats.of("shop", 1) is None


def test_a_service_made_anew_under_a_name_begins_at_nothing(cells: SharedCells) -> None:
    directory = BlockDirectory(cells)
    stats = Stats(cells, directory)
    old = [Series("shop", number, "aa", "old") for number in "12"]
    for series in old:
        count(cells, directory.assign(series))
    cells.worker(0).fold()
    directory.release(old[0])
    new = directory.assign(Series("shop", "2", "aa", "new"))
    for version in (None, 2):
        found = stats.of("shop", version, owner="new")
        assert found is not None
        assert found.requests == 0
    count(cells, new)
    whole = stats.of("shop", owner="old")
    assert whole is not None
    assert whole.requests == 2
    cells.worker(0).fold()
    directory.release(old[1])
    assert stats.of("shop", owner="old") is None
    found = stats.of("shop", owner="new")
    assert found is not None
    assert found.requests == 1


def test_quantiles_lie_in_the_bucket_that_holds_them() -> None:
    cells = [0, 90, 0, 9, 1]  # 90 from 1 to 2, nine from 4 to 8, one from 8 to 16
    found = quantiles(cells, 1.0)
    assert found == {"p50": pytest.approx(1 + 50 / 90), "p90": 2.0, "p99": 8.0}
    assert quantiles([0, 0, 0], 1.0) == {}
    assert quantiles([4], 1.0)["p50"] == 0.5

"""Lines about bad endings: complete, and bounded."""

from __future__ import annotations

import logging

import pytest

from edge.dispatch.reports import LINES_PER_SECOND, Reports
from edge.model.backend import Backend, Origin
from edge.outcome import OK, Ending, Outcome
from edge.upstream.fetch import Cause, UpstreamFailed

CPU = Outcome(Ending.CPU_LIMIT, "used up", "50.3ms", "50ms", "services.a.limits.cpu")


def test_a_limit_is_reported_with_value_limit_and_setting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Reports(lambda: 1.0).ended("a", "1", "f" * 32, CPU)
    (record,) = caplog.records
    assert record.getMessage() == "request ended: cpu_limit"
    facts = vars(record)
    assert (facts["value"], facts["limit"], facts["setting"]) == (
        "50.3ms",
        "50ms",
        "services.a.limits.cpu",
    )


@pytest.mark.parametrize("ending", [Ending.CLIENT_GONE, Ending.NO_ROUTE, Ending.BAD_REQUEST])
def test_what_clients_cause_is_not_reported_line_by_line(
    caplog: pytest.LogCaptureFixture, ending: Ending
) -> None:
    reports = Reports(lambda: 1.0)
    reports.ended("a", "1", "", Outcome(ending))
    reports.ended("a", "1", "", OK)
    assert caplog.records == []


def test_a_flood_of_endings_is_a_few_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [1.0]
    reports = Reports(lambda: now[0])
    for _ in range(1000):
        reports.ended("a", "1", "", CPU)
    assert len(caplog.records) == LINES_PER_SECOND
    reports.ended("b", "1", "", CPU)
    assert len(caplog.records) == LINES_PER_SECOND + 1, "another tenant has a budget of its own"
    now[0] = 2.0
    reports.ended("a", "1", "", CPU)
    assert vars(caplog.records[-1])["left_out"] == 1000 - LINES_PER_SECOND


def test_a_limit_that_a_guest_lived_through_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    Reports(lambda: 1.0).refused("a", "1", "", "limits.handles", 3)
    assert vars(caplog.records[0])["setting"] == "services.a.limits.handles"


def test_a_limit_of_the_whole_server_is_named_as_its_setting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Reports(lambda: 1.0).refused("a", "1", "", "storage.kv_store_bytes", 1)
    assert vars(caplog.records[0])["setting"] == "storage.kv_store_bytes"


def test_names_that_guests_make_up_have_no_budgets_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports = Reports(lambda: 1.0)
    failure = UpstreamFailed(Cause.CONNECTION_REFUSED, "nobody listens")
    site = Origin(True, "site.example", 443)
    for number in range(100):  # as `fastly_shielding` names them, one for each pair of timeouts
        shield = Backend(f"shield x {number}/1.0", site, named_by_guest=True)
        reports.backend_failed("a", "1", "", shield, failure)
        guests = Backend(f"mine {number}", Origin(True, f"{number}.example", 443), dynamic=True)
        reports.backend_failed("a", "1", "", guests, failure)
    reports.backend_failed("a", "1", "", Backend("origin", site), failure)
    assert len(caplog.records) == LINES_PER_SECOND + 1
    assert len(reports._budgets) == 2

"""What a scraper reads: exact sums, valid text in both formats, bounded series, docs that agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)

from edge.outcome import Ending
from edge.telemetry import layout, metrics
from edge.telemetry.directory import Series
from edge.telemetry.layout import Gauge, Refusal, Rejection, SoftLimit, Total, WorkerState
from edge.telemetry.supervisor_counters import LabelledCounter
from tests.support.board import Board, key

SHOP_1 = Series("shop", "1", "aa")
SHOP_2 = Series("shop", "2", "bb")


def test_counts_are_summed_over_workers_and_versions() -> None:
    board = Board()
    board.count(0, SHOP_1)
    board.count(1, SHOP_1)
    board.count(1, SHOP_2)
    got = board.samples()
    assert got[key("edge_requests_total", service="shop", code="2xx", method="GET")] == 3
    outcome = key("edge_request_outcome_total", service="shop", version="1", outcome="ok")
    assert got[outcome] == 2
    assert got[key("edge_guest_cpu_seconds_total", service="shop")] == pytest.approx(30e-6)
    assert got[key("edge_hostcalls_total", service="shop")] == 21
    assert got[key("edge_request_body_bytes_total", service="shop")] == 9
    assert got[key("edge_response_body_bytes_total", service="shop")] == 33
    assert got[key("edge_service_info", service="shop", version="2", sha256="bb")] == 1
    assert got[key("edge_instantiate_seconds_count")] == 3
    assert got[key("edge_queue_wait_seconds_count", service="shop")] == 3
    assert got[key("edge_queue_wait_seconds_bucket", service="shop", le="5e-06")] == 3
    assert got[key("edge_service_series", state="used")] == 2
    assert got[key("edge_service_series", state="limit")] == 6


def test_histogram_buckets_start_at_five_microseconds_and_hold_their_values() -> None:
    board = Board()
    block = board.cells.worker(0).block(board.directory.assign(SHOP_1))
    for ns, memory in ((4_999, 65_536), (5_000, 65_537), (2**62, 128 << 20)):
        block.record(0, 200, 0, ns, 1, 1, 1, memory, 0, 0, 0, ns)
    got = board.samples()

    def at(name: str, le: str) -> float:
        return got[key(f"{name}_bucket", service="shop", le=le)]

    for name in ("edge_request_duration_seconds", "edge_queue_wait_seconds"):
        assert [at(name, le) for le in ("5e-06", "1e-05", "2e-05", "+Inf")] == [1, 2, 2, 3]
        assert got[key(f"{name}_count", service="shop")] == 3
    peak = "edge_guest_memory_peak_bytes"
    assert [at(peak, le) for le in ("65536.0", "131072.0", "67108864.0")] == [1, 2, 2]
    assert at(peak, "134217728.0") == 3


def test_every_class_and_method_has_its_label() -> None:
    board = Board()
    block = board.cells.worker(0).block(board.directory.assign(SHOP_1))
    for method, status in ((b"GET", 0), (b"BREW", 418), (b"get", 100), (b"PUT", 799)):
        block.record(layout.method_index(method), status, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    got = board.samples()
    for code, name in (("none", "GET"), ("4xx", "OTHER"), ("1xx", "OTHER"), ("5xx", "PUT")):
        assert got[key("edge_requests_total", service="shop", code=code, method=name)] == 1
    assert key("edge_responses_total", service="shop", code="418") not in got


def test_exact_codes_are_there_when_asked_for_and_survive_retirement() -> None:
    board = Board(exact_codes=True)
    board.count(0, SHOP_1, 418)
    board.count(0, SHOP_2, 418)
    board.directory.release(SHOP_1)
    assert board.samples()[key("edge_responses_total", service="shop", code="418")] == 2


def test_each_limit_is_counted_whether_it_ended_the_guest_or_not() -> None:
    board = Board()
    block = board.cells.worker(0).block(board.directory.assign(SHOP_1))
    for ending in Ending:
        block.record(0, 500, layout.ending_index(ending), 1, 0, 0, 0, 0, 0, 0, 0, 0)
    block.limit_hit(SoftLimit.SUBREQUESTS)
    got = board.samples()
    for ending in Ending:
        word = key("edge_request_outcome_total", service="shop", version="1", outcome=ending.value)
        assert got[word] == 1
    ended = {"cpu", "wall", "memory", "memory_pressure", "stack", "table", "output", "body"}
    for limit in (*ended, "subrequests"):
        assert got[key("edge_limit_hits_total", service="shop", limit=limit)] == 1


def test_a_service_keeps_its_counts_when_a_version_retires_and_loses_them_with_the_last() -> None:
    board = Board()
    requests = key("edge_requests_total", service="shop", code="2xx", method="GET")
    board.count(0, SHOP_1)
    board.count(1, SHOP_1)
    block = board.directory.assign(SHOP_1)
    board.count(0, SHOP_2)
    board.release(SHOP_1)
    got = board.samples()
    assert got[requests] == 3
    assert key("edge_request_outcome_total", service="shop", version="1", outcome="ok") not in got
    assert not any(board.cells.block_sum(block, exact_codes=True))

    shop_3 = Series("shop", "3")
    assert board.directory.assign(shop_3) == block  # used again, from zero
    board.count(0, shop_3)
    board.release(SHOP_2)
    assert board.samples()[requests] == 4
    board.release(shop_3)
    board.release(shop_3)  # twice does nothing
    assert requests not in board.samples()
    board.directory.assign(shop_3)
    assert requests not in board.samples()


def test_a_service_and_the_next_of_its_name_have_one_sample_while_the_first_leaves() -> None:
    board = Board()
    requests = key("edge_requests_total", service="shop", code="2xx", method="GET")
    outcome = key("edge_request_outcome_total", service="shop", version="1", outcome="ok")
    old, new = (Series("shop", "1", "aa", owner) for owner in ("old", "new"))
    for series in (old, new, new):
        board.count(0, series)
    got = board.samples()
    assert (got[requests], got[outcome]) == (3, 3)
    text, _ = board.exposition.render()
    assert text.count(b"edge_service_info{") == 1
    assert text.count(b"edge_request_outcome_total{") == 1
    board.release(old)
    got = board.samples()
    assert (got[requests], got[outcome]) == (2, 2)


def test_versions_beyond_the_bound_share_one_series() -> None:
    board = Board(blocks=4)
    many = [Series(f"s{n}", "1") for n in range(10)]
    for series in many:
        board.count(0, series)
    got = board.samples()
    assert got[key("edge_requests_total", service="_other", code="2xx", method="GET")] == 8
    assert got[key("edge_service_series_folded")] == 8
    assert board.directory.assign(many[9]) == layout.OTHER_BLOCK
    board.directory.release(many[0])
    assert board.directory.assign(many[9]) != layout.OTHER_BLOCK
    assert board.samples()[key("edge_service_series_folded")] == 7


def test_requests_without_a_service_are_counted_as_none() -> None:
    board = Board()
    block = board.cells.worker(1).block(layout.NO_SERVICE_BLOCK)
    assert not any("_none" in str(name) for name in board.samples())
    block.record(0, 404, layout.ending_index(Ending.NO_ROUTE), 9_000, 8_000, 0, 0, 0, 0, 99, 0, 0)
    got = board.samples()
    assert got[key("edge_requests_total", service="_none", code="4xx", method="GET")] == 1
    assert got[key("edge_guest_memory_peak_bytes_count", service="_none")] == 0


def test_workers_show_gauges_lag_heartbeat_and_process_numbers() -> None:
    board = Board()
    worker = board.cells.worker(1)
    worker.begin(71)
    worker.set(Gauge.STATE, WorkerState.READY)
    worker.set(Gauge.SLOTS, 64)
    worker.beat(3_000_000_000)
    worker.loop_lag(12_000)
    worker.loop_lag(-5)
    worker.add(Rejection.QUEUE_FULL, 4)
    worker.add(Refusal.CONNECTION_CAP)
    worker.add(Total.LOG_LINES_DROPPED, 6)
    worker.block(board.directory.assign(SHOP_1)).set_in_flight(3)
    got = board.samples()
    assert got[key("edge_sandbox_slots", worker="1")] == 64
    assert key("edge_sandbox_slots", worker="0") not in got
    assert got[key("edge_worker_ready", worker="1")] == 1
    assert got[key("edge_worker_ready", worker="0")] == 0
    assert got[key("edge_worker_heartbeat_age_seconds", worker="1")] == 2
    assert got[key("edge_loop_lag_seconds_count", worker="1")] == 2
    assert got[key("edge_worker_resident_memory_bytes", worker="1")] == 1071
    assert got[key("edge_worker_cpu_seconds_total", worker="1")] == 2.5
    assert got[key("edge_rejected_total", reason="queue_full")] == 4
    assert got[key("edge_connections_refused_total", reason="connection_cap")] == 1
    assert got[key("edge_log_lines_dropped_total", reason="full")] == 6
    assert got[key("edge_requests_in_flight", service="shop")] == 3
    assert got[key("process_resident_memory_bytes")] > 0


def test_the_supervisors_own_counts_are_there() -> None:
    board = Board()
    own = board.supervisor
    own.restarts.add("0", "killed")
    own.deploys.add("shop", "ok", count=2)
    own.quarantines.add("shop", "7")
    own.reload(ok=True, wall=1_700_000_000.5)
    own.reload(ok=False, wall=1_700_000_009.0)
    own.compile.observe(8_000_000_000)
    got = board.samples()
    assert got[key("edge_worker_restarts_total", worker="0", reason="killed")] == 1
    assert got[key("edge_deploys_total", service="shop", result="ok")] == 2
    assert got[key("edge_quarantines_total", service="shop", version="7")] == 1
    assert got[key("edge_config_reloads_total", result="failed")] == 1
    assert got[key("edge_config_last_reload_successful")] == 0
    assert got[key("edge_config_last_reload_success_timestamp_seconds")] == 1_700_000_000.5
    assert got[key("edge_compile_seconds_sum")] == 8
    assert got[key("edge_build_info", version="1.2", wasmtime="50", python="3.11")] == 1


def test_a_labelled_counter_folds_what_is_over_its_bound() -> None:
    counter = LabelledCounter(limit=2)
    for name in ("a", "b", "c", "d", "a"):
        counter.add(name, "ok")
    assert counter.values == {("a", "ok"): 2, ("b", "ok"): 1, ("_other", "_other"): 2}


def test_both_formats_parse_and_show_only_declared_metrics() -> None:
    board = Board()
    board.cells.worker(0).begin(71)
    board.count(0, Series('sh"op\n', "1"))
    declared = {metric.name.removesuffix("_total"): metric for metric in metrics.METRICS}
    body, content_type = board.exposition.render("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_open_metrics(body.decode()))  # type: ignore[no-untyped-call]
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    assert set(declared) - set(names) == {"edge_responses"}
    for family in families:
        if family.name.startswith("process_"):
            continue
        metric = declared[family.name]
        assert family.type == metric.kind.value
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_the_documentation_is_what_the_declarations_say() -> None:
    docs = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert docs.read_text() == metrics.reference()

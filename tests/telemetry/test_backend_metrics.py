"""Counters of what guests reach: backends by name, causes of failure, KV stores."""

from __future__ import annotations

from edge.telemetry.directory import Series
from edge.telemetry.layout import BACKEND_CAUSES, DYNAMIC_BACKENDS, KvOp, KvResult
from edge.telemetry.service_block import ServiceBlock
from edge.upstream.fetch import Cause
from tests.support.board import Board, key

SHOP_1 = Series("shop", "1", "aa")
SHOP_2 = Series("shop", "2", "bb")


def block_of(board: Board, series: Series, worker: int = 0) -> ServiceBlock:
    return board.cells.worker(worker).block(board.directory.assign(series))


def test_every_cause_of_failure_has_a_cell() -> None:
    assert tuple(cause.value for cause in Cause) == BACKEND_CAUSES


def test_answers_and_failures_are_counted_by_the_name_of_the_backend() -> None:
    board = Board()
    slots = board.directory.backend_slots("shop", ["origin", "api"])
    for worker in (0, 1):
        block = block_of(board, SHOP_1, worker)
        block.backend_answered(slots["api"], 204, 3_000_000)
        block.backend_failed(slots["origin"], "connection_refused")
        block.backend_answered(DYNAMIC_BACKENDS, 503, 1_000)
    got = board.samples()
    name = "edge_backend_requests_total"
    assert got[key(name, service="shop", backend="api", code="2xx")] == 2
    assert got[key(name, service="shop", backend="origin", code="failed")] == 2
    assert got[key(name, service="shop", backend="_dynamic", code="5xx")] == 2
    failures = key("edge_backend_failures_total", service="shop", cause="connection_refused")
    assert got[failures] == 2
    assert got[key("edge_backend_response_start_seconds_count", service="shop")] == 4


def test_a_backend_keeps_its_place_from_version_to_version() -> None:
    board = Board()
    first = board.directory.backend_slots("shop", ["b"])
    block_of(board, SHOP_1).backend_answered(first["b"], 200, 1)
    second = board.directory.backend_slots("shop", ["a", "b"])
    assert second["b"] == first["b"]
    block_of(board, SHOP_2).backend_answered(second["a"], 200, 1)
    board.release(SHOP_1)
    got = board.samples()
    for backend in ("a", "b"):
        labels = key("edge_backend_requests_total", service="shop", backend=backend, code="2xx")
        assert got[labels] == 1


def test_backends_beyond_the_bound_share_one_series() -> None:
    board = Board()
    slots = board.directory.backend_slots("shop", [f"b{n:03}" for n in range(100)])
    block = block_of(board, SHOP_1)
    for slot in slots.values():
        block.backend_answered(slot, 200, 1)
    got = board.samples()
    counted = [value for (name, _), value in got.items() if name == "edge_backend_requests_total"]
    assert len(counted) == 31
    other = key("edge_backend_requests_total", service="shop", backend="_other", code="2xx")
    assert got[other] == 70


def test_operations_on_kv_stores_are_counted_by_result() -> None:
    board = Board()
    block_of(board, SHOP_1).kv(KvOp.LIST, KvResult.ERROR)
    labels = key("edge_kv_operations_total", service="shop", operation="list", result="error")
    assert board.samples()[labels] == 1

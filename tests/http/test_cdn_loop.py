"""`CDN-Loop` read and written: whose entries count, and what is too much."""

from __future__ import annotations

import time

import pytest

from edge.http.cdn_loop import (
    MOST_BYTES,
    MOST_VISITS,
    Visits,
    is_loop,
    received,
    value_with_us,
    visits,
)
from edge.http.message import RequestHead

US = b"edge-server; s=shop"


@pytest.mark.parametrize(
    ("values", "service", "server"),
    [
        ([], 0, 0),
        ([b""], 0, 0),
        ([b", ,"], 0, 0),
        ([US], 1, 1),
        ([US, US], 2, 2),
        ([b"edge-server;s=shop,edge-server ; s = shop\t, Edge-Server; S=shop"], 3, 3),
        ([b"edge-server; s=cart, edge-server"], 0, 2),
        ([b"fastly, cloudflare; s=shop, 192.0.2.1:80; x=y"], 0, 0),
        ([b'other; note="edge-server; s=shop, edge-server; s=shop"'], 0, 0),
        ([b'edge-server; s="shop"; v=1'], 1, 1),
        ([b'edge-server; v="a, b"; s=shop'], 1, 1),
        ([b"edge-server; vs=shop"], 0, 1),
        ([b"edge-server; s=shop2, edge-server; s=sho"], 0, 2),
        ([b"edge-server2; s=shop, an-edge-server; s=shop"], 0, 0),
        ([b'edge-server; s=shop, "unfinished'], 1, 1),
    ],
)
def test_our_entries_are_counted(values: list[bytes], service: int, server: int) -> None:
    assert visits(values, b"shop") == Visits(service, server)


def test_a_loop_is_more_than_five_visits_to_one_service() -> None:
    assert not is_loop([US] * MOST_VISITS, b"shop")
    assert is_loop([US] * (MOST_VISITS + 1), b"shop")
    assert not is_loop([US] * (MOST_VISITS + 1), b"cart"), "which may still be called for the first"


def test_a_value_too_long_to_be_read_is_a_loop() -> None:
    others = b"a-cdn.example, " * 200
    assert not is_loop([others], b"shop")
    assert is_loop([others, others], b"shop")


def test_what_is_sent_on_is_what_came_and_our_entry() -> None:
    assert value_with_us([], b"shop") == US
    assert value_with_us([b"fastly", b"", US], b"shop") == b"fastly, " + US + b", " + US
    assert visits([value_with_us([US], b"shop")], b"shop") == Visits(2, 2)


def test_what_is_sent_on_is_bounded_and_what_goes_round_is_found_out() -> None:
    values = [b"x" * MOST_BYTES * 2]
    sent = value_with_us(values, b"shop")
    assert len(sent) <= MOST_BYTES + len(US) + 2
    assert is_loop([sent], b"shop")


@pytest.mark.parametrize(
    "value",
    [b'"', b'x; a="', b'x; a=", edge', b'"\\', b'"\\"', b'"a", "b', b'"' * 7, b'\\"', b'", x'],
)
def test_no_value_can_hide_our_entry_in_a_string(value: bytes) -> None:
    values = [value]
    for _ in range(MOST_VISITS + 1):
        assert not is_loop(values, b"shop")
        values = [value_with_us(values, b"shop")]
    assert is_loop(values, b"shop")


def test_strings_that_have_an_end_are_left_as_they_are() -> None:
    value = b'cdn.example; note="a, \\"b\\", c"; v="\\\\"'
    assert value_with_us([value], b"shop") == value + b", " + US


def test_the_field_is_taken_from_every_line_of_it() -> None:
    headers = [(b"cdn-loop", b"a"), (b"host", b"x"), (b"cdn-loop", b"b")]
    assert received(RequestHead(b"GET", b"/", b"x", headers=headers)) == [b"a", b"b"]


@pytest.mark.parametrize(
    "piece", [b'"', b"\\", b'\\"', b"; s", b",", b"edge-server,", b'"a,', b"; s=  "]
)
def test_a_hostile_value_is_read_in_little_time(piece: bytes) -> None:
    value = b"edge-server; " + piece * (MOST_BYTES // len(piece))
    began = time.thread_time()
    visits([value], b"shop")
    value_with_us([value], b"shop")
    assert time.thread_time() - began < 0.02  # measured: 0.6 ms for the worst of them

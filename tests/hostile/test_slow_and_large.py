"""Head bombs, trickles, floods: what a client can make the server hold or do is bounded."""

from __future__ import annotations

import time

import pytest

from edge.http.body import Body
from edge.http.message import ResponseHead
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits
from tests.support.transport import Driven, hello

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START = b"GET / HTTP/1.1\r\nHost: a\r\n"


def held(driven: Driven) -> int:
    return len(driven.connection._buffer)


@pytest.mark.parametrize("step", [0, 1000])
def test_a_head_without_end_is_refused_when_it_is_too_large(step: int) -> None:
    driven = Driven(hello)
    driven.send(START + b"X-Bomb: " + b"x" * 300_000, step=step)
    assert driven.received.startswith(b"HTTP/1.1 431 ")
    assert driven.ended
    assert held(driven) == 0


def test_a_complete_head_that_is_too_large_is_refused() -> None:
    driven = Driven(hello, limits=HttpLimits(max_head=1000))
    fits = START + b"X: " + b"x" * (1000 - len(START) - 7) + b"\r\n\r\n"
    assert len(fits) == 1000
    driven.send(fits)
    assert driven.received.endswith(b"hello")
    driven.send(fits[:-4] + b"x\r\n\r\n" + GET)
    assert b"HTTP/1.1 431 " in driven.received
    assert driven.ended
    assert len(driven.exchanges) == 1


@pytest.mark.parametrize("step", [0, 100])
def test_an_endless_target_is_refused_with_its_own_status(step: int) -> None:
    driven = Driven(hello)
    driven.send(b"GET /" + b"x" * 60_000, step=step)
    assert driven.received.startswith(b"HTTP/1.1 414 ")
    assert driven.ended


def test_too_many_fields_are_refused() -> None:
    driven = Driven(hello)
    driven.send(START + b"a:\r\n" * 600 + b"\r\n")
    assert driven.received.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n\n", b"\x00",
                                  b"GET / HTTP/1.1\rHost"])  # fmt: skip
def test_what_can_never_become_a_head_is_not_waited_for(data: bytes) -> None:
    driven = Driven(hello)
    driven.send(data, step=1)
    assert driven.received.startswith(b"HTTP/1.1 400 ")
    assert driven.ended


def test_a_head_that_trickles_costs_time_in_proportion() -> None:
    driven = Driven(hello)
    began = time.process_time()
    driven.send(START + b"X: " + b"x" * 60_000 + b"\r\n\r\n", step=1)
    assert driven.received.endswith(b"hello")
    assert time.process_time() - began < 5  # 60,000 reads; quadratic work would take minutes


def test_a_flood_behind_a_request_in_flight_stops_the_socket() -> None:
    driven = Driven()
    driven.send(GET)
    driven.connection.data_received(GET * 5000)
    assert driven.transport.paused
    assert len(driven.exchanges) == 1
    assert held(driven) == len(GET) * 5000  # one read of the event loop, and no second


def test_bytes_after_the_last_response_are_not_kept() -> None:
    driven = Driven(hello)
    driven.send(b"BAD\r\n\r\n")
    for _ in range(20):
        driven.send(bytes(65536))
    assert held(driven) == 0
    assert driven.transport.closed


def test_a_refused_body_that_goes_on_stops_the_socket() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    exchange = driven.exchanges[0]
    response = Body(live=True)
    exchange.respond(ResponseHead(200, []), response)
    driven.send(b"nonsense")
    for _ in range(30):
        if driven.transport.paused:
            break
        driven.send(bytes(65536))
    assert driven.transport.paused
    response.write(b"still")
    response.finish()
    driven.loop.settle()
    assert driven.received.endswith(b"5\r\nstill\r\n0\r\n\r\n")
    driven.loop.advance(3)
    assert driven.transport.closed


def test_a_thousand_pipelined_requests_do_not_recurse() -> None:
    depth: list[int] = []

    def handler(exchange: Exchange) -> None:
        import inspect

        if len(depth) % 100 == 0:
            depth.append(len(inspect.stack()))
        else:
            depth.append(0)
        hello(exchange)

    driven = Driven(handler)
    driven.send(GET * 1000)
    assert len(driven.exchanges) == 1000
    assert max(depth) - min(found for found in depth if found) < 20

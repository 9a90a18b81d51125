"""When a small response leaves: with the others of its turn, or at once when guests wait."""

from __future__ import annotations

import pytest

from edge.http.body import Body
from edge.http.message import ResponseHead
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits, Timeout
from tests.support.transport import Driven

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def _answer(exchange: Exchange) -> None:
    exchange.respond(ResponseHead(), Body())


@pytest.mark.parametrize("hurried", [False, True])
def test_a_response_is_kept_for_the_end_of_the_turn_unless_guests_would_run_first(
    *, hurried: bool
) -> None:
    client = Driven(_answer)
    client.front.hurried = lambda: hurried
    client.connection.data_received(GET)
    assert client.transport.written.startswith(b"HTTP/1.1 200 ") is hurried
    client.loop.settle()
    assert client.transport.written.startswith(b"HTTP/1.1 200 ")


def test_a_response_behind_a_kept_one_does_not_overtake_it() -> None:
    client = Driven(_answer)
    client.connection.data_received(GET)
    client.front.hurried = lambda: True
    client.connection.data_received(GET)
    client.loop.settle()
    assert client.transport.written.count(b"HTTP/1.1 200 ") == 2


def test_a_client_that_takes_nothing_of_a_closing_connection_is_let_go() -> None:
    def large(exchange: Exchange) -> None:
        exchange.reply(200, "text/plain", b"x" * 200_000)

    driven = Driven(large, limits=HttpLimits(write_stall=1.0))
    driven.transport.reads = False
    driven.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    driven.loop.settle()
    for _ in range(20):
        driven.loop.advance(0.5)
    assert driven.transport.aborted
    assert driven.front.statistics.connections_open == 0
    assert driven.front.statistics.timeouts[Timeout.WRITE] == 1


def test_a_client_that_sent_its_whole_body_is_not_invited_to_send_it() -> None:
    driven = Driven()
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    driven.send(head)
    driven.send(b"0\r\n\r\n")
    (exchange,) = driven.exchanges
    assert exchange.body.at_eof
    assert b"100 Continue" not in driven.received

"""When a small response leaves: with the others of its turn, or at once when guests wait."""

from __future__ import annotations

import pytest

from edge.http.body import Body
from edge.http.message import ResponseHead
from edge.server.exchange import Exchange
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

"""Seeded random streams: any requests, cut anywhere, answered now or later, stay in order."""

from __future__ import annotations

import random

import pytest

from edge.http.body import Body
from edge.http.message import ResponseHead
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits
from tests.support.transport import Driven


def request(rng: random.Random, number: int) -> bytes:
    line = b"%b /item-%02d HTTP/1.1\r\nHost: a\r\n" % (rng.choice([b"GET", b"POST"]), number)
    size = rng.choice([0, 0, 1, 50, 5000, 300_000])
    body = bytes(rng.choices(range(256), k=min(size, 64))) * (size // 64 + 1)
    body = body[:size]
    match rng.randrange(3):
        case 0:
            return line + b"\r\n"
        case 1:
            return line + b"Content-Length: %d\r\n\r\n" % size + body
        case _:
            coded, at = b"", 0
            while at < size:
                step = rng.choice([1, 3, 100, 70_000]) if size < 6000 else 70_000
                piece = body[at : at + step]
                coded += b"%x\r\n%b\r\n" % (len(piece), piece)
                at += step
            return line + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\nX-T: 1\r\n\r\n"


def answer(driven: Driven, rng: random.Random, exchange: Exchange) -> None:
    """Reads the body to its end (or not at all, if it is short) and answers with its number."""
    target = Body(live=True)
    if rng.random() < 0.3 and exchange.content_length is not None and exchange.body.ended:
        exchange.reply(200, "text/plain", exchange.path)
        return
    streamed = rng.random() < 0.5

    def move() -> None:
        source = exchange.body
        while source.is_readable and not source.at_eof:
            source.read(rng.choice([10_000, 100_000]))
        if not source.at_eof:
            source.watch(lambda: driven.loop.call_soon(move))
        elif streamed:
            target.write(exchange.path)
            target.finish()
        else:
            exchange.reply(200, "text/plain", exchange.path)

    if streamed:
        exchange.respond(ResponseHead(200, []), target)
    if rng.random() < 0.5:
        move()
    else:
        driven.loop.call_soon(move)


@pytest.mark.parametrize("seed", range(60))
def test_every_request_of_a_stream_is_answered_once_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    driven = Driven(limits=HttpLimits(pipeline_depth=3))
    driven.front.handler = lambda exchange: answer(driven, rng, exchange)
    count = 12
    stream = b"".join(request(rng, number) for number in range(count))
    at = 0
    for _ in range(1_000_000):
        if at >= len(stream):
            break
        if not driven.transport.paused:
            step = rng.choice([1, 2, 17, 1000, 65536, 262_144])
            driven.connection.data_received(stream[at : at + step])
            at += step
            assert len(driven.connection._buffer) <= 2 * 262_144
        if rng.random() < 0.7 or driven.transport.paused:
            assert driven.loop.turn() or not driven.transport.paused, "paused for ever"
    driven.loop.settle()
    found = driven.received
    for number in range(count):
        before, mark, found = found.partition(b"/item-%02d" % number)
        assert mark, f"no answer to request {number}"
        assert before.count(b"HTTP/1.1 200 OK") == 1
    assert not driven.ended
    assert not driven.transport.paused
    assert driven.connection._intake is None
    assert not driven.connection._buffer

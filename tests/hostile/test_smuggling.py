"""Request smuggling: whatever follows a message that two servers could read differently is lost.

Each case is sent whole, byte by byte, and with a second request behind it; that one must never
reach a handler, and the connection must end.
"""

from __future__ import annotations

import pytest

from edge.http.refusal import BadRequest
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits
from tests.support.bad_heads import REFUSED
from tests.support.transport import Driven, hello

LIMITS = HttpLimits(max_target=64, max_fields=8, max_head=2048)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def drive(data: bytes, step: int) -> Driven:
    driven = Driven(hello, limits=LIMITS)
    driven.send(data, step=step)
    driven.send(SMUGGLED)
    driven.loop.advance(5)
    assert all(exchange.path != b"/smuggled" for exchange in driven.exchanges)
    return driven


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("behind", [b"", SMUGGLED])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("head", "status", "kind"), REFUSED)
def test_a_refused_head_is_answered_once_and_nothing_after_it(
    head: bytes, status: int, kind: BadRequest, step: int, behind: bytes, before: bytes
) -> None:
    driven = drive(before + head + behind, step)
    count = 1 if before else 0
    assert len(driven.exchanges) == count
    assert driven.received.count(b"HTTP/1.1 ") == count + 1
    answer = driven.received.split(b"HTTP/1.1 ")[-1]
    # Byte by byte some are refused sooner, at the first byte that cannot be right.
    early = step == 1 and status in (414, 505)
    assert answer.startswith(b"%d " % status) or early
    assert b"connection: close\r\n" in answer
    assert driven.ended
    assert driven.transport.closed
    assert sum(driven.front.statistics.bad_requests.values()) == 1
    assert len(driven.refused) == 1


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BROKEN_BODIES = [
    CHUNKED + b"0\r\n\r\r" + SMUGGLED,
    CHUNKED + b"0\n\n" + SMUGGLED,
    CHUNKED + b"0\r\n\n" + SMUGGLED,
    CHUNKED + b"5\r\nhello" + SMUGGLED,
    CHUNKED + b"5\r\nhello\n0\r\n\r\n" + SMUGGLED,
    CHUNKED + b"5\nhello\r\n0\r\n\r\n" + SMUGGLED,
    CHUNKED + b"5;\nxx\r\n" + SMUGGLED,
    CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    CHUNKED + b"-1\r\n" + SMUGGLED,
    CHUNKED + b"fffffffffffffffff\r\n" + SMUGGLED,
    CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    CHUNKED + b"0\r\nX: y\n\r\n" + SMUGGLED,
    CHUNKED + b"0\r\n X: y\r\n\r\n" + SMUGGLED,
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("data", BROKEN_BODIES)
def test_nothing_behind_a_broken_chunked_body_is_a_request(data: bytes, step: int) -> None:
    waiting: list[Exchange] = []
    driven = Driven(waiting.append, limits=LIMITS)
    driven.send(data, step=step)
    assert all(exchange.path == b"/" for exchange in waiting)
    assert driven.received.startswith(b"HTTP/1.1 400 ")
    assert driven.received.count(b"HTTP/1.1 4") == 1
    assert driven.ended


UPGRADES = [
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: upgrade\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: foo/2\r\n",
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("fields", UPGRADES)
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"", b""),
        (b"Content-Length: 38\r\n", b"GET /smuggled HTTP/1.1\r\nHost: aaaa\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"26\r\n" + SMUGGLED + b"abc\r\n0\r\n\r\n"),
    ],
)
def test_an_upgrade_is_never_made_and_bytes_behind_it_are_lost(
    fields: bytes, framing: bytes, body: bytes, step: int
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + framing + b"\r\n"
    driven = drive(head + body + SMUGGLED, step)
    assert len(driven.exchanges) == 1
    assert driven.received.count(b"HTTP/1.1 ") == 1
    assert b"101" not in driven.received
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


def test_the_http2_preface_is_refused() -> None:
    driven = drive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 0)
    assert driven.received.startswith(b"HTTP/1.1 505 ")
    assert driven.ended


def test_a_body_of_a_get_is_a_body() -> None:
    driven = Driven(hello)
    driven.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + GET
    )
    assert [exchange.path for exchange in driven.exchanges] == [b"/", b"/"]
    assert driven.exchanges[0].bytes_in == len(SMUGGLED)


def test_a_request_inside_an_unread_body_is_not_one() -> None:
    driven = Driven(hello)
    body = SMUGGLED * 3
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
    driven.send(body)
    assert [exchange.path for exchange in driven.exchanges] == [b"/"]


def test_a_body_that_looks_like_the_last_head_is_still_a_body() -> None:
    # A connection knows its last head again; what an earlier request's body holds is no head.
    driven = Driven(hello)
    driven.send(GET)
    driven.send(GET)
    driven.send(b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET))
    driven.send(GET)
    assert [exchange.path for exchange in driven.exchanges] == [b"/", b"/", b"/post"]
    driven.send(GET)
    assert len(driven.exchanges) == 4

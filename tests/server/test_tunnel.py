"""Responses that come from elsewhere than the handler, and connections that become two streams."""

from __future__ import annotations

import pytest

from edge.errors import Failed, Incomplete, InvalidHead
from edge.http.body import HIGH_WATER, Body
from edge.http.message import ResponseHead
from edge.server.front import HttpLimits, Timeout
from tests.support.transport import Driven

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: x\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\n\r\n"
)


class Elsewhere:
    """An answer that knows whether it is still wanted."""

    abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1


class Handed(Driven):
    """A client whose request has been handed over."""

    def __init__(self, request: bytes = UPGRADE, limits: HttpLimits | None = None) -> None:
        self.elsewhere = Elsewhere()
        super().__init__(lambda exchange: exchange.hand_over(self.elsewhere), limits=limits)
        self.ends: list[bool] = []
        self.send(request)
        self.exchange = self.exchanges[0]
        self.exchange.on_end = lambda: self.ends.append(self.exchange.gone)
        self.discarded: list[bool] = []
        self.up = Body(live=True)  # to the backend
        self.down = Body(live=True)  # from it
        self.down.on_discard = lambda: self.discarded.append(True)

    def switch(self) -> Handed:
        head = ResponseHead(101, [(b"sec-websocket-accept", b"x"), (b"upgrade", b"websocket")])
        self.exchange.deliver(head, self.down, self.up)
        self.loop.settle()
        return self

    def say(self, data: bytes) -> None:
        """The backend sends."""
        self.down.write(data)
        self.loop.settle()


def page(text: bytes) -> Body:
    body = Body()
    body.write(text)
    return body


def fill(driven: Handed) -> None:
    """The client sends until it is stopped."""
    while not driven.transport.paused:
        driven.send(bytes(64 * 1024))


# Handing over -------------------------------------------------------------------------------


def test_a_response_may_come_after_the_handler_has_gone() -> None:
    driven = Handed(GET)
    assert driven.exchange.responded
    assert driven.received == b""
    driven.exchange.deliver(ResponseHead(201, [(b"x", b"1")]), page(b"late"))
    assert driven.received.startswith(b"HTTP/1.1 201 Created\r\nx: 1\r\n")
    assert driven.received.endswith(b"\r\n\r\nlate")
    assert driven.ends == [False]
    assert not driven.elsewhere.abandoned
    driven.send(GET)
    assert len(driven.exchanges) == 2, "the connection is kept"


def test_nobody_else_can_answer_meanwhile() -> None:
    driven = Handed(GET)
    with pytest.raises(Failed):
        driven.exchange.respond(ResponseHead(200), Body())
    with pytest.raises(Failed):
        driven.exchange.inform(103, [])
    with pytest.raises(Failed):
        driven.exchange.hand_over(Elsewhere())
    assert driven.received == b""


def test_a_client_that_leaves_wants_no_answer() -> None:
    driven = Handed(GET)
    driven.connection.eof_received()
    assert driven.elsewhere.abandoned == 1
    assert driven.ends == [True]
    body = page(b"late")
    driven.exchange.deliver(ResponseHead(200), body)
    assert not body.held


def test_handing_over_a_client_that_has_left() -> None:
    driven = Driven()
    driven.send(GET)
    driven.connection.connection_lost(None)
    elsewhere = Elsewhere()
    driven.exchanges[0].hand_over(elsewhere)
    assert elsewhere.abandoned == 1


@pytest.mark.parametrize("status", [101, 200])
def test_a_head_that_must_not_go_out_leaves_the_answer_owed(status: int) -> None:
    driven = Handed()
    bad = ResponseHead(status, [(b"x", b"a\r\nb: c")])
    with pytest.raises(InvalidHead):
        driven.exchange.deliver(bad, page(b"x"), driven.up if status == 101 else None)
    assert driven.received == b""
    driven.exchange.deliver(ResponseHead(502), page(b"sorry"))
    assert driven.received.startswith(b"HTTP/1.1 502 ")


def test_an_upgrade_that_was_not_granted_ends_the_connection_after_the_response() -> None:
    driven = Handed()
    driven.exchange.deliver(ResponseHead(403), page(b"no"))
    assert driven.received.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


@pytest.mark.parametrize(
    ("request_", "wants"),
    [
        (UPGRADE, True),
        (GET, False),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (UPGRADE.replace(b"GET ", b"PUT "), False),
        (UPGRADE.replace(b": WebSocket", b": h2c"), False),
        (UPGRADE.replace(b": WebSocket", b": websocket, h2c"), False),
        (UPGRADE.replace(b"keep-alive, Upgrade", b"keep-alive"), False),
        (UPGRADE.replace(b"Upgrade: WebSocket\r\n", b""), False),
        (UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx"), False),
    ],
)
def test_which_requests_want_a_websocket(request_: bytes, wants: bool) -> None:
    driven = Driven()
    driven.send(request_)
    assert driven.exchanges[0].wants_websocket is wants


# Two streams of bytes -----------------------------------------------------------------------


def test_bytes_go_both_ways_as_they_are() -> None:
    driven = Handed().switch()
    assert driven.received == SWITCHED
    driven.send(b"GET / HTTP/1.1\r\n\r\n\x00\xff")
    assert driven.up.read(100) == b"GET / HTTP/1.1\r\n\r\n\x00\xff"
    driven.say(b"\x81\x02hi")
    assert driven.received == SWITCHED + b"\x81\x02hi"
    assert (driven.exchange.bytes_in, driven.exchange.bytes_out) == (20, 4)
    assert driven.exchange.status == 101
    assert not driven.ends
    assert len(driven.exchanges) == 1, "nothing in it is taken for a request"


def test_what_the_client_sent_too_early_is_sent_on() -> None:
    driven = Handed()
    driven.send(b"early")
    assert driven.transport.paused, "it waits, bounded"
    driven.switch()
    driven.send(b" and more")  # the transport reads again
    assert driven.up.read(100) == b"early and more"


def test_a_slow_backend_stops_the_client() -> None:
    driven = Handed().switch()
    fill(driven)
    assert driven.up.held <= HIGH_WATER + 64 * 1024
    while driven.up.read(1 << 20):
        pass
    driven.send(b"on it goes")
    assert driven.up.read(100) == b"on it goes"


def test_a_slow_client_stops_the_backend() -> None:
    driven = Handed().switch()
    driven.transport.reads = False
    for _ in range(16):
        driven.say(bytes(64 * 1024))
    assert driven.down.held > HIGH_WATER // 2, "what the client does not take is not taken"
    assert driven.transport.max_waiting < 256 * 1024
    while driven.transport.waiting:
        driven.transport.take(1 << 20)
        driven.loop.settle()
    assert not driven.down.held
    assert driven.exchange.bytes_out == 16 * 64 * 1024


def test_a_client_that_closes_ends_it_and_that_is_no_fault() -> None:
    for leave in ("end of its stream", "reset"):
        driven = Handed().switch()
        driven.send(b"bye")
        if leave == "reset":
            driven.connection.connection_lost(ConnectionResetError())
        else:
            driven.connection.eof_received()
        assert driven.up.read(100) == b"bye"
        assert driven.up.at_eof
        assert driven.discarded
        assert driven.ends == [False], leave
        assert not driven.exchange.failed


def test_a_backend_that_closes_ends_it() -> None:
    driven = Handed().switch()
    driven.down.write(b"bye")
    driven.down.finish()
    driven.loop.settle()
    assert driven.received == SWITCHED + b"bye"
    assert driven.ended
    assert driven.ends == [False]
    assert not driven.exchange.failed


def test_a_backend_that_breaks_off_resets_the_client() -> None:
    driven = Handed().switch()
    driven.down.fail(Incomplete("reset by the backend"))
    driven.loop.settle()
    assert driven.transport.aborted
    assert driven.exchange.failed


def test_silence_of_both_ends_closes_it() -> None:
    driven = Handed(limits=HttpLimits(tunnel_idle=4)).switch()
    for _ in range(10):
        driven.loop.advance(3)
        driven.say(b"x")
    assert not driven.ends, "one of them speaking is enough"
    for _ in range(10):
        driven.loop.advance(3)
        driven.send(b"y")
        driven.up.read(100)
    assert not driven.ends
    driven.loop.advance(9)
    assert driven.ends == [False]
    assert driven.ended
    assert driven.up.at_eof
    assert driven.discarded
    assert driven.front.statistics.timeouts[Timeout.BODY] == 1


def test_a_backend_that_takes_nothing_is_silent_too() -> None:
    driven = Handed(limits=HttpLimits(tunnel_idle=4)).switch()
    fill(driven)
    driven.loop.advance(9)
    assert driven.ends == [False]


def test_the_limits_of_bodies_hold_for_both_streams() -> None:
    driven = Handed(limits=HttpLimits(max_response_bytes=10)).switch()
    driven.say(b"0123456789x")
    assert driven.transport.aborted
    assert driven.exchange.over_output
    driven = Handed(limits=HttpLimits(max_request_body=10)).switch()
    driven.send(b"0123456789x")
    with pytest.raises(Incomplete):
        driven.up.read(100)

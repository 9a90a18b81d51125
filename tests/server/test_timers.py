"""Every timeout, with a stepped clock."""

from __future__ import annotations

from edge.errors import Incomplete
from edge.http.body import HIGH_WATER, Body
from edge.http.message import ResponseHead
from edge.server.front import HttpLimits, Timeout
from edge.server.timers import TICK, Sweeper
from tests.support.clock import SteppedClock
from tests.support.transport import Driven, HandLoop, hello

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
LIMITS = HttpLimits(head_timeout=5, body_idle=6, write_stall=7, keep_alive=8)


def timeouts(driven: Driven, kind: Timeout) -> int:
    return driven.front.statistics.timeouts[kind]


def test_a_connection_that_says_nothing_is_closed() -> None:
    driven = Driven(hello, limits=LIMITS)
    driven.loop.advance(5)
    assert not driven.ended
    driven.loop.advance(0.75)
    assert driven.transport.closed
    assert driven.received == b""
    assert timeouts(driven, Timeout.HEAD) == 1
    assert len(driven.front.sweeper) == 0


def test_a_head_must_be_complete_in_time_however_it_trickles() -> None:
    driven = Driven(hello, limits=LIMITS)
    for at in range(20):
        if driven.ended:
            break
        driven.send(GET[at : at + 1])
        driven.loop.advance(0.5)
    assert driven.received.startswith(b"HTTP/1.1 408 ")
    assert timeouts(driven, Timeout.HEAD) == 1
    driven.loop.advance(2)
    assert driven.transport.closed


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    driven = Driven(hello, limits=LIMITS)
    for _ in range(5):
        driven.send(GET)
        driven.loop.advance(7)
    assert not driven.ended
    driven.loop.advance(2)
    assert driven.transport.closed
    assert timeouts(driven, Timeout.KEEP_ALIVE) == 1


def test_a_request_in_flight_has_no_timeout_here() -> None:
    driven = Driven(limits=LIMITS)
    driven.send(GET)
    driven.loop.advance(500)
    hello(driven.exchanges[0])
    assert driven.received.endswith(b"hello")


def test_a_client_that_stops_sending_its_body_fails_the_body() -> None:
    driven = Driven(limits=LIMITS)
    driven.send(POST)
    for _ in range(3):
        driven.loop.advance(5)
        driven.send(b"x")
    body = driven.exchanges[0].body
    assert not body.is_readable or body.read(9)
    driven.loop.advance(7)
    assert isinstance(body.error, Incomplete)
    assert timeouts(driven, Timeout.BODY) == 1
    hello(driven.exchanges[0])
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


def test_a_guest_that_reads_slowly_is_not_the_clients_fault() -> None:
    driven = Driven(limits=LIMITS)
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n" + bytes(HIGH_WATER))
    driven.loop.advance(100)
    body = driven.exchanges[0].body
    assert body.error is None
    body.read(1 << 20)
    driven.loop.advance(5)
    assert body.error is None
    driven.loop.advance(2)
    assert body.error is not None


def test_a_client_that_waits_to_be_invited_is_not_late() -> None:
    driven = Driven(limits=LIMITS)
    driven.send(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    driven.loop.advance(100)
    body = driven.exchanges[0].body
    assert body.error is None
    assert not body.is_readable
    driven.loop.advance(7)
    assert body.error is not None


def test_a_client_that_takes_nothing_is_aborted() -> None:
    driven = Driven(limits=LIMITS)
    driven.transport.reads = False
    gone: list[bool] = []
    driven.send(GET)
    driven.exchanges[0].on_gone = lambda: gone.append(True)
    body = Body(live=True)
    driven.exchanges[0].respond(ResponseHead(200, []), body)
    body.write(bytes(200_000))
    for _ in range(4):
        driven.loop.advance(5)
        driven.transport.take(10_000)
    assert not gone
    driven.loop.advance(8)
    assert gone == [True]
    assert driven.transport.aborted
    assert timeouts(driven, Timeout.WRITE) == 1


def test_a_stalled_answer_that_was_complete_is_noticed_too() -> None:
    driven = Driven(hello, limits=LIMITS)
    driven.transport.reads = False
    driven.send(GET)
    assert driven.exchanges[0].ended
    driven.loop.advance(9)
    assert driven.transport.aborted
    assert timeouts(driven, Timeout.WRITE) == 1
    assert not driven.exchanges[0].gone


def test_an_unread_body_is_read_away_for_a_moment_only() -> None:
    driven = Driven(hello, limits=LIMITS)
    driven.send(POST)
    assert driven.received.endswith(b"hello")
    driven.loop.advance(2)
    assert driven.ended


def test_the_sweep_runs_only_while_there_is_somebody_to_look_at() -> None:
    clock = SteppedClock()
    loop = HandLoop(clock)
    sweeper = Sweeper(loop, clock)
    clock.advance(100)

    class Member:
        deadline = 0.0
        wrote = False
        seen = 0

        def on_sweep(self, now: float) -> None:
            self.seen += 1

    member = Member()
    sweeper.add(member)
    assert sweeper.now == clock.monotonic()
    assert b"date: Sun, 06 Nov 1994 08:51:17 GMT\r\n" in sweeper.tail_keep
    loop.advance(TICK * 3)
    assert member.seen == 3
    sweeper.remove(member)
    loop.advance(TICK)
    assert not loop._later
    sweeper.add(member)
    sweeper.add(member)
    loop.advance(TICK)
    assert member.seen == 4

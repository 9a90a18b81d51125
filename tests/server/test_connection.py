"""A driven connection: requests one after the other, bodies, invitations, drains.  No sockets."""

from __future__ import annotations

import pytest

from edge.errors import HostcallError, Incomplete
from edge.http.body import HIGH_WATER, Account, Body, Ledger
from edge.http.message import ResponseHead
from edge.http.refusal import BadRequest
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits
from tests.support.transport import Driven, hello

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DATE = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
HELLO = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n" + DATE + b"\r\nhello"
)


def read_all(body: Body) -> bytes:
    found = b""
    while data := body.read(1 << 20):
        found += data
    return found


def echo(exchange: Exchange) -> None:
    """Answers with the body, which must be complete already."""
    assert exchange.body.ended
    exchange.reply(200, "text/plain", read_all(exchange.body))


def test_requests_follow_each_other_on_one_connection() -> None:
    driven = Driven(hello)
    for count in (1, 2, 3):
        driven.send(GET)
        assert driven.received == HELLO * count
    assert driven.transport.writes == 3  # one write for head and body
    assert not driven.ended
    assert driven.front.statistics.requests == 3


def test_a_head_may_come_byte_by_byte() -> None:
    driven = Driven(hello)
    driven.send(GET * 3, step=1)
    assert driven.received == HELLO * 3


def test_one_line_end_before_a_following_request_is_ignored() -> None:
    driven = Driven(hello)
    driven.send(GET + b"\r\n" + GET)
    assert driven.received == HELLO * 2
    driven = Driven(hello)
    driven.send(b"\r\n" + GET)
    assert driven.received.startswith(b"HTTP/1.1 400 ")


def test_closing_is_done_when_asked_for() -> None:
    driven = Driven(hello)
    driven.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    assert driven.received.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


def test_an_old_client_may_ask_to_keep_the_connection() -> None:
    driven = Driven(hello)
    driven.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive\r\n" in driven.received
    assert not driven.ended
    driven.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


def test_pipelined_requests_are_answered_in_order_and_not_all_in_one_turn() -> None:
    driven = Driven(hello, limits=HttpLimits(pipeline_depth=4))
    driven.connection.data_received(GET * 10)
    assert len(driven.exchanges) == 4
    assert driven.transport.paused
    driven.loop.turn()
    assert len(driven.exchanges) == 8
    driven.loop.settle()
    assert driven.received == HELLO * 10
    assert not driven.transport.paused


def test_the_next_request_waits_until_the_one_in_flight_has_ended() -> None:
    driven = Driven()
    driven.send(GET + GET)
    assert len(driven.exchanges) == 1
    assert driven.transport.paused
    hello(driven.exchanges[0])
    assert len(driven.exchanges) == 1  # never inside the call that ended the first one
    driven.loop.settle()
    assert len(driven.exchanges) == 2
    hello(driven.exchanges[1])
    driven.loop.settle()
    assert driven.received == HELLO * 2
    driven.send(GET)
    assert len(driven.exchanges) == 3


def test_half_a_request_behind_another_is_completed_later() -> None:
    driven = Driven()
    driven.send(GET + GET[:9])
    hello(driven.exchanges[0])
    driven.loop.settle()
    driven.send(GET[9:])
    assert len(driven.exchanges) == 2


def test_a_client_that_does_not_read_gets_no_further_answers_made() -> None:
    driven = Driven(lambda exchange: exchange.reply(200, "text/plain", bytes(60_000)))
    driven.transport.reads = False
    driven.send(GET * 10)
    assert len(driven.exchanges) == 2
    driven.transport.take(1 << 20)
    driven.loop.settle()
    assert len(driven.exchanges) == 4


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n",
    ],
)
def test_a_body_arrives_and_the_next_request_after_it(request_bytes: bytes, step: int) -> None:
    driven = Driven()
    driven.send(request_bytes, step=step)
    (exchange,) = driven.exchanges
    assert exchange.body.ended
    assert exchange.bytes_in == 5
    echo(exchange)
    driven.loop.settle()
    driven.send(GET, step=step)
    hello(driven.exchanges[1])
    assert driven.received == HELLO * 2


def test_a_body_that_came_with_its_head_is_there_when_the_handler_begins() -> None:
    driven = Driven(echo)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    driven.send(request + request + GET[:3])
    assert driven.received == HELLO * 2


def test_a_body_tells_its_length_and_its_trailers() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    body = driven.exchanges[0].body
    assert (body.known_length, driven.exchanges[0].content_length) == (5, 5)
    driven.send(b"llo")
    assert body.ended
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert driven.exchanges[0].body.known_length is None
    assert driven.exchanges[0].content_length is None
    driven.send(b"0\r\nX-T: 1\r\nContent-Length: 9\r\n\r\n")
    assert driven.exchanges[0].body.trailers == [(b"x-t", b"1")]


def test_a_full_body_stops_the_socket_until_it_is_read() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    driven.send(bytes(HIGH_WATER - 1))
    paused = [driven.transport.paused]
    driven.send(b"x")
    paused.append(driven.transport.paused)
    driven.exchanges[0].body.read(1)
    paused.append(driven.transport.paused)
    assert paused == [False, True, False]


def test_a_flood_of_tiny_chunks_gives_others_their_turn() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    driven.connection.data_received(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n" + GET)
    body = driven.exchanges[0].body
    assert body.held < 2000
    assert driven.transport.paused
    assert driven.loop.turn() == 1
    assert body.held < 4000
    driven.loop.settle()
    assert body.ended
    assert body.held == 5000
    hello(driven.exchanges[0])
    driven.loop.settle()
    assert len(driven.exchanges) == 2


def test_tiny_chunks_wait_while_the_body_is_full() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    driven.connection.data_received(b"3e8\r\n" + bytes(1000) + b"\r\n")
    driven.connection.data_received((b"200\r\n" + bytes(512) + b"\r\n") * 3000)
    driven.loop.settle()
    body = driven.exchanges[0].body
    assert HIGH_WATER <= body.held < 4 * HIGH_WATER
    assert driven.transport.paused
    total = 0
    while data := body.read(65536):
        total += len(data)
        driven.loop.settle()
    assert total == 1000 + 512 * 3000
    assert not driven.transport.paused


def test_an_unread_body_is_read_away_to_keep_the_connection() -> None:
    driven = Driven(hello)
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfour")
    assert driven.received == HELLO
    driven.send(b"five!" + GET)
    assert driven.received == HELLO * 2


def test_a_large_unread_body_ends_the_connection_and_the_head_says_so() -> None:
    driven = Driven(hello)
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\nfour")
    assert b"connection: close\r\n" in driven.received
    assert driven.transport.eof_written
    driven.send(bytes(99995) + GET)
    assert len(driven.exchanges) == 1
    driven.loop.advance(2)
    assert driven.transport.closed


def test_an_endless_unread_body_is_read_away_only_so_far() -> None:
    driven = Driven(hello)
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(65):
        driven.send(b"400\r\n" + bytes(1024) + b"\r\n")
    assert driven.transport.eof_written
    driven.send(bytes(1 << 20))
    driven.send(bytes(1 << 20))
    assert driven.transport.closed


def test_the_client_is_invited_to_send_when_the_guest_reads() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    body = driven.exchanges[0].body
    assert driven.received == b""
    assert body.known_length == 5
    assert not body.is_readable
    assert driven.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not body.is_readable
    assert body.read(5) == b""
    driven.send(b"hello")
    echo(driven.exchanges[0])
    assert driven.received == b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO
    assert not driven.ended


def test_a_response_made_of_the_request_body_invites_the_client_first() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    response = Body()
    response.write(b"you said: ")
    response.append(driven.exchanges[0].body)
    driven.exchanges[0].respond(ResponseHead(200, []), response)
    assert driven.received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    driven.send(b"hello")
    assert driven.received.endswith(b"you said: hello")
    assert not driven.ended


def test_no_invitation_after_the_final_response_and_no_further_request() -> None:
    driven = Driven(hello)
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert b"100 Continue" not in driven.received
    assert b"connection: close\r\n" in driven.received
    assert not driven.exchanges[0].body.is_readable
    assert b"100 Continue" not in driven.received
    driven.send(b"hello" + GET)
    assert len(driven.exchanges) == 1


def test_a_client_that_sends_at_once_needs_no_invitation() -> None:
    driven = Driven(echo)
    driven.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
    )
    assert driven.received == HELLO


def test_an_expectation_without_a_body_means_nothing() -> None:
    driven = Driven(hello)
    driven.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
    assert driven.received == HELLO


def test_a_body_announced_too_large_is_refused_before_the_handler() -> None:
    driven = Driven(hello, limits=HttpLimits(max_request_body=10))
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world" + GET)
    assert driven.received.startswith(b"HTTP/1.1 413 ")
    assert b"x-edge-outcome: body_limit\r\n" in driven.received
    assert not driven.exchanges
    assert [info.kind for info in driven.refused] == [BadRequest.BODY_TOO_LARGE]


def test_a_chunked_body_that_grows_too_large_is_answered_413() -> None:
    driven = Driven(limits=HttpLimits(max_request_body=10))
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    driven.send(b"8\r\n12345678\r\n8\r\n12345678\r\n")
    (exchange,) = driven.exchanges
    assert driven.received.startswith(b"HTTP/1.1 413 ")
    assert (exchange.status, exchange.ended) == (413, True)
    assert driven.ended


def test_the_host_may_handle_a_body_that_is_too_large() -> None:
    told: list[int] = []
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    (exchange,) = driven.exchanges
    assert exchange.limit_request_body(10)
    exchange.on_body_limit = lambda: told.append(exchange.bytes_in)
    driven.send(b"10\r\n0123456789abcdef\r\n")
    assert told == [16]
    assert not exchange.responded
    with pytest.raises(HostcallError):
        read_all(exchange.body)
    hello(exchange)
    assert b"connection: close\r\n" in driven.received
    assert driven.ended


def test_a_service_may_take_less_than_the_server() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    assert not driven.exchanges[0].limit_request_body(10)
    assert driven.exchanges[0].limit_request_body(11) is False  # it was lowered already


def test_a_broken_chunk_after_the_handler_began_is_answered_400() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = driven.exchanges[0].body
    driven.send(b"xyz\r\n" + GET)
    assert driven.received.startswith(b"HTTP/1.1 400 ")
    with pytest.raises(Incomplete):
        body.read(1)
    assert driven.exchanges[0].refusal is not None
    assert driven.ended


def test_a_broken_chunk_during_a_response_only_fails_the_body() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    response = Body(live=True)
    driven.exchanges[0].respond(ResponseHead(200, []), response)
    driven.send(b"xyz\r\n" + GET)
    response.write(b"done")
    response.finish()
    driven.loop.settle()
    assert driven.received.endswith(b"4\r\ndone\r\n0\r\n\r\n")
    assert driven.ended


def test_a_sandbox_that_may_hold_no_more_fails_its_body() -> None:
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    account = Account(Ledger(), 100)
    driven.exchanges[0].body.adopt(account)
    driven.send(bytes(99))
    assert account.held == 99
    driven.send(bytes(99))
    assert account.exceeded
    assert driven.exchanges[0].body.error is not None
    hello(driven.exchanges[0])
    assert account.held == 0
    assert driven.ended


def test_an_upgrade_is_answered_as_http_and_ends_the_connection() -> None:
    driven = Driven(echo)
    driven.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: x\r\nContent-Length: 5\r\n\r\nhello" + GET
    )
    assert driven.received.count(b"HTTP/1.1 ") == 1
    assert driven.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in driven.received
    assert driven.received.endswith(b"hello")
    assert driven.ended


def test_options_for_the_server_as_a_whole_is_no_services_business() -> None:
    driven = Driven(hello)
    driven.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    assert driven.received.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"allow: " in driven.received
    assert driven.received.endswith(HELLO)
    assert len(driven.exchanges) == 1


def test_a_handler_that_raises_is_our_fault_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(exchange: Exchange) -> None:
        raise RuntimeError("secret detail")

    driven = Driven(broken)
    driven.send(GET)
    assert driven.received.startswith(b"HTTP/1.1 500 ")
    assert b"x-edge-outcome: fault\r\n" in driven.received
    assert b"secret" not in driven.received
    assert "secret detail" in caplog.text
    assert driven.front.statistics.faults == 1


def test_a_client_that_leaves_is_reported_once_and_in_order() -> None:
    told: list[str] = []
    driven = Driven()
    driven.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    (exchange,) = driven.exchanges
    exchange.on_gone = lambda: told.append("gone")
    exchange.on_end = lambda: told.append("end")
    body = exchange.body
    assert driven.connection.eof_received() is False
    driven.connection.connection_lost(None)
    assert told == ["gone", "end"]
    assert (exchange.gone, exchange.ended, exchange.status) == (True, True, 0)
    with pytest.raises(Incomplete):
        body.read(1)
    hello(exchange)  # a guest need not know
    assert exchange.responded
    assert driven.received == b""
    assert driven.front.statistics.clients_gone == 1
    assert driven.front.statistics.connections_open == 0


def test_draining_closes_what_is_idle_and_ends_what_is_busy() -> None:
    idle = Driven(hello)
    idle.send(GET)
    idle.connection.begin_drain()
    assert idle.transport.closed
    busy = Driven()
    busy.send(GET)
    busy.connection.begin_drain()
    assert not busy.ended
    hello(busy.exchanges[0])
    assert b"connection: close\r\n" in busy.received
    assert busy.transport.closed
    partial = Driven(hello)
    partial.send(GET[:9])
    partial.connection.begin_drain()
    partial.send(GET[9:])
    assert partial.received.endswith(b"hello")
    assert partial.ended
    silent = Driven(hello, draining=True)
    silent.connection.begin_drain()
    assert not silent.ended
    silent.loop.advance(2)
    assert silent.ended


def test_a_proxy_header_names_the_client() -> None:
    driven = Driven(hello, proxy_protocol=True, trusted=("10.0.0.0/8",), remote="10.0.0.1")
    driven.send(b"PROXY TCP4 203.0.113.9 203.0.113.1 5000 80\r\n" + GET + GET, step=1)
    assert driven.received == HELLO * 2
    assert driven.exchanges[0].client_address == bytes([203, 0, 113, 9])
    assert driven.exchanges[0].server_address == bytes([203, 0, 113, 1])
    assert not driven.exchanges[0].peer.trusted


def test_without_the_mandatory_proxy_header_nothing_is_answered() -> None:
    driven = Driven(hello, proxy_protocol=True, trusted=("10.0.0.0/8",), remote="10.0.0.1")
    driven.send(GET)
    assert driven.received == b""
    assert driven.transport.aborted
    assert driven.front.statistics.bad_requests[BadRequest.PROXY_PROTOCOL] == 1


def test_the_scheme_of_an_absolute_target_must_be_that_of_the_connection() -> None:
    request = b"GET https://a:443/ HTTP/1.1\r\nHost: a\r\n\r\n"
    stranger = Driven(hello)
    stranger.send(request)
    assert stranger.received.startswith(b"HTTP/1.1 421 ")
    proxy = Driven(hello, trusted=("192.0.2.7/32",))
    proxy.send(request)
    assert proxy.exchanges[0].head.scheme == b"https"
    assert proxy.exchanges[0].head.authority == b"a"


def test_behind_a_trusted_proxy_that_ended_tls_the_default_port_is_443() -> None:
    proxy = Driven(hello, trusted=("192.0.2.7/32",))
    proxy.send(b"GET / HTTP/1.1\r\nHost: a:443\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert proxy.exchanges[0].head.authority == b"a"

"""Responses of every kind on a driven connection, and what the host is told of them."""

from __future__ import annotations

import json

import pytest

from edge.errors import Failed, Incomplete, InvalidHead
from edge.http.body import HIGH_WATER, Account, Body, Ledger
from edge.http.message import Headers, ResponseHead
from edge.server.exchange import Exchange
from edge.server.front import HttpLimits
from tests.support.transport import Driven, hello

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"


def begin(request: bytes = GET, **options: HttpLimits) -> tuple[Driven, Exchange]:
    driven = Driven(**options)  # type: ignore[arg-type]
    driven.send(request)
    return driven, driven.exchanges[0]


def body_of(*pieces: bytes, account: Account | None = None) -> Body:
    body = Body(account)
    for piece in pieces:
        body.write(piece)
    return body


def respond(
    exchange: Exchange, body: Body, status: int = 200, headers: Headers | None = None,
    *, manual: bool = False, close: bool = False,
) -> None:  # fmt: skip
    exchange.respond(ResponseHead(status, headers or [], manual, close), body)


def after_head(driven: Driven) -> bytes:
    return driven.received.partition(b"\r\n\r\n")[2]


def test_a_streamed_response_is_chunked_as_it_comes() -> None:
    driven, exchange = begin()
    body = Body(live=True)
    respond(exchange, body)
    assert b"transfer-encoding: chunked\r\n" in driven.received
    assert b"content-length" not in driven.received
    body.write(b"a")
    body.write(b"bc")
    driven.loop.settle()
    body.write(b"x" * 5000)
    driven.loop.settle()
    body.finish([(b"x-sum", b"1"), (b"content-length", b"7")])
    assert [exchange.ended] == [False]
    driven.loop.settle()
    assert after_head(driven) == (
        b"3\r\nabc\r\n1388\r\n" + b"x" * 5000 + b"\r\n0\r\nx-sum: 1\r\n\r\n"
    )
    assert exchange.ended
    assert exchange.bytes_out == 5003
    assert not driven.ended


def test_a_streamed_response_to_an_old_client_ends_by_closing() -> None:
    driven, exchange = begin(OLD)
    body = Body(live=True)
    respond(exchange, body)
    body.write(b"abc")
    body.finish()
    driven.loop.settle()
    assert b"transfer-encoding" not in driven.received
    assert b"connection: close\r\n" in driven.received
    assert after_head(driven) == b"abc"
    assert driven.ended


def test_a_live_body_of_known_length_needs_no_chunks() -> None:
    driven, exchange = begin()
    body = Body(live=True)
    body.expected = 3
    respond(exchange, body)
    assert b"content-length: 3\r\n" in driven.received
    body.expected = 0
    body.write(b"abc")
    body.finish()
    driven.loop.settle()
    assert after_head(driven) == b"abc"
    assert not driven.ended


def test_trailers_of_a_complete_body_are_sent_in_a_chunked_message() -> None:
    driven, exchange = begin()
    body = body_of(b"abc")
    body.trailers.append((b"x-sum", b"1"))
    respond(exchange, body)
    assert after_head(driven) == b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"


def test_a_body_that_fails_is_not_ended_as_if_it_had_not() -> None:
    driven, exchange = begin()
    ends: list[bool] = []
    exchange.on_end = lambda: ends.append(exchange.failed)
    body = Body(live=True)
    respond(exchange, body)
    body.write(b"abc")
    body.fail(Incomplete("the backend died"))
    driven.loop.settle()
    assert after_head(driven) == b"3\r\nabc\r\n"
    assert driven.transport.aborted
    assert ends == [True]


def test_a_slow_reader_stops_the_flow_and_little_waits_for_it() -> None:
    driven, exchange = begin()
    driven.transport.reads = False
    body = Body(live=True)
    respond(exchange, body)
    for _ in range(100):
        while not body.is_full:
            body.write(bytes(65536))
        driven.loop.settle()
    assert driven.transport.max_waiting <= 65536 * 3
    assert body.held <= HIGH_WATER + 65536
    while driven.transport.waiting or body.held:
        driven.transport.take(100_000)
        driven.loop.settle()
    body.finish()
    driven.loop.settle()
    driven.transport.take(100)
    assert driven.received.endswith(b"\r\n0\r\n\r\n")


def test_a_large_body_goes_out_in_turns() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(bytes(5 << 20)))
    assert exchange.bytes_out <= (1 << 20) + 65536
    driven.loop.settle()
    assert exchange.bytes_out == len(after_head(driven)) == 5 << 20


@pytest.mark.parametrize("status", [204, 304])
def test_no_body_and_no_length_where_there_is_none(status: int) -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abc"), status, [(b"content-length", b"3")])
    assert b"content-length" not in driven.received
    assert after_head(driven) == b""
    hello_again(driven)


def hello_again(driven: Driven) -> None:
    """The connection is still good for a request."""
    driven.send(GET)
    hello(driven.exchanges[-1])
    assert driven.received.endswith(b"hello")


@pytest.mark.parametrize(
    ("body", "headers", "length"),
    [
        (b"abc", [], b"content-length: 3\r\n"),
        (b"", [(b"content-length", b"77")], b"content-length: 77\r\n"),
        (b"", [], b""),
    ],
)
def test_a_head_request_gets_the_head_of_a_get(
    body: bytes, headers: Headers, length: bytes
) -> None:
    driven, exchange = begin(HEAD)
    respond(exchange, body_of(body), 200, headers)
    assert length in driven.received
    assert driven.received.count(b"content-length") == bool(length)
    assert after_head(driven) == b""
    hello_again(driven)


def test_a_head_request_does_not_wait_for_a_body() -> None:
    driven, exchange = begin(HEAD)
    body = Body(live=True)
    respond(exchange, body)
    assert exchange.ended
    body.write(b"x" * HIGH_WATER * 2)
    assert not body.is_full  # runs on into nothing
    hello_again(driven)


def test_manual_framing_that_agrees_is_used() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abc"), 200, [(b"content-length", b"3")], manual=True)
    assert b"content-length: 3\r\n" in driven.received
    hello_again(driven)


def test_a_body_longer_than_announced_is_cut_and_ends_the_connection() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abcdef"), 200, [(b"content-length", b"3")], manual=True)
    assert after_head(driven) == b"abc"
    assert driven.ended


def test_a_body_shorter_than_announced_aborts() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abc"), 200, [(b"content-length", b"9")], manual=True)
    assert after_head(driven) == b"abc"
    assert driven.transport.aborted
    assert exchange.failed


def test_an_empty_body_shorter_than_announced_aborts() -> None:
    driven, exchange = begin()
    respond(exchange, Body(), 200, [(b"content-length", b"9")], manual=True)
    assert driven.transport.aborted
    assert exchange.failed


def test_a_guest_may_end_the_connection() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abc"), close=True)
    assert b"connection: close\r\n" in driven.received
    assert after_head(driven) == b"abc"
    assert driven.ended


def test_a_second_response_is_refused() -> None:
    driven, exchange = begin()
    respond(exchange, body_of(b"abc"))
    with pytest.raises(Failed):
        respond(exchange, body_of(b"abc"))
    assert driven.received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("live", [True, False])
def test_a_bad_head_is_refused_before_anything_is_sent(live: bool) -> None:
    driven, exchange = begin()
    for status, headers in (
        (200, [(b"x", b"a\r\nset-cookie: b")]), (200, [(b"x y", b"")]), (101, []), (1000, []),
    ):  # fmt: skip
        with pytest.raises(InvalidHead):
            respond(exchange, Body(live=live), status, headers)
    assert driven.received == b""
    assert not exchange.responded
    hello(exchange)
    assert after_head(driven) == b"hello"


def test_interim_responses_are_passed_on_before_the_final_one_only() -> None:
    driven, exchange = begin()
    exchange.inform(103, [(b"link", b"</a>"), (b"connection", b"close"), (b"x-edge-a", b"b")])
    assert driven.received == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    for status in (100, 101, 200):
        with pytest.raises(InvalidHead):
            exchange.inform(status, [])
    hello(exchange)
    with pytest.raises(Failed):
        exchange.inform(103, [])


def test_an_old_client_gets_no_interim_response() -> None:
    driven, exchange = begin(OLD)
    exchange.inform(103, [])
    assert driven.received == b""


@pytest.mark.parametrize("known", [True, False])
def test_a_response_over_its_limit_is_an_error_page_or_an_abort(known: bool) -> None:
    told: list[int] = []
    driven, exchange = begin()
    exchange.max_response_bytes = 10
    exchange.on_output_limit = lambda: told.append(exchange.bytes_out)
    if known:
        account = Account(Ledger(), 100)
        respond(exchange, body_of(b"x" * 11, account=account))
        assert account.held == 0
        assert driven.received.startswith(b"HTTP/1.1 500 ")
        assert b"x-edge-outcome: output_limit\r\n" in driven.received
        assert not driven.ended
    else:
        body = Body(live=True)
        respond(exchange, body)
        body.write(b"x" * 8)
        driven.loop.settle()
        body.write(b"x" * 8)
        driven.loop.settle()
        assert driven.transport.aborted
        assert after_head(driven) == b"8\r\nxxxxxxxx\r\n"
    assert len(told) == 1
    assert exchange.ended


def test_a_response_at_its_limit_is_fine() -> None:
    driven, exchange = begin(limits=HttpLimits(max_response_bytes=10))
    respond(exchange, body_of(b"x" * 10))
    assert after_head(driven) == b"x" * 10


def test_host_fields_are_added_and_a_guest_cannot_forge_them() -> None:
    driven, exchange = begin()
    exchange.add_headers = [(b"x-edge-outcome", b"ok"), (b"server-timing", b"cpu;dur=1")]
    respond(exchange, body_of(b"abc"), 200, [(b"x-edge-outcome", b"lie")])
    assert b"x-edge-outcome: ok\r\nserver-timing: cpu;dur=1\r\n" in driven.received
    assert b"lie" not in driven.received


def test_error_pages_are_text_or_json_and_name_outcome_and_request() -> None:
    driven, exchange = begin()
    exchange.respond_error(503, "Too busy.", "overload", retry_after=2, extra=[(b"x", b"y")])
    assert driven.received.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for field in (b"retry-after: 2\r\n", b"x-edge-outcome: overload\r\n", b"x: y\r\n"):
        assert field in driven.received
    assert after_head(driven).decode() == (
        f"503 Service Unavailable\nToo busy.\nrequest {exchange.request_id}\n"
    )
    request = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n"
    driven, exchange = begin(request)
    exchange.respond_error(503, "Too busy.", "overload")
    assert json.loads(after_head(driven)) == {
        "status": 503, "title": "Too busy.", "outcome": "overload",
        "request_id": exchange.request_id,
    }  # fmt: skip


def test_an_error_after_the_head_aborts() -> None:
    driven, exchange = begin()
    respond(exchange, Body(live=True))
    exchange.respond_error(500, "Too late.", "wall_limit")
    assert driven.transport.aborted
    assert exchange.failed
    exchange.respond_error(500, "Much too late.")
    exchange.abort()


def test_an_error_page_is_not_subject_to_the_guests_limit() -> None:
    driven, exchange = begin(limits=HttpLimits(max_response_bytes=0))
    exchange.respond_error(500, "An error.")
    assert driven.received.startswith(b"HTTP/1.1 500 ")


def test_the_end_is_told_once_with_its_facts_in_place() -> None:
    facts: list[tuple[int, int, bool]] = []
    driven, exchange = begin()
    exchange.on_end = lambda: facts.append((exchange.status, exchange.bytes_out, exchange.failed))
    respond(exchange, body_of(b"abc"), 201)
    exchange.abort()
    driven.connection.connection_lost(None)
    assert facts == [(201, 3, False)]
    assert exchange.response_start_ns >= exchange.started_ns > 0


def test_ending_releases_what_the_sandbox_was_charged() -> None:
    account = Account(Ledger(), 1 << 20)
    driven, exchange = begin(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    exchange.body.adopt(account)
    exchange.on_end = lambda: held.append(account.held)
    held: list[int] = []
    respond(exchange, body_of(b"abc", account=account))
    driven.loop.settle()
    assert held == [0]


def test_a_client_that_leaves_during_a_response_frees_it() -> None:
    account = Account(Ledger(), 1 << 20)
    driven, exchange = begin()
    driven.transport.reads = False
    body = Body(account, live=True)
    respond(exchange, body)
    body.write(bytes(200_000))
    body.write(bytes(200_000))
    driven.loop.settle()
    driven.connection.connection_lost(ConnectionResetError())
    assert exchange.gone
    assert account.held == 0
    body.write(bytes(100))
    driven.loop.settle()


def test_request_ids_are_unique_hexadecimal_and_stable() -> None:
    driven = Driven(hello)
    driven.send(GET * 600)
    found = {exchange.request_id for exchange in driven.exchanges}
    assert len(found) == 600
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in found)
    assert driven.exchanges[0].request_id == driven.exchanges[0].request_id


def test_what_routing_and_logs_need() -> None:
    _, exchange = begin(b"GET /a%2Fb?c HTTP/1.0\r\nHost: A.b:81\r\nX-Y: z\r\n\r\n")
    assert (exchange.host, exchange.path, exchange.target) == (b"a.b", b"/a%2Fb", b"/a%2Fb?c")
    assert (exchange.method, exchange.version) == (b"GET", 10)
    assert exchange.request_header(b"x-y") == b"z"
    assert exchange.request_header(b"x-z") is None
    assert exchange.client_address == bytes([192, 0, 2, 7])
    assert exchange.server_address == bytes([192, 0, 2, 1])
    assert exchange.head.authority == b"a.b:81"
    assert exchange.body.at_eof

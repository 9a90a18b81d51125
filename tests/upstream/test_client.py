"""Requests over real sockets: one after the other, retried, given up, counted."""

from __future__ import annotations

import asyncio

import pytest

from edge.http.body import Body
from edge.model.backend import Backend, HealthCheck, MockHealth
from edge.upstream.fetch import Cause, Health, UpstreamFailed
from tests.support.backends_h1 import (
    Peer,
    answer,
    answering,
    failure,
    fetching,
    ok,
    read_all,
    whole,
)
from tests.support.serving import run, until


def test_a_request_gets_its_response() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(ok(b"hello", b"X-Thing: yes", b"Connection: keep-alive"))
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            got = await f.fetch(uri=b"http://example.com/a/b?c=d", headers=[(b"accept", b"*/*")])
            assert (got.status, got.body) == (200, b"hello")
            assert got.headers == [(b"x-thing", b"yes"), (b"content-length", b"5")]
            assert (got.response.version, got.response.address) == (11, b"\x7f\0\0\1")
            assert got.response.port == f.backend.url.port
            assert got.response.hints == []

    run(main())
    assert heads == [b"GET /a/b?c=d HTTP/1.1\r\nhost: example.com\r\naccept: */*\r\n\r\n"]


def test_one_connection_serves_many_requests_one_after_the_other() -> None:
    async def main() -> None:
        async with fetching(answering(*[ok(b"%d" % number) for number in range(20)])) as f:
            for number in range(20):
                assert (await f.fetch()).body == b"%d" % number
            assert f.accepted == 1
            statistics = f.client.statistics()
            assert (statistics.connections_opened, statistics.connections_reused) == (1, 19)
            assert (statistics.connections_open, statistics.connections_idle) == (1, 1)
            assert (statistics.requests, statistics.responses) == (20, 20)

    run(main())


def test_a_pooled_request_is_written_without_a_turn_of_the_loop() -> None:
    async def main() -> None:
        async with fetching(answering(ok(), ok())) as f:
            await f.fetch()
            tasks = len(asyncio.all_tasks())
            pending = f.send()
            assert len(asyncio.all_tasks()) == tasks
            assert f.client.statistics().connections_idle == 0
            assert (await whole(pending)).body == b"hello"
            assert f.dialer.dials == 1

    run(main())


def test_a_thousand_requests_at_once_are_all_answered() -> None:
    async def script(peer: Peer) -> None:
        while True:
            head = await peer.head()
            await peer.send(ok(head.partition(b" ")[2].partition(b" ")[0]))

    async def main() -> None:
        async with fetching(script) as f:
            pending = [f.send(uri=b"/%d" % number) for number in range(1000)]
            for number, each in enumerate(pending):
                assert (await whole(each)).body == b"/%d" % number
            assert f.client.statistics().responses == 1000
            assert f.client.statistics().connections_idle <= 64

    run(main(), seconds=60)


def test_bytes_that_come_one_by_one_make_the_same_response() -> None:
    responses = [
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + ok(b"one"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: u\r\n\r\n",
    ]

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.head()
            await peer.drip(response)
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            first = await f.fetch()
            assert (first.body, first.response.hints) == (b"one", [(103, [(b"link", b"</a>")])])
            second = await f.fetch()
            assert (second.body, second.response.body.trailers) == (b"hello", [(b"x-t", b"u")])
            assert f.accepted == 1

    run(main())


def test_hints_are_kept_up_to_eight_and_100_is_none() -> None:
    interim = b"".join(b"HTTP/1.1 103 x\r\nX-N: %d\r\n\r\n" % number for number in range(12))

    async def main() -> None:
        async with fetching(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + interim + ok())) as f:
            got = await f.fetch()
            assert [fields for _, fields in got.response.hints] == [
                [(b"x-n", b"%d" % number)] for number in range(8)
            ]

    run(main())


@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_responses_without_a_body_leave_the_connection_in_use(
    method: bytes, response: bytes
) -> None:
    async def main() -> None:
        async with fetching(answering(response, ok())) as f:
            assert (await f.fetch(method)).body == b""
            assert (await f.fetch()).body == b"hello"
            assert f.accepted == 1

    run(main())


def test_a_body_that_ends_with_the_connection_is_read_to_its_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nhel")
        await peer.send(b"lo")

    async def main() -> None:
        async with fetching(script) as f:
            got = await f.fetch()
            assert (got.body, got.response.version) == (b"hello", 10)
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_a_known_length_is_known_before_the_body_is_here() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await release.wait()
        await peer.send(b"llo")

    async def main() -> None:
        async with fetching(script) as f:
            response = await answer(f.send())
            assert response.body.known_length == 5
            release.set()
            assert await read_all(response.body) == b"hello"
            assert response.body.known_length == 0

    run(main())


# Connections that were closed meanwhile ---------------------------------------------------------


async def _once_then_gone(peer: Peer) -> None:
    """Answer one request, take the next and close without a word."""
    await peer.head()
    await peer.send(ok(b"first"))
    await peer.head()


@pytest.mark.parametrize("body", [b"", b"payload"])
def test_an_idempotent_request_on_a_connection_that_ended_is_sent_once_more(body: bytes) -> None:
    async def main() -> None:
        async with fetching(_once_then_gone) as f:
            assert (await f.fetch(b"PUT", body)).body == b"first"
            assert (await f.fetch(b"PUT", body)).body == b"first"
            assert f.accepted == 2
            assert f.client.statistics().retries == 1

    run(main())


def test_other_requests_are_not_sent_twice() -> None:
    async def main() -> None:
        async with fetching(_once_then_gone) as f:
            await f.fetch(b"POST", b"pay")
            error = await failure(f.send(b"POST", b"pay"))
            assert error.cause is Cause.CONNECTION_TERMINATED
            assert f.client.statistics().retries == 0

    run(main())


def test_a_body_that_went_out_as_it_came_is_not_sent_twice() -> None:
    async def main() -> None:
        async with fetching(_once_then_gone) as f:
            await f.fetch()
            body = Body(live=True)
            pending = f.send(b"PUT", body)
            body.write(b"some")
            assert (await failure(pending)).cause is Cause.CONNECTION_TERMINATED

    run(main())


def test_a_fresh_connection_that_ends_is_not_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()

    async def main() -> None:
        async with fetching(script) as f:
            assert (await failure(f.send())).cause is Cause.CONNECTION_TERMINATED
            assert f.dialer.dials == 1

    run(main())


def test_a_retry_that_meets_the_same_end_fails() -> None:
    served = 0

    async def script(peer: Peer) -> None:
        nonlocal served
        await peer.head()
        served += 1
        if served == 1:
            await peer.send(ok())
            await peer.head()

    async def main() -> None:
        async with fetching(script) as f:
            await f.fetch()
            assert (await failure(f.send())).cause is Cause.CONNECTION_TERMINATED
            assert f.accepted == 2

    run(main())


def test_a_connection_that_closed_while_idle_is_not_chosen() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())

    async def main() -> None:
        async with fetching(script) as f:
            await f.fetch()
            await until(lambda: f.client.statistics().connections_open == 0)
            assert (await f.fetch(b"POST", b"x")).body == b"hello"
            assert f.client.statistics().retries == 0

    run(main())


# Giving up --------------------------------------------------------------------------------------


def test_an_abandoned_request_takes_its_connection_with_it() -> None:
    gone = 0

    async def script(peer: Peer) -> None:
        nonlocal gone
        await peer.head()
        await peer.gone()
        gone += 1

    async def main() -> None:
        async with fetching(script) as f:
            pending = f.send()
            await until(lambda: f.accepted)
            pending.abandon()
            assert pending.is_ready
            await until(lambda: gone)
            assert f.client.statistics().connections_open == 0

    run(main())


def test_an_abandoned_dial_is_cancelled_even_before_it_began() -> None:
    async def main() -> None:
        async with fetching(answering()) as f:
            f.send().abandon()
            await until(lambda: f.client.statistics().connections_open == 0)
            f.dialer.gate = asyncio.Event()
            pending = f.send()
            await until(lambda: f.dialer.dials)
            pending.abandon()
            await until(lambda: f.client.statistics().connections_open == 0)
            assert f.accepted == 0

    run(main())


def test_a_response_nobody_took_is_given_up_with_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            pending = f.send()
            await until(lambda: pending.is_ready)
            pending.abandon()
            await until(lambda: f.client.statistics().connections_open == 0)
            assert f.account.held == 0

    run(main())


def test_a_body_nobody_reads_on_is_given_up_with_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            response = await answer(f.send())
            outer = Body(f.account)
            outer.append(response.body)  # as a guest does that adds to it
            outer.discard()
            await until(lambda: f.client.statistics().connections_open == 0)
            assert f.account.held == 0

    run(main())


def test_closing_the_client_fails_what_is_in_flight() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        if b"/body" in head:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            waiting, half = f.send(uri=b"/head"), await answer(f.send(uri=b"/body"))
            await until(lambda: f.accepted == 2)
            f.dialer.gate = asyncio.Event()
            dialing = f.send()
            await until(lambda: f.dialer.dials == 3)
            await f.client.aclose()
            assert (await failure(waiting)).cause is Cause.CONNECTION_TERMINATED
            assert (await failure(dialing)).cause is Cause.CONNECTION_TERMINATED
            assert half.body.error is not None
            assert (await failure(f.send())).cause is Cause.CONNECTION_TERMINATED

    run(main())


# Being told -------------------------------------------------------------------------------------


def test_each_request_is_told_of_once() -> None:
    told: list[tuple[str, Cause | None, int]] = []

    def on_done(backend: Backend, cause: Cause | None, status: int, seconds: float) -> None:
        assert 0 <= seconds < 10
        told.append((backend.name, cause, status))

    async def main() -> None:
        async with fetching(answering(ok(), b"nonsense\r\n\r\n"), on_done=on_done) as f:
            await f.fetch()
            assert (await failure(f.send())).cause is Cause.HTTP_PROTOCOL_ERROR
            assert f.client.statistics().failures == {Cause.HTTP_PROTOCOL_ERROR: 1}

    run(main())
    assert told == [("origin", None, 200), ("origin", Cause.HTTP_PROTOCOL_ERROR, 0)]


def test_watchers_are_called_once_and_not_after_unwatch() -> None:
    calls: list[str] = []

    async def main() -> None:
        async with fetching(answering(ok())) as f:
            pending = f.send()

            def forgotten() -> None:
                calls.append("forgotten")

            pending.watch(forgotten)
            pending.watch(lambda: calls.append("first"))
            pending.unwatch(forgotten)
            pending.unwatch(forgotten)
            assert not pending.is_ready
            await until(lambda: pending.is_ready)
            pending.watch(lambda: calls.append("late"))
            assert (await whole(pending)).status == 200

    run(main())
    assert calls == ["first", "late"]


def test_a_fault_of_the_dialer_fails_the_request_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with fetching(answering()) as f:
            f.dialer.error = ZeroDivisionError("a bug")
            assert (await failure(f.send())).cause is Cause.INTERNAL_ERROR
            f.dialer.error = UpstreamFailed(Cause.DNS_ERROR, "no such name")
            assert (await failure(f.send())).cause is Cause.DNS_ERROR
            assert f.client.statistics().connections_open == 0

    run(main())


# Health -----------------------------------------------------------------------------------------


class _Sick:
    def health(self, service: str, backend: Backend) -> Health:
        assert service == "s"
        return Health.UNHEALTHY if backend.health_check else Health.UNKNOWN


def test_a_backend_that_fails_its_checks_gets_no_request_but_the_checks() -> None:
    async def main() -> None:
        async with fetching(answering(ok())) as f:
            f.client.health_source = _Sick()
            checked = f.other(health_check=HealthCheck())
            assert f.upstream.health(checked) is Health.UNHEALTHY
            error = await failure(f.send(backend=checked))
            assert (error.cause, error.status_hint) == (Cause.DESTINATION_UNAVAILABLE, 503)
            assert f.dialer.dials == 0
            f.upstream = f.client.for_service("s", checks=True)
            assert (await f.fetch(backend=checked)).status == 200

    run(main())


def test_health_that_is_only_told_stops_no_request() -> None:
    async def main() -> None:
        async with fetching(answering(ok())) as f:
            assert f.upstream.health(f.backend) is Health.UNKNOWN
            for told, expected in (
                (MockHealth.HEALTHY, Health.HEALTHY),
                (MockHealth.UNKNOWN, Health.UNKNOWN),
                (MockHealth.UNHEALTHY, Health.UNHEALTHY),
            ):
                assert f.upstream.health(f.other(health=told)) is expected
            assert (await f.fetch(backend=f.other(health=MockHealth.UNHEALTHY))).status == 200

    run(main())

"""HTTP/2 to backends, against a peer scripted with hyper-h2: what works, and what peers may do."""

from __future__ import annotations

import gzip

import pytest
from h2.events import (
    Event,
    RequestReceived,
    SettingsAcknowledged,
    TrailersReceived,
)
from h2.settings import SettingCodes

from edge.errors import Incomplete
from edge.http.body import Body
from edge.upstream.fetch import Cause, UpstreamFailed
from tests.support.backends import on_uvloop
from tests.support.h2_peer import MIB, Served, read, ready, scene, when_asked
from tests.support.serving import until


def silent(served: Served, event: Event) -> None:
    """A server that never answers."""


def count(served: Served, kind: type[Event]) -> int:
    """How many events of a kind the server has seen."""
    return sum(isinstance(each, kind) for each in served.events)


def asked(served: Served) -> dict[bytes, bytes]:
    """The fields of the first request."""
    head = next(each for each in served.events if isinstance(each, RequestReceived))
    return dict(head.headers)


@on_uvloop
async def test_a_request_and_its_response() -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, b"hello", (b"content-type", b"text/plain"), (b"content-length", b"5"))

    async with scene(when_asked(answer)) as here:
        response = await here.fetch(headers=[(b"host", b"a.example"), (b"x-one", b"1")])
        assert (response.status, response.version) == (200, 20)
        assert (b"content-type", b"text/plain") in response.headers
        assert (response.address, response.port) == (bytes((127, 0, 0, 1)), here.port)
        assert await read(response.body) == b"hello"
        fields = asked(here.served)
        assert fields[b":method"] == b"GET"
        assert fields[b":scheme"] == b"http"
        assert fields[b":authority"] == b"a.example"
        assert fields[b":path"] == b"/path?q"
        assert fields[b"x-one"] == b"1"
        assert fields[b"te"] == b"trailers"
        assert b"host" not in fields


@on_uvloop
async def test_fields_of_one_hop_are_not_sent_and_do_not_come_back() -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, b"", (b"proxy-connection", b"x"))

    async with scene(when_asked(answer)) as here:
        sent = [(b"connection", b"x-drop"), (b"x-drop", b"1"), (b"upgrade", b"h2c"), (b"x", b"1")]
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch(headers=[(b"host", b"a.example"), *sent])
        assert caught.value.cause is Cause.H2_ERROR, "a field that HTTP/2 forbids"
        fields = asked(here.served)
        assert fields[b"x"] == b"1"
        assert not fields.keys() & {b"connection", b"x-drop", b"upgrade"}


@on_uvloop
async def test_many_requests_share_one_connection() -> None:
    waiting: list[int] = []

    def answer(served: Served, stream: int) -> None:
        waiting.append(stream)
        if len(waiting) == 50:
            for each in reversed(waiting):
                served.answer(each, b"%d" % each)

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        pending = [here.send(to) for _ in range(50)]
        bodies = [await read((await ready(each)).body) for each in pending]
        assert len(set(bodies)) == 50
        assert here.client.statistics().connections_opened == 1
        assert here.client.statistics().connections_idle == 1


@on_uvloop
async def test_above_what_the_peer_allows_another_connection_is_made() -> None:
    def script(served: Served, event: Event) -> None:
        if isinstance(event, RequestReceived) and len(served.requests) == 1:
            served.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})

    async with scene(script) as here:
        to = here.backend()
        here.send(to)
        await until(lambda: here.connections and here.served.requests)
        await until(lambda: count(here.served, SettingsAcknowledged) == 2)
        for _ in range(3):
            here.send(to)
        await until(lambda: len(here.connections) == 2)
        await until(lambda: [len(each.requests) for each in here.connections] == [2, 2])


@on_uvloop
async def test_a_request_body_goes_out_as_it_is_written_with_its_trailers() -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, served.bodies[stream])

    async with scene(when_asked(answer)) as here:
        body = Body(live=True)
        pending = here.send(method=b"POST", body=body)
        await until(lambda: here.connections and here.served.requests)
        body.write(b"one ")
        await until(lambda: here.served.bodies.get(1) == b"one ")
        body.write(b"two")
        body.finish([(b"grpc-status", b"0")])
        response = await ready(pending)
        assert await read(response.body) == b"one two"
        (trailers,) = [each for each in here.served.events if isinstance(each, TrailersReceived)]
        assert dict(trailers.headers) == {b"grpc-status": b"0"}


@on_uvloop
async def test_trailers_and_early_hints_arrive() -> None:
    def answer(served: Served, stream: int) -> None:
        served.head(stream, 100)
        for i in range(12):
            served.head(stream, 103, (b"link", b"</%d>" % i))
        served.head(stream, 200)
        served.h2.send_data(stream, b"body")
        trailers = [(b"grpc-status", b"0"), (b"content-length", b"4")]
        served.h2.send_headers(stream, trailers, end_stream=True)

    async with scene(when_asked(answer)) as here:
        response = await here.fetch()
        assert [status for status, _ in response.hints] == [103] * 8
        assert await read(response.body) == b"body"
        assert response.body.trailers == [(b"grpc-status", b"0")]


@on_uvloop
async def test_gzip_is_undone_when_asked_for() -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, gzip.compress(b"plain" * 1000), (b"content-encoding", b"gzip"))

    async with scene(when_asked(answer)) as here:
        response = await here.fetch(auto_decompress=True)
        assert await read(response.body) == b"plain" * 1000
        assert b"content-encoding" not in dict(response.headers)


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
@on_uvloop
async def test_responses_without_a_body_have_none(method: bytes, status: int) -> None:
    def answer(served: Served, stream: int) -> None:
        served.head(stream, status, (b"content-length", b"77"), end=True)

    async with scene(when_asked(answer)) as here:
        response = await here.fetch(method=method)
        assert response.status == status
        assert await read(response.body) == b""


@on_uvloop
async def test_a_response_before_the_request_is_over_ends_the_request() -> None:
    def script(served: Served, event: Event) -> None:
        if isinstance(event, RequestReceived):
            served.answer(event.stream_id, b"no need")

    async with scene(script) as here:
        body = Body(live=True)
        response = await here.fetch(method=b"POST", body=body)
        assert await read(response.body) == b"no need"
        await until(lambda: here.served.resets() == [(1, 8)])
        body.write(bytes(1000))
        assert body.held == 0, "bytes of a request that is over are kept"


@on_uvloop
async def test_giving_up_resets_the_stream_alone() -> None:
    def answer(served: Served, stream: int) -> None:
        if stream > 1:
            served.answer(stream)

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        pending = here.send(to)
        await until(lambda: here.connections and here.served.requests)
        pending.abandon()
        await until(lambda: here.served.resets() == [(1, 8)])
        assert (await here.fetch(to)).status == 200
        assert here.client.statistics().connections_opened == 1


@on_uvloop
async def test_a_request_body_that_breaks_off_resets_the_stream() -> None:
    async with scene(silent) as here:
        body = Body(live=True)
        pending = here.send(method=b"POST", body=body)
        await until(lambda: here.connections and here.served.requests)
        body.write(b"half")
        body.fail(Incomplete("the client went away"))
        with pytest.raises(UpstreamFailed, match="broke off") as caught:
            await ready(pending)
        assert caught.value.cause is Cause.CONNECTION_TERMINATED
        await until(lambda: here.served.resets() == [(1, 8)])


# Resets, goodbyes, silence -----------------------------------------------------------------


@on_uvloop
async def test_a_reset_fails_the_request_with_its_code() -> None:
    async with scene(when_asked(lambda served, stream: served.h2.reset_stream(stream, 2))) as here:
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch()
        assert caught.value.cause is Cause.H2_ERROR
        assert caught.value.h2_error == (3, 2)


@on_uvloop
async def test_a_reset_within_a_body_fails_the_body() -> None:
    def answer(served: Served, stream: int) -> None:
        served.head(stream)
        served.h2.send_data(stream, b"half")
        served.h2.reset_stream(stream, 2)

    async with scene(when_asked(answer)) as here:
        response = await here.fetch()
        with pytest.raises(Incomplete, match="error 2"):
            await read(response.body)


@on_uvloop
async def test_a_refused_stream_is_tried_once_more_whatever_its_method() -> None:
    def answer(served: Served, stream: int) -> None:
        if stream == 1 and len(here.connections) == 1:
            served.h2.reset_stream(stream, 7)
        else:
            served.answer(stream, served.bodies[stream])

    async with scene(when_asked(answer)) as here:
        response = await here.fetch(method=b"POST", body=b"again")
        assert await read(response.body) == b"again"
        assert here.client.statistics().retries == 1


@on_uvloop
async def test_a_peer_that_refuses_everything_is_not_asked_for_ever() -> None:
    async with scene(when_asked(lambda served, stream: served.h2.reset_stream(stream, 7))) as here:
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch()
        assert caught.value.h2_error == (3, 7)
        assert sum(len(each.requests) for each in here.connections) == 2


def goaway(last: int, code: int = 0) -> bytes:
    payload = last.to_bytes(4) + code.to_bytes(4)
    return len(payload).to_bytes(3) + bytes((7, 0)) + bytes(4) + payload


@on_uvloop
async def test_a_polite_goodbye_lets_streams_end_and_later_ones_move_to_a_new_connection() -> None:
    def answer(served: Served, stream: int) -> None:
        if len(here.connections) > 1:
            served.answer(stream, b"second")
        elif stream == 3:
            served.raw(goaway(1))  # 3 was never looked at
            served.answer(1, b"first")

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        pending = [here.send(to, method=b"POST") for _ in range(2)]
        bodies = [await read((await ready(each)).body) for each in pending]
        assert bodies == [b"first", b"second"]
        await until(lambda: here.connections[0].lost)
        assert here.client.statistics().connections_open == 1


@on_uvloop
async def test_a_connection_that_ends_fails_what_it_carries() -> None:
    def answer(served: Served, stream: int) -> None:
        if stream == 1:
            served.head(1)
            served.h2.send_data(1, b"half")
        else:
            served.flush()
            assert served.transport is not None
            served.transport.close()

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        first = await here.fetch(to, method=b"POST")
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch(to, method=b"POST", body=b"x")
        assert caught.value.cause is Cause.CONNECTION_TERMINATED
        with pytest.raises(Incomplete):
            await read(first.body)
        assert here.client.statistics().connections_open == 0


@on_uvloop
async def test_no_head_in_time_is_a_timeout_and_a_silent_connection_is_not_used_again() -> None:
    async with scene(silent) as here:
        to = here.backend(first_byte_timeout=0.1)
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch(to)
        assert caught.value.cause is Cause.HTTP_RESPONSE_TIMEOUT
        here.send(to)
        await until(lambda: len(here.connections) == 2)


@on_uvloop
async def test_silence_within_a_body_fails_it_unless_its_reader_is_the_slow_one() -> None:
    def answer(served: Served, stream: int) -> None:
        served.head(stream)
        size = 16384 if stream == 1 else 1
        while stream == 1 and served.h2.local_flow_control_window(1) > 0:
            served.h2.send_data(1, bytes(min(size, served.h2.local_flow_control_window(1))))
        if stream > 1:
            served.h2.send_data(stream, b"x")

    async with scene(when_asked(answer)) as here:
        to = here.backend(between_bytes_timeout=0.1)
        full = await here.fetch(to)
        await until(lambda: full.body.is_full)
        starved = await here.fetch(to)
        with pytest.raises(Incomplete, match=r"0\.1 s"):
            await read(starved.body)
        assert full.body.error is None
        full.body.discard()


@on_uvloop
async def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    async with scene(when_asked(Served.answer)) as here:
        response = await here.fetch(here.backend(keep_alive=0.05))
        assert await read(response.body) == b"ok"
        await until(lambda: here.served.lost)
        assert here.client.statistics().connections_open == 0


@pytest.mark.parametrize("settings", [{"keep_alive": 0.0}, {"max_use": 1}])
@on_uvloop
async def test_a_connection_for_one_use_carries_one_request(settings: dict[str, float]) -> None:
    async with scene(when_asked(Served.answer)) as here:
        to = here.backend(**settings)
        for pending in [here.send(to) for _ in range(3)]:
            await read((await ready(pending)).body)
        await until(lambda: all(each.lost for each in here.connections))
        assert [len(each.requests) for each in here.connections] == [1, 1, 1]


@on_uvloop
async def test_an_upgrade_is_not_possible() -> None:
    from edge.http.body import Account, Ledger
    from edge.upstream.fetch import UpstreamRequest

    async with scene(silent) as here:
        request = UpstreamRequest(
            here.backend(), b"GET", b"/", [(b"upgrade", b"websocket")], Body(),
            Account(Ledger(), MIB), upgrade=True,
        )  # fmt: skip
        with pytest.raises(UpstreamFailed) as caught:
            await ready(here.upstream.send(request))
        assert caught.value.cause is Cause.HTTP_UPGRADE_FAILED

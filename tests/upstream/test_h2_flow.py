"""Flow control of HTTP/2, both ways: no side waits for more than it must, none holds more."""

from __future__ import annotations

from functools import partial

import pytest
from h2.events import DataReceived, Event, PingAckReceived, StreamEnded, WindowUpdated

from edge.errors import LimitExceeded
from edge.http.body import Body
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.h2_protocol import WINDOW
from tests.support.backends import on_uvloop
from tests.support.h2_peer import MIB, Served, read, ready, scene, when_asked
from tests.support.serving import until


def silent(served: Served, event: Event) -> None:
    """A server that never answers."""


def has_replied(served: Served, number: int) -> bool:
    """Whether the client has answered a PING."""
    replies = [each for each in served.events if isinstance(each, PingAckReceived)]
    return any(reply.ping_data[-1] == number for reply in replies)


def is_broken(body: Body) -> bool:
    """Whether no more bytes will come."""
    return body.error is not None


def is_held(body: Body, count: int) -> bool:
    """Whether so many bytes wait for their reader."""
    return body.held >= count


@on_uvloop
async def test_a_large_request_body_waits_for_the_window_of_its_peer() -> None:
    body = bytes(range(256)) * 4096 * 3  # 3 MiB
    opened = False

    def script(served: Served, event: Event) -> None:
        if isinstance(event, DataReceived) and opened:
            served.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if isinstance(event, StreamEnded):
            served.answer(event.stream_id)

    async with scene(script) as here:
        pending = here.send(method=b"POST", body=body)
        await until(lambda: here.connections and len(here.served.bodies.get(1, b"")) == 65535)
        opened = True
        served = here.served
        served.h2.acknowledge_received_data(65535, 1)
        served.flush()
        assert (await ready(pending)).status == 200
        assert served.bodies[1] == body


@on_uvloop
async def test_a_peer_that_takes_no_more_of_a_body_is_given_up() -> None:
    async with scene(silent) as here:
        to = here.backend(first_byte_timeout=0.1)
        pending = here.send(to, method=b"POST", body=bytes(100_000))
        with pytest.raises(UpstreamFailed, match="took no more") as caught:
            await ready(pending)
        assert caught.value.cause is Cause.HTTP_RESPONSE_TIMEOUT
        await until(lambda: here.served.resets() == [(1, 8)])


@on_uvloop
async def test_a_large_response_is_read_as_fast_as_its_reader_and_no_faster() -> None:
    total = 4 * MIB
    left = {"bytes": total}

    def pour(served: Served, stream: int) -> None:
        while left["bytes"]:
            size = min(16384, served.h2.local_flow_control_window(stream), left["bytes"])
            if size <= 0:
                return
            left["bytes"] -= size
            served.h2.send_data(stream, bytes(size), end_stream=not left["bytes"])

    def script(served: Served, event: Event) -> None:
        if isinstance(event, StreamEnded):
            served.head(event.stream_id)
            pour(served, event.stream_id)
        elif isinstance(event, WindowUpdated) and event.stream_id:
            pour(served, event.stream_id)

    async with scene(script) as here:
        response = await here.fetch()
        await until(lambda: response.body.held >= WINDOW)
        for i in range(8):  # after each reply, every window that was given has arrived
            here.served.h2.ping(bytes(7) + bytes((i,)))
            here.served.flush()
            await until(partial(has_replied, here.served, i))
        assert total - left["bytes"] <= 2 * WINDOW, "the peer may send what nobody reads"
        received = 0
        while not response.body.at_eof:
            await response.body.wait_readable()
            received += len(response.body.read(65536))
            assert response.body.held <= 2 * WINDOW
        assert received == total


@on_uvloop
async def test_a_slow_reader_does_not_stop_the_others() -> None:
    def answer(served: Served, stream: int) -> None:
        if stream == 1:
            served.head(stream)
            while (room := served.h2.local_flow_control_window(stream)) > 0:
                served.h2.send_data(stream, bytes(min(room, 16384)))
        else:
            served.answer(stream, bytes(10_000))

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        slow = await here.fetch(to)
        await until(lambda: slow.body.is_full)
        for _ in range(100):
            assert len(await read((await here.fetch(to)).body)) == 10_000
        assert here.client.statistics().connections_opened == 1
        slow.body.discard()
        await until(lambda: here.served.resets() == [(1, 8)])


@on_uvloop
async def test_what_nobody_read_is_given_back_to_the_window_of_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pour(served: Served, stream: int) -> None:
        while (room := served.h2.local_flow_control_window(stream)) > 0:
            served.h2.send_data(stream, bytes(min(room, 16384)))

    def script(served: Served, event: Event) -> None:
        if isinstance(event, StreamEnded):
            served.head(event.stream_id)
            pour(served, event.stream_id)
        elif isinstance(event, WindowUpdated) and event.stream_id in served.requests[-1:]:
            pour(served, event.stream_id)

    monkeypatch.setattr("edge.upstream.h2.MAX_STREAMS", 4)  # so four windows are all there is
    async with scene(script) as here:
        to = here.backend()
        for turn in range(16):
            body = (await here.fetch(to)).body
            await until(partial(is_held, body, WINDOW + WINDOW // 4))
            if turn % 2:
                here.served.h2.reset_stream(here.served.requests[-1])
                here.served.flush()
                await until(partial(is_broken, body))
            body.discard()
        assert here.client.statistics().connections_opened == 1


@on_uvloop
async def test_bytes_beyond_what_a_sandbox_may_hold_end_the_stream_and_not_the_connection() -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, bytes(16_000))

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        response = await here.fetch(to, limit=8000)
        with pytest.raises(LimitExceeded):
            await read(response.body)
        assert len(await read((await here.fetch(to)).body)) == 16_000
        assert here.client.statistics().connections_opened == 1

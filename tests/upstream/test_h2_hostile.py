"""HTTP/2 peers that break the rules, or keep them and mean harm.  One connection pays, no more."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest
from h2.events import Event
from hpack import Encoder
from hpack.exceptions import HPACKDecodingError

from edge.errors import Incomplete
from edge.http.upstream_head import MAX_HEAD
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.h2 import FRAMES_PER_TURN, MAX_NOISE
from edge.upstream.h2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PUSH_PROMISE,
    SETTINGS,
    BadFrames,
    BoundedDecoder,
    FrameCutter,
)
from edge.upstream.h2_protocol import WINDOW
from tests.support.backends import on_uvloop, peer
from tests.support.h2_peer import Served, frame, read, ready, scene, when_asked
from tests.support.serving import until

PING, RST, PRIORITY, WINDOW_UPDATE = 6, 3, 2, 8
ANY = range(1 << 31)


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """A header block that uses no table."""
    return bytes(Encoder().encode(list(fields), huffman=False))


OK = block((b":status", b"200"))


async def failure(hostile: Callable[[int], bytes]) -> UpstreamFailed:
    """What a request gets whose answer is these bytes; the server must be rid of the client."""

    def answer(served: Served, stream: int) -> None:
        served.raw(hostile(stream))

    async with scene(when_asked(answer)) as here:
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch()
        await until(lambda: here.served.lost)
        assert here.client.statistics().connections_open == 0
    return caught.value


# Floods ------------------------------------------------------------------------------------

MANY = MAX_NOISE + FRAMES_PER_TURN + 1
FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda stream: frame(PING, 0, 0, bytes(8)) * MANY,
    "ping replies": lambda stream: frame(PING, 1, 0, bytes(8)) * MANY,
    "settings": lambda stream: frame(SETTINGS, 0, 0) * MANY,
    "empty data": lambda stream: frame(HEADERS, 4, stream, OK) + frame(DATA, 0, stream) * MANY,
    "priority": lambda stream: frame(PRIORITY, 0, stream, bytes(5)) * MANY,
    "window updates": lambda stream: frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * MANY,
    "resets of nothing": lambda stream: frame(RST, 0, stream + 2, bytes(4)) * MANY,
    "unknown frames": lambda stream: frame(200, 0, 0, b"what") * MANY,
}


@pytest.mark.parametrize(
    "flood", [name for name in FLOODS if name not in ("empty data", "resets of nothing")]
)
@on_uvloop
async def test_a_flood_of_frames_that_carry_nothing_ends_the_connection(flood: str) -> None:
    caught = await failure(FLOODS[flood])
    assert caught.cause is Cause.H2_ERROR
    assert caught.h2_error == (GOAWAY, 11)
    assert "without content" in str(caught)


@on_uvloop
async def test_a_flood_of_empty_data_ends_the_connection() -> None:
    def answer(served: Served, stream: int) -> None:
        served.raw(FLOODS["empty data"](stream))

    async with scene(when_asked(answer)) as here:
        response = await here.fetch()
        with pytest.raises(Incomplete, match="without content"):
            await read(response.body)
        await until(lambda: here.served.lost)


@on_uvloop
async def test_data_for_a_stream_that_was_given_up_counts_as_nothing() -> None:
    def script(served: Served, event: Event) -> None:
        if len(served.resets()) == 1 and not served.quiet:
            served.quiet = True
            served.raw(frame(DATA, 0, 1, b"x") * MANY)

    async with scene(script) as here:
        pending = here.send()
        await until(lambda: here.connections and here.served.requests)
        pending.abandon()
        await until(lambda: here.served.lost)


@on_uvloop
async def test_pings_at_a_human_pace_harm_nobody() -> None:
    def answer(served: Served, stream: int) -> None:
        served.raw(frame(PING, 0, 0, bytes(8)) * 100)
        served.answer(stream)

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        for _ in range(MAX_NOISE // 100 + 10):
            # Answers make up for a little; the rest is below what a flood is.
            if not here.connections or len(here.served.requests) < 45:
                assert await read((await here.fetch(to)).body) == b"ok"
        assert len(here.connections) == 1


@on_uvloop
async def test_other_work_goes_on_during_a_flood() -> None:
    turns = 0

    def answer(served: Served, stream: int) -> None:
        served.raw(frame(PING, 0, 0, bytes(8)) * (MAX_NOISE - 500))
        served.answer(stream)

    async with scene(when_asked(answer)) as here:
        pending = here.send()
        while not pending.is_ready:
            turns += 1
            await asyncio.sleep(0)
        assert turns > (MAX_NOISE - 500) / FRAMES_PER_TURN / 2


# Heads -------------------------------------------------------------------------------------


@on_uvloop
async def test_a_header_block_without_end_is_refused() -> None:
    piece = b"\0" * 16_000
    flood = b"".join(frame(CONTINUATION, 0, 1, piece) for _ in range(6))
    caught = await failure(lambda stream: frame(HEADERS, 0, stream, piece) + flood)
    assert "header block" in str(caught)


@on_uvloop
async def test_empty_continuations_without_end_are_refused() -> None:
    flood = b"".join(frame(CONTINUATION, 0, 1) for _ in range(100))
    caught = await failure(lambda stream: frame(HEADERS, 0, stream) + flood)
    assert caught.cause is Cause.H2_ERROR


@on_uvloop
async def test_a_small_block_that_unfolds_to_a_huge_head_is_refused() -> None:
    encoder = Encoder()
    fields = [(b":status", b"200"), *[(b"bomb", b"x" * 4000)] * 100]
    small = bytes(encoder.encode(fields, huffman=False))
    assert len(small) < 5000
    caught = await failure(lambda stream: frame(HEADERS, 4, stream, small))
    assert caught.cause is Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE


@on_uvloop
async def test_more_fields_than_are_allowed_fail_the_stream_alone() -> None:
    def answer(served: Served, stream: int) -> None:
        fields = [(b"x%d" % i, b"") for i in range(513)] if stream == 1 else []
        served.answer(stream, b"ok", *fields)

    async with scene(when_asked(answer)) as here:
        to = here.backend()
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch(to)
        assert caught.value.cause is Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE
        assert (await here.fetch(to)).status == 200
        assert len(here.connections) == 1


@on_uvloop
async def test_interim_responses_without_end_are_refused() -> None:
    def answer(served: Served, stream: int) -> None:
        for _ in range(MAX_HEAD // 1000 + 1):
            served.head(stream, 103, (b"link", b"x" * 1000))

    async with scene(when_asked(answer)) as here:
        with pytest.raises(UpstreamFailed, match="interim") as caught:
            await here.fetch()
        assert caught.value.cause is Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b":status", b"20")],
        [(b":status", b"2000")],
        [(b":status", b"abc")],
        [(b":status", b"999")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b":path", b"/")],
        [(b"a", b"b"), (b":status", b"200")],
        [(b":status", b"200"), (b"Upper", b"x")],
        [(b":status", b"200"), (b"a b", b"x")],
        [(b":status", b"200"), (b"", b"x")],
        [(b":status", b"200"), (b"a", b"x\r\nset-cookie: y")],
        [(b":status", b"200"), (b"a", b"x\0")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"content-length", b"x")],
        [(b":status", b"101")],
    ],
)
@on_uvloop
async def test_a_malformed_head_is_never_passed_on(fields: list[tuple[bytes, bytes]]) -> None:
    def answer(served: Served, stream: int) -> None:
        served.raw(frame(HEADERS, 5, stream, block(*fields)))

    async with scene(when_asked(answer)) as here:
        with pytest.raises(UpstreamFailed) as caught:
            await here.fetch()
        assert caught.value.cause in (
            Cause.H2_ERROR,
            Cause.HTTP_PROTOCOL_ERROR,
            Cause.HTTP_RESPONSE_STATUS_INVALID,
        )


@pytest.mark.parametrize("length", [3, 10])
@on_uvloop
async def test_a_body_of_another_length_than_was_said_fails(length: int) -> None:
    def answer(served: Served, stream: int) -> None:
        served.answer(stream, b"five!", (b"content-length", b"%d" % length))

    async with scene(when_asked(answer)) as here:
        with pytest.raises((Incomplete, UpstreamFailed), match="bytes"):
            await read((await here.fetch()).body)


# Frames ------------------------------------------------------------------------------------

BROKEN: dict[str, Callable[[int], bytes]] = {
    "a frame that is too large": lambda stream: frame(DATA, 0, stream, bytes(16_385)),
    "a push": lambda stream: frame(PUSH_PROMISE, 4, stream, b"\0\0\0\2" + OK),
    "a stream of its own": lambda stream: frame(HEADERS, 4, 2, OK),
    "data before a head": lambda stream: frame(DATA, 0, stream, b"x"),
    "data for a stream that never was": lambda stream: frame(DATA, 0, 99, b"x"),
    "a window beyond bounds": lambda stream: frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "a window that does not grow": lambda stream: frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "a continuation of nothing": lambda stream: frame(CONTINUATION, 4, stream, OK),
    "a block that is interrupted": lambda stream: (
        frame(HEADERS, 0, stream, OK) + frame(PING, 0, 0, bytes(8))
    ),
    "a goaway within a block": lambda stream: (
        frame(HEADERS, 0, stream, OK) + frame(GOAWAY, 0, 0, bytes(8))
    ),
    "settings of a bad size": lambda stream: frame(SETTINGS, 0, 0, bytes(5)),
    "settings that allow no frame": lambda stream: frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
    "a table that was not allowed": lambda stream: frame(HEADERS, 4, stream, b"\x3f\xff\xff\x7f"),
    "table updates": lambda stream: frame(HEADERS, 4, stream, b"\x20" * 10 + OK),
    "hpack nonsense": lambda stream: frame(HEADERS, 4, stream, b"\xff\xff\xff\xff\xff\x7f"),
    "padding beyond the frame": lambda stream: frame(DATA, 8, stream, b"\xff"),
    "a goaway without a code": lambda stream: frame(GOAWAY, 0, 0, b"\0\0"),
    "more than the window": lambda stream: (
        frame(HEADERS, 4, stream, OK)
        + frame(DATA, 0, stream, bytes(16_384)) * (WINDOW // 16_384 * 2 + 50)
    ),
}


@pytest.mark.parametrize("broken", [name for name in BROKEN if name != "more than the window"])
@on_uvloop
async def test_frames_that_break_http2_fail_the_request(broken: str) -> None:
    caught = await failure(BROKEN[broken])
    assert caught.cause is Cause.H2_ERROR
    assert caught.h2_error is not None


@on_uvloop
async def test_more_bytes_than_the_window_has_fail_the_body() -> None:
    def answer(served: Served, stream: int) -> None:
        served.raw(BROKEN["more than the window"](stream))

    async with scene(when_asked(answer)) as here:
        response = await here.fetch()
        await until(lambda: response.body.error is not None)
        assert response.body.held <= 2 * WINDOW
        with pytest.raises(Incomplete):
            await read(response.body)


@on_uvloop
async def test_a_server_of_http1_is_told_from_one_of_http2() -> None:
    async def speak_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SM\r\n\r\n")
        kind = -1
        while kind != HEADERS:  # the request is here
            head = await reader.readexactly(9)
            kind = head[3]
            await reader.readexactly(int.from_bytes(head[:3]))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read(100)

    async with scene(lambda served, event: None) as here, peer(speak_http1) as port:
        here.port = port
        with pytest.raises(UpstreamFailed, match="does not speak HTTP/2") as caught:
            await ready(here.send())
        assert caught.value.cause is Cause.HTTP_PROTOCOL_ERROR


@on_uvloop
async def test_a_peer_that_makes_our_table_large_gets_a_small_one() -> None:
    def script(served: Served, event: Event) -> None:
        if served.requests and not served.quiet:
            served.quiet = True
            served.raw(frame(SETTINGS, 0, 0, b"\0\1\x7f\xff\xff\xff"))
        when_asked(Served.answer)(served, event)

    async with scene(script) as here:
        to = here.backend()
        for i in range(20):
            fields = [(b"host", b"a.example"), (b"x-%d" % i, b"y" * 1000)]
            assert (await here.fetch(to, headers=fields)).status == 200
        (link,) = here.client.pool.links
        table = link._protocol.encoder.header_table  # type: ignore[attr-defined]
        assert table.maxsize == 4096
        assert table._current_size <= 4096


# The cutter --------------------------------------------------------------------------------

FIRST = frame(SETTINGS, 0, 0)


def test_frames_come_out_whole_however_they_come_in() -> None:
    stream = (
        FIRST + frame(HEADERS, 4, 1, OK) + frame(DATA, 1, 1, b"body") + frame(PING, 0, 0, bytes(8))
    )
    for size in (1, 2, 3, 7, 9, 10, len(stream)):
        cutter, found, carrying, noise = FrameCutter(), b"", 0, 0
        for at in range(0, len(stream), size):
            cutter.feed(stream[at : at + size])
            cut = cutter.cut(100, ANY)
            found += cut.data
            carrying += cut.carrying
            noise += cut.noise
        assert (found, carrying, noise) == (stream, 2, 2)


def test_a_turn_has_an_end() -> None:
    cutter = FrameCutter()
    cutter.feed(FIRST * 10)
    cut = cutter.cut(4, ANY)
    assert (cut.data, cut.more) == (FIRST * 4, True)
    cut = cutter.cut(100, ANY)
    assert (cut.data, cut.more) == (FIRST * 6, False)


def test_a_goaway_is_taken_out_and_what_follows_it_is_kept() -> None:
    cutter = FrameCutter()
    cutter.feed(FIRST + frame(GOAWAY, 0, 0, b"\x80\0\0\5\0\0\0\1bye") + FIRST)
    cut = cutter.cut(100, ANY)
    assert (cut.data, cut.goaway, cut.more) == (FIRST, (5, 1), True)
    assert cutter.cut(100, ANY).data == FIRST


def test_a_large_frame_is_refused_before_its_content_has_come() -> None:
    cutter = FrameCutter()
    cutter.feed(FIRST + frame(DATA, 0, 1, bytes(20_000))[:9])
    with pytest.raises(BadFrames, match="20000 bytes"):
        cutter.cut(100, ANY)


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 ", frame(SETTINGS, 1, 0), frame(PING, 0, 0, bytes(8))]
)
def test_the_first_frame_must_be_settings(first: bytes) -> None:
    cutter = FrameCutter()
    cutter.feed(first)
    with pytest.raises(BadFrames, match="does not speak"):
        cutter.cut(100, ANY)


def test_two_updates_of_the_table_are_taken_and_three_are_not() -> None:
    decoder = BoundedDecoder(max_header_list_size=MAX_HEAD)
    assert list(decoder.decode(b"\x20\x3f\xe1\x1f" + OK, raw=True)) == [(b":status", b"200")]
    with pytest.raises(HPACKDecodingError):
        decoder.decode(b"\x20\x3f\xe1\x1f\x20" + OK, raw=True)


@on_uvloop
async def test_the_deepest_block_fits_in_a_workers_stack() -> None:
    # The library recurses once per continuation, and workers have a low limit for that.
    before = sys.getrecursionlimit()
    pieces = [frame(CONTINUATION, 0, 1) for _ in range(62)]

    def answer(served: Served, stream: int) -> None:
        sys.setrecursionlimit(200)
        served.raw(frame(HEADERS, 0, 1) + b"".join(pieces) + frame(CONTINUATION, 4, 1, OK))

    try:
        async with scene(when_asked(answer)) as here:
            assert (await here.fetch()).status == 200
    finally:
        sys.setrecursionlimit(before)

"""Backends that refuse, lie, stall, drip and cheat: the right cause, and nothing is left behind.

`fetching` counts sockets, tasks and deadlines after each of these.
"""

from __future__ import annotations

import asyncio

import pytest

from edge.errors import Failed, Incomplete, LimitExceeded
from edge.http.body import HIGH_WATER, Account, Body
from edge.upstream.connection import MAX_INTERIM
from edge.upstream.fetch import Cause, UpstreamFailed
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

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def test_a_refused_connection_says_so() -> None:
    async def main() -> None:
        async with fetching(answering()) as f:
            port = f.backend.url.port
        async with fetching(answering()) as f:  # nobody listens on the first port any more
            other = f.other(url=type(f.backend.url)(False, "127.0.0.1", port))
            error = await failure(f.send(backend=other))
            assert (error.cause, error.status_hint) == (Cause.CONNECTION_REFUSED, 502)

    run(main())


def test_a_reset_before_the_head_says_so() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async def main() -> None:
        async with fetching(script) as f:
            error = await failure(f.send())
            assert error.cause is Cause.CONNECTION_TERMINATED
            assert "backend origin (127.0.0.1:" in str(error)
            assert "ConnectionResetError" in str(error)

    run(main())


HEADS_THAT_END = [
    b"HTTP/1.1 200 O",
    OK + b"Content-Le",
    b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200",
]


@pytest.mark.parametrize("sent", HEADS_THAT_END)
def test_a_head_that_breaks_off_is_incomplete(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(sent)

    async def main() -> None:
        async with fetching(script) as f:
            assert (await failure(f.send())).cause is Cause.HTTP_INCOMPLETE_RESPONSE

    run(main())


NONSENSE = [
    (b"SSH-2.0-OpenSSH_9.2\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (b"\0\0\0\0\0\0\0\0", Cause.HTTP_PROTOCOL_ERROR),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (b"HTTP/2 200\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (b"HTTP/1.2 200 OK\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (b"HTTP/1.1 20 OK\r\n\r\n", Cause.HTTP_RESPONSE_STATUS_INVALID),
    (b"HTTP/1.1 2000 OK\r\n\r\n", Cause.HTTP_RESPONSE_STATUS_INVALID),
    (b"HTTP/1.1 abc OK\r\n\r\n", Cause.HTTP_RESPONSE_STATUS_INVALID),
    (b"HTTP/1.1 099 OK\r\n\r\n", Cause.HTTP_RESPONSE_STATUS_INVALID),
    (OK + b"A: b\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"A: b\rc\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"A: \0\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"A: b\r\n folded\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"A : b\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"no colon\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"Content-Length: +5\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", Cause.HTTP_PROTOCOL_ERROR),
    (OK + b"A: b\r\n" * 513 + b"\r\n", Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE),
    (OK + b"A: " + b"b" * 69_000, Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE),
    (OK + b"A: " + b"b" * 69_000 + b"\r\n\r\n", Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE),
    (b"HTTP/1.1 103 x\r\n\r\n" * 5000, Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE),
]


@pytest.mark.parametrize(("sent", "cause"), NONSENSE)
def test_nonsense_fails_the_request_and_ends_the_connection(sent: bytes, cause: Cause) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(sent)
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            assert (await failure(f.send())).cause is cause
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


# Bodies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        OK + b"Content-Length: 9\r\n\r\nshort",
        CHUNKED + b"5\r\nshort\r\n",
        CHUNKED + b"9\r\nshort",
        CHUNKED + b"5\r\nshort\r\n0\r\n",
        CHUNKED + b"5\r\nshort\r\n0\r\nX-Trailer: y\r\n",
    ],
)
def test_a_body_that_breaks_off_is_no_whole_body(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(sent)

    async def main() -> None:
        async with fetching(script) as f:
            body = (await answer(f.send())).body
            await until(lambda: body.error is not None)
            assert body.read(100) == b"short"
            with pytest.raises(Incomplete):
                body.read(100)
            assert f.client.statistics().bodies_broken == 1

    run(main())


@pytest.mark.parametrize("sent", [b"5\r\nshort\r\nxyz\r\n", b"5\r\nshortXX", b"-1\r\n"])
def test_a_broken_chunk_fails_the_body_and_ends_the_connection(sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + sent)
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            body = (await answer(f.send())).body
            with pytest.raises(Failed, match="chunk"):
                await read_all(body)
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_a_reset_within_a_body_that_ends_by_closing_is_not_its_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"\r\nsome")
        await read_on.wait()
        peer.reset()

    read_on = asyncio.Event()

    async def main() -> None:
        async with fetching(script) as f:
            body = (await answer(f.send())).body
            await body.wait_readable()
            assert body.read(100) == b"some"
            read_on.set()
            with pytest.raises(Incomplete):
                await read_all(body)

    run(main())


@pytest.mark.parametrize(
    "extra", [b"X", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]
)
@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"GET", ok()),
        (b"GET", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        (b"HEAD", OK + b"Content-Length: 3\r\n\r\n"),
    ],
)
def test_bytes_behind_a_response_never_become_the_next_one(
    method: bytes, response: bytes, extra: bytes
) -> None:
    async def main() -> None:
        async with fetching(answering(response + extra)) as f:
            assert (await f.fetch(method)).status in (200, 304)
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_bytes_on_an_idle_connection_end_it() -> None:
    speak = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok())
        await speak.wait()
        await peer.send(ok(b"evil"))
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            assert (await f.fetch()).body == b"hello"
            assert f.client.statistics().connections_idle == 1
            speak.set()
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


def test_a_204_that_announces_a_body_is_the_last_on_its_connection() -> None:
    async def main() -> None:
        response = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
        async with fetching(answering(response)) as f:
            assert (await f.fetch()).body == b""
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())


# Time -------------------------------------------------------------------------------------------


async def _silent(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


def test_a_backend_that_does_not_answer_is_given_up() -> None:
    async def main() -> None:
        async with fetching(_silent, first_byte_timeout=0.05) as f:
            loop = asyncio.get_running_loop()
            began = loop.time()
            error = await failure(f.send())
            assert (error.cause, error.status_hint) == (Cause.HTTP_RESPONSE_TIMEOUT, 504)
            assert loop.time() - began >= 0.049  # never early; the loop's clock has milliseconds

    run(main())


def test_a_head_that_drips_has_no_more_time_than_one_silence() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK)
        while True:
            await peer.drip(b"X: y\r\n")

    async def main() -> None:
        async with fetching(script, first_byte_timeout=0.02, between_bytes_timeout=0.05) as f:
            error = await failure(f.send())
            # Whichever comes first: its time, or more bytes than a head may have.
            assert error.cause in (
                Cause.HTTP_RESPONSE_TIMEOUT,
                Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE,
            )

    run(main())


def test_interim_responses_buy_no_time() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with fetching(script, first_byte_timeout=0.05, between_bytes_timeout=60) as f:
            assert (await failure(f.send())).cause is Cause.HTTP_RESPONSE_TIMEOUT

    run(main())


def test_interim_responses_without_end_are_refused_after_a_few() -> None:
    interim = b"HTTP/1.1 102\r\n\r\n"

    async def main() -> None:
        async with fetching(answering(MAX_INTERIM * interim + ok())) as f:
            assert (await f.fetch()).status == 200
        async with fetching(answering((MAX_INTERIM + 1) * interim + ok())) as f:
            error = await failure(f.send())
            assert error.cause is Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE
            assert f.client.statistics().connections_idle == 0

    run(main())


def test_silence_within_a_body_ends_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"Content-Length: 10\r\n\r\nsome")
        await peer.gone()

    async def main() -> None:
        async with fetching(script, between_bytes_timeout=0.05) as f:
            body = (await answer(f.send())).body
            with pytest.raises(Incomplete, match=r"no byte of a body for 0\.05 s"):
                await read_all(body)

    run(main())


def test_a_slow_reader_is_no_silence_of_the_backend() -> None:
    size = 4 * HIGH_WATER

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % size, bytes(size))
        await peer.gone()

    async def main() -> None:
        async with fetching(script, between_bytes_timeout=0.03) as f:
            body = (await answer(f.send())).body
            await until(lambda: body.is_full)
            passed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.15, passed.set)
            await passed.wait()  # five silences long nobody reads
            assert len(await read_all(body)) == size

    run(main())


def test_a_backend_that_takes_nothing_of_a_request_is_given_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> None:
        async with fetching(script, first_byte_timeout=0.1) as f:
            body = Body()
            for _ in range(256):  # more than the buffers of two sockets hold
                body.write(bytes(65536))
            error = await failure(f.send(b"POST", body))
            assert error.cause is Cause.HTTP_RESPONSE_TIMEOUT
            assert "took no more of the request" in str(error)
            assert body.held == 0

    run(main(), seconds=30)


# Memory -----------------------------------------------------------------------------------------


def test_a_body_that_nobody_reads_holds_little_and_stops_the_backend() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(OK + b"\r\n")
        while True:
            await peer.send(bytes(65536))
            sent += 65536

    async def main() -> None:
        async with fetching(script) as f:
            body = (await answer(f.send())).body
            await until(lambda: body.is_full)
            before = -1
            while before != sent:  # until nothing more moves
                before = sent
                for _ in range(200):
                    await asyncio.sleep(0)
            # One read of the loop (256 KiB) may come on top of a body that is all but full.
            assert f.account.held <= HIGH_WATER + 256 * 1024
            body.discard()
            assert f.account.held == 0

    run(main())


def test_a_body_that_its_account_cannot_hold_fails() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(bytes(5000)))
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            body = (await answer(f.send(account=Account(f.ledger, 1000)))).body
            with pytest.raises(LimitExceeded):
                await read_all(body)
            assert f.ledger.held == 0

    run(main())


def test_many_small_chunks_are_taken_in_turns() -> None:
    chunks = 20_000

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
        await peer.head()
        await peer.send(ok())

    async def main() -> None:
        async with fetching(script) as f:
            assert (await f.fetch()).body == b"x" * chunks
            assert (await f.fetch()).body == b"hello"
            assert f.accepted == 1

    run(main())


def test_a_thousand_requests_to_a_backend_that_resets_leave_nothing() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        number = int(head.partition(b"/")[2].partition(b" ")[0])
        if number % 3 == 0:
            peer.reset()
        elif number % 3 == 1:
            await peer.send(OK + b"Content-Length: 10\r\n\r\nsome")
            peer.reset()
        else:
            await peer.send(ok())
            await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            pending = [f.send(uri=b"/%d" % number) for number in range(999)]
            causes, broken, whole_ones = 0, 0, 0
            for each in pending:
                try:
                    await whole(each)
                    whole_ones += 1
                except UpstreamFailed:
                    causes += 1
                except Incomplete:
                    broken += 1
            # A reset may overtake the bytes that were sent before it.
            assert causes >= 333
            assert causes + broken == 666
            assert whole_ones == 333
            assert f.ledger.held == 0

    run(main(), seconds=60)

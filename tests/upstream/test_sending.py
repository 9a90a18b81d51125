"""Request bodies: whole, streamed, cut, broken off; and connections that become two streams."""

from __future__ import annotations

import asyncio

import pytest

from edge.errors import Incomplete
from edge.http.body import HIGH_WATER, Body
from edge.upstream.fetch import Cause
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

MIB = 1024 * 1024


class Recorder:
    """Takes requests as bytes until each has ended, answers them, and keeps them."""

    def __init__(self, end: bytes) -> None:
        self.end = end
        self.requests: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            self.requests.append(head + await peer.reader.readuntil(self.end))
            await peer.send(ok())


@pytest.mark.parametrize("manual", [False, True])
def test_a_small_body_goes_out_with_its_length(manual: bool) -> None:
    recorder = Recorder(b"!")

    async def main() -> None:
        async with fetching(recorder) as f:
            headers = [(b"content-length", b"7")] if manual else []
            got = await f.fetch(
                b"POST", b"payload!", headers=headers, manual_framing=False, uri=b"/p"
            )
            assert got.body == b"hello"

    run(main())
    assert recorder.requests[0].endswith(b"content-length: 8\r\n\r\npayload!")
    assert recorder.requests[0].count(b"content-length") == 1


def test_a_body_of_unknown_length_goes_out_in_chunks_with_its_trailers() -> None:
    recorder = Recorder(b"\r\n\r\n")

    async def main() -> None:
        async with fetching(recorder) as f:
            body = Body(live=True)
            pending = f.send(b"POST", body)
            await until(lambda: f.accepted)
            body.write(b"one")
            await until(lambda: not body.held)
            body.write(b"three")
            await until(lambda: not body.held)
            body.finish([(b"x-sum", b"9"), (b"content-length", b"1"), (b"bad name", b"x")])
            assert (await whole(pending)).body == b"hello"
            assert f.client.statistics().connections_idle == 1

    run(main())
    head, _, rest = recorder.requests[0].partition(b"\r\n\r\n")
    assert head.endswith(b"transfer-encoding: chunked")
    assert rest == b"3\r\none\r\n5\r\nthree\r\n0\r\nx-sum: 9\r\n\r\n"


def test_a_live_body_whose_length_is_known_says_so() -> None:
    recorder = Recorder(b"!")

    async def main() -> None:
        async with fetching(recorder) as f:
            body = Body(live=True)
            body.expected = 8
            pending = f.send(b"PUT", body)
            await until(lambda: f.accepted)
            body.expected = None
            body.write(b"payload!")
            body.finish()
            assert (await whole(pending)).body == b"hello"

    run(main())
    assert recorder.requests[0].endswith(b"content-length: 8\r\n\r\npayload!")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_streams_and_little_of_it_is_held(chunked: bool) -> None:
    size = 16 * MIB
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        head = await peer.head()
        assert (b"transfer-encoding: chunked" in head) is chunked
        while received < size:
            if chunked:
                length = int((await peer.reader.readuntil(b"\r\n"))[:-2], 16)
                await peer.reader.readexactly(length + 2)
                received += length
            else:
                received += len(await peer.reader.read(65536))
        if chunked:
            assert await peer.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        await peer.send(ok())

    async def main() -> None:
        async with fetching(script) as f:
            body = Body(f.account, live=True)
            if not chunked:
                body.expected = size
            pending = f.send(b"POST", body)
            left, most = size, 0
            while left:
                await body.wait_room()
                if body.expected is not None:
                    body.expected -= 65536
                body.write(bytes(65536))
                left -= 65536
                most = max(most, f.account.held)
            body.finish()
            assert (await whole(pending)).body == b"hello"
            assert most <= HIGH_WATER + 65536
            assert f.account.held == 0

    run(main(), seconds=60)


def test_a_body_that_fails_leaves_an_unfinished_message() -> None:
    ends: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        try:
            ends.append(await peer.reader.readuntil(b"0\r\n\r\n"))
        except ConnectionError:
            ends.append(b"reset")
        except asyncio.IncompleteReadError as error:
            ends.append(b"cut after " + error.partial)

    async def main() -> None:
        async with fetching(script) as f:
            body = Body(live=True)
            pending = f.send(b"POST", body)
            body.write(b"some")
            await until(lambda: f.accepted and not body.held)
            body.fail(Incomplete("the writer was dropped"))
            error = await failure(pending)
            assert error.cause is Cause.CONNECTION_TERMINATED
            assert "the writer was dropped" in str(error)
            await until(lambda: ends)
            assert f.client.statistics().connections_open == 0

    run(main())
    assert ends in ([b"reset"], [b"cut after 4\r\nsome\r\n"], [b"cut after "])


def test_a_manual_length_that_the_body_does_not_reach_is_an_unfinished_message() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            headers = [(b"content-length", b"10")]
            error = await failure(f.send(b"POST", b"short", headers=headers, manual_framing=True))
            assert error.cause is Cause.CONNECTION_TERMINATED
            assert "shorter than was announced" in str(error)

    run(main())


def test_of_a_body_longer_than_its_manual_length_only_that_much_is_sent() -> None:
    recorder = Recorder(b"abc")

    async def main() -> None:
        async with fetching(recorder) as f:
            headers = [(b"content-length", b"3")]
            got = await f.fetch(b"POST", b"abcdef", headers=headers, manual_framing=True)
            assert got.body == b"hello"
            # Not certain that both ends agree on where the next request would begin.
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())
    assert recorder.requests[0].endswith(b"content-length: 3\r\n\r\nabc")


def test_manual_chunks_are_ended_even_when_there_are_none() -> None:
    recorder = Recorder(b"0\r\n\r\n")

    async def main() -> None:
        async with fetching(recorder) as f:
            headers = [(b"transfer-encoding", b"chunked")]
            assert (await f.fetch(b"POST", headers=headers, manual_framing=True)).status == 200

    run(main())
    assert recorder.requests[0].endswith(b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n")


def test_a_response_may_begin_before_the_request_has_ended() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await peer.reader.readuntil(b"\r\n")) != b"0\r\n":
            chunk = await peer.reader.readexactly(int(line, 16) + 2)
            await peer.send(line + chunk)  # an echo
        await peer.reader.readexactly(2)
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            body = Body(live=True)
            response = await answer(f.send(b"POST", body))
            for word in (b"one", b"two"):
                body.write(word)
                await response.body.wait_readable()
                assert response.body.read(100) == word
            body.finish()
            assert await read_all(response.body) == b""
            await until(lambda: f.client.statistics().connections_idle == 1)

    run(main())


def test_a_response_that_ends_before_the_request_ends_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            body = Body(f.account, live=True)
            got = await whole(f.send(b"POST", body))
            assert (got.status, got.body) == (413, b"no")
            await until(lambda: f.client.statistics().connections_open == 0)
            body.write(bytes(1000))  # into nothing
            assert f.account.held == 0

    run(main())


# Upgrades ---------------------------------------------------------------------------------------

UPGRADE = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"k")]


def test_an_upgraded_connection_is_two_streams_of_bytes() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"X-A: b\r\n\r\nfirst"
        )
        while data := await peer.reader.read(100):
            await peer.send(data.upper())

    async def main() -> None:
        async with fetching(script, between_bytes_timeout=0.03) as f:
            to_backend = Body(live=True)
            response = await answer(f.send(body=to_backend, headers=UPGRADE, upgrade=True))
            assert response.status == 101
            assert response.headers == [(b"x-a", b"b"), (b"upgrade", b"websocket")]
            from_backend = response.body
            await from_backend.wait_readable()
            assert from_backend.read(100) == b"first"
            passed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, passed.set)
            await passed.wait()  # silence ends no tunnel
            to_backend.write(b"hello")
            await from_backend.wait_readable()
            assert from_backend.read(100) == b"HELLO"
            to_backend.finish()
            assert await read_all(from_backend) == b""
            await until(lambda: f.client.statistics().connections_open == 0)

    run(main())
    assert heads[0].endswith(
        b"\r\nsec-websocket-key: k\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )


def test_a_tunnel_that_nobody_reads_any_more_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with fetching(script) as f:
            to_backend = Body(live=True)
            response = await answer(f.send(body=to_backend, headers=UPGRADE, upgrade=True))
            response.body.discard()
            await until(lambda: f.client.statistics().connections_open == 0)
            to_backend.write(b"into nothing")
            assert to_backend.held == 0

    run(main())


def test_a_backend_that_does_not_upgrade_answers_like_any_other() -> None:
    async def main() -> None:
        async with fetching(answering(ok(b"no"), ok())) as f:
            got = await whole(f.send(headers=UPGRADE, upgrade=True))
            assert (got.status, got.body) == (200, b"no")
            assert (await f.fetch()).body == b"hello"
            assert f.accepted == 1

    run(main())


def test_an_upgrade_to_nothing_is_not_sent() -> None:
    async def main() -> None:
        async with fetching(answering(ok())) as f:
            error = await failure(f.send(upgrade=True))
            assert error.cause is Cause.HTTP_UPGRADE_FAILED
            assert (await f.fetch()).body == b"hello"  # the connection has seen nothing of it
            assert f.accepted == 1

    run(main())

"""The hostcalls over the real client and real sockets: what the stand-in promises does happen."""

from __future__ import annotations

import asyncio
from typing import cast

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.http.body import Account, Ledger
from edge.server.exchange import Exchange
from edge.upstream.fetch import Cause
from tests.support.backends_h1 import Fetching, Peer, answering, fetching, ok
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import FastlyGuest
from tests.support.serving import run, serving, until

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def guest_of(net: Fetching, client: FakeDownstream | None = None) -> FastlyGuest:
    """A guest whose backend `origin` is the one behind the client."""
    return FastlyGuest(
        client=client,
        capabilities=Capabilities(net.upstream, {"origin": net.backend}),
        size=1 << 18,
    )


def test_send_brings_head_body_and_trailers() -> None:
    async def main() -> None:
        message = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
            b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"
        )
        async with fetching(answering(message)) as net:
            guest = guest_of(net)
            request, body = guest.downstream()
            raw = (request, body, *guest.put(b"origin"), 64, 68)
            assert await guest.ado("http_req.send", *raw) == Status.OK
            response, incoming = guest.u32_at(64), guest.u32_at(68)
            name = guest.put(b"x-a")
            assert guest.list("http_resp.header_values_get", response, *name) == [b"1"]
            out = guest.room(16)
            assert await guest.ado("http_body.read", incoming, out, 16, 64) == Status.OK
            assert guest.bytes_at(out, guest.u32_at(64)) == b"hello"
            assert await guest.ado("http_body.read", incoming, out, 16, 64) == Status.OK
            assert guest.u32_at(64) == 0
            trailer = guest.text("http_body.trailer_value_get", incoming, *guest.put(b"x-sum"))
            assert trailer == b"7"
            guest.box.close()
            assert guest.box.account.held == 0

    run(main())


def test_three_at_once_and_select() -> None:
    async def main() -> None:
        async with fetching(answering(ok(b"x"), ok(b"x"), ok(b"x"))) as net:
            guest = guest_of(net)
            waiting = [
                guest.get("http_req.send_async", guest.get("http_req.new"), guest.body(),
                          *guest.put(b"origin"))
                for _ in range(3)
            ]  # fmt: skip
            while waiting:
                packed = b"".join(handle.to_bytes(4, "little") for handle in waiting)
                raw = (guest.put(packed)[0], len(waiting), 0, 64)
                assert await guest.ado("async_io.select", *raw) == Status.OK
                handle = waiting.pop(guest.u32_at(64))
                assert guest.do("http_req.pending_req_wait", handle, 64, 68) == Status.OK
                assert guest.read_all(guest.u32_at(68)) == b"x"

    run(main())


def test_a_streamed_body_arrives_while_it_is_written() -> None:
    async def main() -> None:
        heard: list[bytes] = []

        async def script(peer: Peer) -> None:
            await peer.head()
            while not heard or heard[-1] != b"0\r\n":
                heard.append(await peer.reader.readline())
            await peer.send(ok(b"thanks"))
            await peer.gone()

        async with fetching(script) as net:
            guest = guest_of(net)
            body = guest.body(b"one")
            raw = (guest.get("http_req.new"), body, *guest.put(b"origin"))
            pending = guest.get("http_req.send_async_streaming", *raw)
            await until(lambda: b"one\r\n" in heard)
            assert guest.write(body, b"two") == Status.OK
            await until(lambda: b"two\r\n" in heard)
            assert guest.do("http_body.close", body) == Status.OK
            assert await guest.ado("http_req.pending_req_wait", pending, 64, 68) == Status.OK

    run(main())


def test_a_killed_guest_leaves_no_connection_behind() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.gone()
            closed.set()

        async with fetching(script) as net:
            guest = guest_of(net)
            raw = (guest.get("http_req.new"), guest.body(), *guest.put(b"origin"), 64, 68)
            assert guest.begin("http_req.send", *raw) is None
            await until(lambda: net.accepted)
            guest.cancel()
            guest.box.close()
            await closed.wait()
            assert guest.box.account.held == 0

    run(main())


def test_a_backend_that_is_not_there() -> None:
    async def main() -> None:
        async with fetching(answering()) as net:
            told: list[Cause] = []
            guest = guest_of(net)
            guest.box.capabilities.on_failure = lambda box, backend, error: told.append(error.cause)
            gone = net.other(url=net.backend.url.__class__(False, "127.0.0.1", 1))
            guest.box.capabilities.backends = {"origin": gone}
            guest.box.memory.write(128, bytes(20))
            raw = (guest.get("http_req.new"), guest.body(), *guest.put(b"origin"), 128, 64, 68)
            assert await guest.ado("http_req.send_v2", *raw) == Status.ERROR
            assert guest.u32_at(128) == 7, "refused"
            assert told == [Cause.CONNECTION_REFUSED]

    run(main())


def test_a_websocket_through_guest_and_sockets() -> None:
    async def main() -> None:
        heard: list[bytes] = []

        async def script(peer: Peer) -> None:
            heard.append(await peer.head())
            await peer.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome "
            )
            for _ in range(3):
                await peer.send((await peer.reader.readexactly(4)).upper())

        async with fetching(script) as net:
            exchanges: list[Exchange] = []

            def handler(exchange: Exchange) -> None:
                exchanges.append(exchange)
                guest = guest_of(net, cast("FakeDownstream", exchange))
                name = guest.put(b"origin")
                assert guest.do("http_req.redirect_to_websocket_proxy", *name) == Status.OK
                guest.box.close()  # it has returned

            async with serving(handler) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(UPGRADE)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
                assert b"\r\nupgrade: websocket\r\n" in head
                assert await reader.readexactly(8) == b"welcome "
                for _ in range(3):
                    writer.write(b"ping")
                    assert await reader.readexactly(4) == b"PING"
                assert await reader.read() == b"", "the backend has closed"
                writer.close()
                await until(lambda: exchanges[0].ended)
                assert not exchanges[0].failed
                assert (exchanges[0].bytes_in, exchanges[0].bytes_out) == (12, 20)
        assert b"\r\nupgrade: websocket\r\n" in heard[0]
        assert b"\r\nsec-websocket-key: dGhl" in heard[0].lower().replace(b"dghl", b"dGhl")

    run(main())


def test_a_client_that_leaves_a_websocket_closes_the_backends_connection() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\n\r\n"
            )
            await peer.gone()
            closed.set()

        async with fetching(script) as net:

            def handler(exchange: Exchange) -> None:
                guest = guest_of(net, cast("FakeDownstream", exchange))
                name = guest.put(b"origin")
                assert guest.do("http_req.redirect_to_websocket_proxy", *name) == Status.OK
                guest.box.close()

            async with serving(handler) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(UPGRADE)
                await reader.readuntil(b"\r\n\r\n")
                writer.close()
                await closed.wait()

    run(main())


def test_the_accounts_of_many_requests_end_at_nothing() -> None:
    async def main() -> None:
        ledger = Ledger()
        async with fetching(answering(*[ok(b"y" * 5000)] * 100)) as net:
            for _ in range(100):
                guest = guest_of(net)
                guest.box.account = Account(ledger, 1 << 20)
                raw = (guest.get("http_req.new"), guest.body(), *guest.put(b"origin"), 64, 68)
                assert await guest.ado("http_req.send", *raw) == Status.OK
                guest.box.close()
        assert ledger.held == 0

    run(main())

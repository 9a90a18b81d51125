"""Real sockets under uvloop: what a fake transport cannot show.  Few, and none sleeps."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from edge.errors import HostcallError
from edge.http.body import HIGH_WATER, Body
from edge.http.message import ResponseHead
from edge.server.exchange import Exchange
from edge.server.front import ConnectionRefusal, HttpLimits
from tests.support.serving import run, serving, talk, until
from tests.support.transport import hello

MIB = 1024 * 1024
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_a_request_over_a_socket_is_answered() -> None:
    async def main() -> None:
        async with serving(hello) as server:
            answer = await talk(server.port, CLOSING)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nhello")

    run(main())


class Echo:
    """Copies the request body into the response as it comes, and remembers the most it held."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, exchange: Exchange) -> None:
        source, target = exchange.body, Body(live=True)
        exchange.respond(ResponseHead(200, []), target)

        def move() -> None:
            self.most = max(self.most, source.held, target.held)
            try:
                while not target.is_full and source.is_readable:
                    data = source.read(65536)
                    if not data:
                        target.finish()
                        return
                    target.write(data)
            except HostcallError as error:
                target.fail(error)
                return
            (target if target.is_full else source).watch(move)

        move()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_streams_both_ways_and_little_of_it_is_held(chunked: bool) -> None:
    size = 24 * MIB
    echo = Echo()

    async def main() -> None:
        async with serving(echo) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            piece = bytes(range(256)) * 256

            async def upload() -> None:
                for _ in range(size // len(piece)):
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await writer.drain()
                if chunked:
                    writer.write(b"0\r\n\r\n")

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(upload())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                received = 0
                if b"transfer-encoding: chunked" in head:
                    while True:
                        length = int((await reader.readuntil(b"\r\n"))[:-2], 16)
                        data = await reader.readexactly(length + 2)
                        if not length:
                            break
                        offset = received % 256
                        assert data[:256] == (piece * 2)[offset : offset + 256]
                        received += length
                assert received == size
            writer.close()

    run(main())
    # One read of the event loop (256 KiB) may come on top of a body that is all but full.
    assert echo.most <= HIGH_WATER + 256 * 1024


def test_a_client_that_reads_nothing_stops_the_writer() -> None:
    target = Body(live=True)
    written = 0

    def handler(exchange: Exchange) -> None:
        exchange.respond(ResponseHead(200, []), target)

        def fill() -> None:
            nonlocal written
            while not target.is_full and not exchange.ended:
                target.write(bytes(65536))
                written += 65536
            if not exchange.ended:
                target.watch(fill)

        fill()

    async def main() -> None:
        async with serving(handler) as server:
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            before = -1
            while before != written:  # until nothing more moves
                before = written
                for _ in range(50):
                    await asyncio.sleep(0)
            assert 0 < written < 16 * MIB  # kernel buffers and ours, then no more
            assert target.held <= HIGH_WATER + 65536
            sock.close()

    run(main())


def test_an_abort_is_a_reset_even_where_the_end_of_the_connection_ends_the_body() -> None:
    target = Body(live=True)
    exchanges: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        exchange.respond(ResponseHead(200, []), target)
        target.write(b"half of ")

    async def main() -> None:
        async with serving(handler) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"half of ")
            exchanges[0].abort()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    limits = HttpLimits(max_request_body=1000)

    async def main() -> None:
        async with serving(hello, limits=limits) as server:
            body = bytes(300_000)
            request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
            answer = await talk(server.port, request + body)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"x-edge-outcome: body_limit\r\n" in answer

    run(main())


def test_connections_above_the_cap_of_one_address_are_closed_and_counted() -> None:
    async def main() -> None:
        async with serving(hello, limits=HttpLimits(max_per_client=2)) as server:
            first = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            for reader, writer in first:
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await reader.readuntil(b"hello")
            assert await talk(server.port, b"") == b""
            statistics = server.front.statistics
            assert statistics.connections_refused[ConnectionRefusal.PER_CLIENT] == 1
            gone = asyncio.Event()
            server.front.on_closed.append(gone.set)
            first[0][1].close()
            await gone.wait()
            assert (await talk(server.port, CLOSING)).endswith(b"hello")
            first[1][1].close()

    run(main())


def test_connections_above_the_total_cap_wait_in_the_queue() -> None:
    async def main() -> None:
        async with serving(hello, limits=HttpLimits(max_connections=1)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"hello")
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(talk(server.port, CLOSING))
                await until(lambda: server.front.statistics.accept_pauses_full)
                assert not waiting.done()
                writer.close()
                assert (await waiting).endswith(b"hello")

    run(main())


class OutOfDescriptors:
    """A listening socket that cannot accept until told otherwise."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.exhausted = True
        self.tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        if self.exhausted:
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()

    def fileno(self) -> int:
        return self._sock.fileno()


def test_running_out_of_descriptors_pauses_accepting_and_does_not_spin() -> None:
    async def main() -> None:
        async with serving(hello) as server:
            short = OutOfDescriptors(server.listener._socket)
            server.listener._socket = short  # type: ignore[assignment]
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(talk(server.port, CLOSING))
                await until(lambda: short.tries)
                for _ in range(200):
                    await asyncio.sleep(0)
                assert short.tries <= 2
                assert server.front.statistics.accept_pauses_descriptors == short.tries
                short.exhausted = False
                assert (await waiting).endswith(b"hello")

    run(main())


def test_drain_closes_idle_connections_and_lets_the_busy_one_end() -> None:
    exchanges: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        if exchange.path != b"/wait":
            hello(exchange)

    async def main() -> None:
        async with serving(handler) as server:
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", server.port)
            idle_writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await idle_reader.readuntil(b"hello")
            busy_reader, busy_writer = await asyncio.open_connection("127.0.0.1", server.port)
            busy_writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: len(exchanges) >= 2)
            # In the accept queue at the moment of draining: it is still served.
            queued = socket.create_connection(("127.0.0.1", server.port))
            queued.setblocking(False)
            server.listener.drain()
            assert await idle_reader.read() == b""
            hello(exchanges[1])
            answer = await busy_reader.read()
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"hello")
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(queued, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"connection: close\r\n" in await loop.sock_recv(queued, 4096)
            queued.close()
            for writer in (idle_writer, busy_writer):
                writer.close()

    run(main())


def test_a_proxy_listener_refuses_peers_that_it_does_not_trust() -> None:
    async def main() -> None:
        async with serving(hello, proxy_protocol=True) as server:
            assert await talk(server.port, b"") == b""
            refused = server.front.statistics.connections_refused
            assert refused[ConnectionRefusal.UNTRUSTED_PROXY] == 1

    run(main())

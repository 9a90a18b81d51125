"""Scripted HTTP/1.1 backends on loopback sockets, and a client in front of them that leaks nothing.

A script is a coroutine that plays one accepted connection from its first byte to its end.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Any

from edge.http.body import Account, Body, Ledger
from edge.http.message import Headers
from edge.model.backend import Backend, Origin
from edge.upstream.client import Client, ServiceUpstream
from edge.upstream.dialing import Dialed, ProtocolFactory
from edge.upstream.fetch import (
    Cause,
    Pending,
    UpstreamFailed,
    UpstreamRequest,
    UpstreamResponse,
)
from edge.upstream.pending import OnDone
from edge.upstream.pool import PoolLimits
from tests.support.serving import until

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Peer:
    """The backend's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """One request head, its empty line included."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        """Write each piece in a write of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def drip(self, data: bytes) -> None:
        """One byte at a time, each of which the other side has had a turn to see."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the other end has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close so that the other end sees a reset."""
        sock: socket = self.writer.get_extra_info("socket")
        sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET_ON_CLOSE)
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


def answering(*responses: bytes) -> Script:
    """Read heads and answer them in turn; afterwards wait for the other end to close."""

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.head()
            await peer.send(response)
        await peer.gone()

    return script


def ok(body: bytes = b"hello", *fields: bytes) -> bytes:
    """A response with a length."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (lines, len(body), body)


class PlainDialer:
    """TCP to the very address in the URL, and nothing else."""

    def __init__(self) -> None:
        self.dials = 0
        self.gate: asyncio.Event | None = None  # wait for it before each dial
        self.error: Exception | None = None  # raised instead of one

    async def dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
    ) -> Dialed:
        del deadline
        self.dials += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.create_connection(
                lambda: protocol_factory(None), backend.url.host, backend.url.port
            )
        except ConnectionRefusedError:
            raise UpstreamFailed(Cause.CONNECTION_REFUSED, "nobody listens there") from None
        return Dialed(transport, protocol, b"\x7f\x00\x00\x01", backend.url.port, None)


class Fetching:
    """A client, one backend of service `s`, and short ways to ask it."""

    def __init__(self, client: Client, dialer: PlainDialer, backend: Backend) -> None:
        self.client = client
        self.dialer = dialer
        self.backend = backend
        self.upstream: ServiceUpstream = client.for_service("s")
        self.ledger = Ledger()
        self.account = Account(self.ledger, 64 * 1024 * 1024)
        self.accepted = 0  # connections that the backend has seen
        self.failed: list[BaseException] = []  # what scripts raised

    def send(
        self,
        method: bytes = b"GET",
        body: Body | bytes = b"",
        *,
        headers: Headers | None = None,
        uri: bytes = b"http://example.com/",
        backend: Backend | None = None,
        account: Account | None = None,
        **fields: Any,
    ) -> Pending:
        """Send a request; `fields` are those of UpstreamRequest."""
        if isinstance(body, bytes):
            data, body = body, Body()
            body.write(data)
        request = UpstreamRequest(
            backend=backend or self.backend,
            method=method,
            uri=uri,
            headers=headers or [],
            body=body,
            account=account or self.account,
            **fields,
        )
        return self.upstream.send(request)

    async def fetch(
        self, method: bytes = b"GET", body: Body | bytes = b"", **fields: Any
    ) -> Answer:
        """Send, wait for the head, read the body."""
        return await whole(self.send(method, body, **fields))

    def other(self, **changes: Any) -> Backend:
        """The backend with some fields changed."""
        return replace(self.backend, **changes)


class Answer:
    """A response and its whole body."""

    def __init__(self, response: UpstreamResponse, body: bytes) -> None:
        self.response = response
        self.status = response.status
        self.headers = response.headers
        self.body = body


async def answer(pending: Pending) -> UpstreamResponse:
    """Wait for the head.  Raises UpstreamFailed."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    pending.watch(wake)
    await ready
    return pending.result()


async def read_all(body: Body) -> bytes:
    """All that is left of a body.  Raises its error."""
    found = []
    while True:
        await body.wait_readable()
        data = body.read(65536)
        if data:
            found.append(data)
        elif body.at_eof:
            return b"".join(found)


async def whole(pending: Pending) -> Answer:
    """Wait for head and body."""
    response = await answer(pending)
    return Answer(response, await read_all(response.body))


async def failure(pending: Pending) -> UpstreamFailed:
    """Wait for the failure that must come."""
    try:
        response = await answer(pending)
    except UpstreamFailed as error:
        return error
    raise AssertionError(f"a response of status {response.status} and no failure")


@asynccontextmanager
async def fetching(
    script: Script,
    *,
    limits: PoolLimits | None = None,
    on_done: OnDone | None = None,
    **options: Any,
) -> AsyncIterator[Fetching]:
    """Start the backend and the client; afterwards nothing of either is left.

    `options` are fields of the Backend.
    """
    before = open_sockets()
    tasks_before = len(asyncio.all_tasks())
    playing: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        playing.add(task)
        asking.accepted += 1
        try:
            await script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams cannot bear to be told
        except Exception as error:
            asking.failed.append(error)
        finally:
            playing.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, backlog=2048, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    backend = Backend("origin", Origin(False, "127.0.0.1", port), **options)
    dialer = PlainDialer()
    client = Client(dialer, limits=limits)
    asking = Fetching(client, dialer, backend)
    asking.upstream = client.for_service("s", on_done=on_done)
    try:
        yield asking
    finally:
        async with asyncio.timeout(10):
            await client.aclose()
            assert client.statistics().connections_open == 0
            assert len(client.deadlines) == 0
            server.close()
            for task in tuple(playing):
                task.cancel()
            await until(lambda: not playing)
            await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
            await until(lambda: open_sockets() <= before)
    assert asking.failed == []


def open_sockets() -> int:
    """Sockets that this process has open; the loop opens other files when it likes."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor that lists them
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return count

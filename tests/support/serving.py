"""A listener on a real loopback socket under uvloop, for the few tests that need one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvloop

from edge.clock import SystemClock
from edge.http.addresses import TrustedProxies
from edge.server.exchange import Exchange
from edge.server.front import Front, HttpLimits
from edge.server.listener import Listener
from edge.server.timers import Sweeper


@dataclass(slots=True)
class Serving:
    """A started listener and where it listens."""

    front: Front
    listener: Listener
    port: int


@asynccontextmanager
async def serving(
    handler: Callable[[Exchange], None],
    *,
    limits: HttpLimits | None = None,
    trusted: tuple[str, ...] = (),
    proxy_protocol: bool = False,
) -> AsyncIterator[Serving]:
    """Serve `handler` on a port of 127.0.0.1 until the block ends."""
    loop = asyncio.get_running_loop()
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    front = Front(
        handler=handler,
        loop=loop,
        sweeper=Sweeper(loop, SystemClock()),
        limits=limits or HttpLimits(),
        proxies=TrustedProxies(trusted),
        proxy_protocol=proxy_protocol,
    )
    listener = Listener(sock, front, loop)
    listener.start()
    try:
        yield Serving(front, listener, sock.getsockname()[1])
    finally:
        await listener.aclose()
        sock.close()


def run(main: Coroutine[object, object, None], *, seconds: float = 20.0) -> None:
    """Run one test's coroutine on a uvloop loop; it fails, rather than hangs, after `seconds`."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds; the time limit of `run` ends a vain wait."""
    while not condition():  # noqa: ASYNC110 - looks at state that has no event
        await asyncio.sleep(0)


async def talk(port: int, request: bytes) -> bytes:
    """Send `request` on a new connection and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()

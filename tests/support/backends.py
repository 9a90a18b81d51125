"""Backends, certificates and scripted peers for the tests of `edge.upstream`'s dialing."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import cache, wraps
from typing import Any, cast

import pytest
import trustme

from edge.clock import SystemClock
from edge.model.backend import Backend, Origin
from edge.settings import Egress
from edge.upstream.dial import NetworkDialer
from edge.upstream.egress import EgressPolicy
from edge.upstream.fetch import UpstreamFailed
from edge.upstream.resolve import Lookup, Resolver, system_lookup
from edge.upstream.tls import TlsContexts
from tests.support.serving import run, until

SOON = 5.0
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test function on a uvloop loop of its own; it fails rather than hangs."""

    @wraps(test)
    def in_time(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return in_time


def backend(url: str = "http://127.0.0.1:80", **settings: Any) -> Backend:
    """A backend at `scheme://host:port`; an IPv6 host in brackets."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    origin = Origin(scheme == "https", host.strip("[]"), int(port))
    return Backend("origin", origin, **settings)


@cache
def authority() -> trustme.CA:
    """One certificate authority for all tests: making keys is slow."""
    return trustme.CA()


def authority_pem() -> str:
    """Its certificate, as `ca_certificate` takes it."""
    return authority().cert_pem.bytes().decode()


@cache
def identity(*names: str) -> trustme.LeafCert:
    """A certificate of the authority for some names and addresses."""
    return authority().issue_cert(*names)


def server_context(
    *names: str, alpn: tuple[str, ...] = ("http/1.1",), wants_client: bool = False
) -> ssl.SSLContext:
    """What a TLS server with a certificate for `names` uses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity(*names).configure_cert(context)
    context.set_alpn_protocols(list(alpn))
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(context)
    return context


@asynccontextmanager
async def peer(
    script: Peer, *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server that plays `script` for each connection; gives its port."""

    playing: set[asyncio.Task[None] | None] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing.add(asyncio.current_task())
        try:
            await script(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            playing.discard(asyncio.current_task())
            writer.close()

    server = await asyncio.start_server(play, host, port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in playing:
            if task is not None:
                task.cancel()
        await server.wait_closed()


@asynccontextmanager
async def handshakes(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that shakes hands on threads and no more; gives its port.

    Unlike asyncio's it sends the alert when a handshake fails.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake(client: socket.socket) -> None:
            client.settimeout(SOON)
            with context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            ) as secured:
                try:
                    secured.do_handshake()
                except OSError:
                    # Closing with bytes unread would be a reset, which destroys the alert.
                    socket.socket.shutdown(secured, socket.SHUT_WR)
                    while socket.socket.recv(secured, 4096):
                        pass

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, suppress(OSError):
                        shake(client)

        thread = threading.Thread(target=serve, name="handshakes")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            await asyncio.to_thread(thread.join)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says hello at once and then whatever the client says, until it has no more to say."""
    writer.write(b"hello")
    while data := await reader.read(1000):
        writer.write(data)


async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and says nothing."""
    while await reader.read(1000):
        pass


class Listening(asyncio.Protocol):
    """A client protocol that remembers what it was told."""

    def __init__(self) -> None:
        self.alpn: str | None = None
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def make(self, alpn: str | None) -> Listening:
        """The protocol factory: gives itself."""
        self.alpn = alpn
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


@asynccontextmanager
async def dialer(
    egress: Egress | None = None,
    *,
    listeners: tuple[tuple[str, int], ...] = (),
    lookup: Lookup = system_lookup,
) -> AsyncIterator[NetworkDialer]:
    """A dialer with a policy that is closed unless told otherwise."""
    clock = SystemClock()
    made = NetworkDialer(
        policy=EgressPolicy(egress or Egress(), listeners),
        resolver=Resolver(clock, lookup=lookup),
        contexts=TlsContexts(),
        clock=clock,
    )
    try:
        yield made
    finally:
        made.close()


def in_time(seconds: float = SOON) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


def sockets() -> set[str]:
    """The sockets of this process (an event loop opens other descriptors when it likes)."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No socket and no task that was not there before, when all is closed."""
    before, tasks = sockets(), asyncio.all_tasks()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: sockets() <= before)


async def refused(
    egress: Egress | None = None,
    *,
    seconds: float = SOON,
    lookup: Lookup = system_lookup,
    **settings: Any,
) -> UpstreamFailed:
    """The failure of one dial."""
    async with dialer(egress, lookup=lookup) as network:
        protocol = Listening()
        with pytest.raises(UpstreamFailed) as caught:
            await network.dial(backend(**settings), protocol.make, in_time(seconds))
        assert protocol.transport is None, "the protocol saw a connection that was refused"
    return caught.value

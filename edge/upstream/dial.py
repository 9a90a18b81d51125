"""Makes connections to backends: policy, name, TCP to the first address that answers, TLS.

What is connected to is the very address that the policy saw: there is no second lookup between.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest
from math import ceil
from typing import cast

from edge.clock import Clock
from edge.http.special_addresses import IPAddress
from edge.model.backend import Backend
from edge.upstream import tls
from edge.upstream.dialing import Dialed, ProtocolFactory
from edge.upstream.egress import EgressPolicy
from edge.upstream.failures import failure
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.resolve import Resolver
from edge.upstream.tls import TlsContexts

# RFC 8305 section 5: when the first address is silent this long, the next is tried beside it.
STAGGER = 0.25
MAX_ATTEMPTS = 8
# How long a peer may take to answer our goodbye; the loop's default is 30 s.
TLS_SHUTDOWN = 2.0
# The loop wants a limit of its own; the dial's deadline always comes first.
TLS_HANDSHAKE = 3600.0
# What may wait between the handshake and the protocol that reads it: one turn of the loop.
MAX_EARLY = 256 * 1024

_PHASES = {"name": Cause.DNS_TIMEOUT, "TCP": Cause.CONNECTION_TIMEOUT}


class NetworkDialer:
    """Implements `edge.upstream.dialing.Dialer`.  One per worker."""

    def __init__(
        self, *, policy: EgressPolicy, resolver: Resolver, contexts: TlsContexts, clock: Clock
    ) -> None:
        self.policy = policy  # replaced when settings change; connections made before stay
        self._resolver = resolver
        self._contexts = contexts
        self._clock = clock

    def close(self) -> None:
        """Let the threads go.  Dials that wait for one fail."""
        self._resolver.close()
        self._contexts.close()

    async def dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
    ) -> Dialed:
        """Connect before the monotonic instant `deadline`.  Raises UpstreamFailed."""
        progress = _Progress()
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                return await self._dial(backend, protocol_factory, progress)
        except TimeoutError:
            cause = _PHASES.get(progress.phase, Cause.CONNECTION_TIMEOUT)
            text = (
                f"backend {backend.name} ({progress.where or backend.url.authority}): "
                f"{progress.phase} not done within connect_timeout"
            )
            raise UpstreamFailed(cause, text, setting="connect_timeout") from None

    async def _dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, progress: _Progress
    ) -> Dialed:
        self.policy.check_name(backend)
        name = tls.server_name(backend) if backend.url.tls else ""
        found = await self._resolver.resolve(backend)
        addresses = in_order(self.policy.permitted(backend, found), ipv4=backend.prefer_ipv4)
        context = await self._contexts.context(backend) if backend.url.tls else None
        progress.phase = "TCP"
        sock, address = await _connect_first(backend, addresses)
        where = progress.where = _where(address, backend.url.port)
        if context is not None:
            progress.phase = "TLS"
        try:
            transport, protocol, alpn = await _start(backend, sock, context, name, protocol_factory)
        except (OSError, EOFError) as error:
            raise failure(backend, where, error) from None
        return Dialed(transport, protocol, address.packed, backend.url.port, alpn)


class _Progress:
    """Where a dial has got to, for the words of a timeout."""

    phase = "name"
    where = ""


def in_order(addresses: Sequence[IPAddress], *, ipv4: bool) -> list[IPAddress]:
    """The addresses to try, best first: families take turns (RFC 8305 section 4), or IPv4 first."""
    if not addresses:
        return []
    if ipv4:
        return sorted(addresses, key=lambda address: address.version)[:MAX_ATTEMPTS]
    first = addresses[0].version
    same = [address for address in addresses if address.version == first]
    other = [address for address in addresses if address.version != first]
    turns = zip_longest(same, other)
    return [each for pair in turns for each in pair if each is not None][:MAX_ATTEMPTS]


async def _connect_first(
    backend: Backend, addresses: Sequence[IPAddress]
) -> tuple[socket.socket, IPAddress]:
    """A TCP connection to whichever address answers first.  Raises the first address's failure."""
    if len(addresses) == 1:
        return await _connect(backend, addresses[0]), addresses[0]
    waiting = deque(addresses)
    trying: dict[asyncio.Task[socket.socket], IPAddress] = {}
    failures: list[UpstreamFailed] = []
    try:
        while waiting or trying:
            if waiting:
                address = waiting.popleft()
                attempt = asyncio.create_task(_connect(backend, address))
                trying[attempt] = address
            done, _ = await asyncio.wait(
                trying, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return task.result(), trying.pop(task)
                del trying[task]
                if not isinstance(error, UpstreamFailed):
                    raise error
                failures.append(error)
    finally:
        await _give_up(trying)
    # Where one address was refused and another has no route, the refusal says more.
    no_way = Cause.DESTINATION_IP_UNROUTABLE
    raise next((each for each in failures if each.cause is not no_way), failures[0])


async def _give_up(trying: dict[asyncio.Task[socket.socket], IPAddress]) -> None:
    for task in trying:
        task.cancel()
    for sock in await asyncio.gather(*trying, return_exceptions=True):
        if isinstance(sock, socket.socket):  # it had succeeded in the same turn as another
            sock.close()


async def _connect(backend: Backend, address: IPAddress) -> socket.socket:
    """A connected socket, or UpstreamFailed."""
    port = backend.url.port
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise failure(backend, _where(address, port), error) from None
    try:
        _set_options(sock, backend)
        await asyncio.get_running_loop().sock_connect(sock, _socket_address(address, port))
        if sock.getsockname() == sock.getpeername():
            # A local port that nobody listens on may be chosen for our own end: we met ourselves.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRNOTAVAIL and address.version == 4:
            error = OSError(errno.EAGAIN, "no local port is left")  # for IPv6: it is switched off
        raise failure(backend, _where(address, port), error) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, backend: Backend) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not backend.tcp_keep_alive:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The kernel's own bounds (tcp(7)): it refuses anything outside.
    for option, wanted, most in (
        (socket.TCP_KEEPIDLE, backend.tcp_keep_alive, 32767),
        (socket.TCP_KEEPINTVL, backend.tcp_keep_alive_interval, 32767),
        (socket.TCP_KEEPCNT, backend.tcp_keep_alive_probes, 127),
    ):
        if wanted:
            sock.setsockopt(socket.IPPROTO_TCP, option, min(max(1, ceil(wanted)), most))


def _socket_address(address: IPAddress, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if address.version == 4 or not address.scope_id:
        return str(address), port
    zone = address.scope_id
    index = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    return str(address).partition("%")[0], port, 0, index


def _where(address: IPAddress, port: int) -> str:
    return f"{address} port {port}"


class _Arrival(asyncio.Protocol):
    """Holds a TLS connection between its handshake and its own protocol.

    The peer may send at once (HTTP/2 does), and the protocol is not known before ALPN is, nor may
    it exist before the name in the certificate has been checked.
    """

    def __init__(self) -> None:
        self.early: list[bytes] = []
        self.size = 0
        self.ended = False
        self.error: Exception | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's derive from nothing

    def data_received(self, data: bytes) -> None:
        self.early.append(data)
        self.size += len(data)
        if self.size > MAX_EARLY and self.transport is not None:
            self.ended = True
            self.transport.abort()

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.error = error


async def _start(
    backend: Backend,
    sock: socket.socket,
    context: ssl.SSLContext | None,
    name: str,
    protocol_factory: ProtocolFactory,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol, str | None]:
    """Put a transport on a connected socket, which it owns, and the protocol on that.

    `name` is what SNI says, if anything.
    """
    loop = asyncio.get_running_loop()
    try:
        if context is None:
            transport, protocol = await loop.create_connection(
                lambda: protocol_factory(None), sock=sock
            )
            return transport, protocol, None
        transport, arrival = await loop.create_connection(
            _Arrival,
            sock=sock,
            ssl=context,
            server_hostname=name,
            ssl_handshake_timeout=TLS_HANDSHAKE,
            ssl_shutdown_timeout=TLS_SHUTDOWN,
        )
    except BaseException:
        with suppress(OSError):
            sock.close()
        raise
    try:
        peer = transport.get_extra_info("ssl_object")
        tls.check_name(backend, peer)
        alpn = peer.selected_alpn_protocol()
        if backend.grpc and alpn != "h2":
            text = f"backend {backend.name}: the server does not agree to HTTP/2, which gRPC needs"
            raise UpstreamFailed(Cause.TLS_PROTOCOL_ERROR, text)
        if arrival.ended:
            raise arrival.error or ConnectionResetError("closed right after the TLS handshake")
        tls_protocol = protocol_factory(alpn)
        transport.set_protocol(tls_protocol)
        tls_protocol.connection_made(transport)
        if arrival.early:
            assert isinstance(tls_protocol, asyncio.Protocol)
            tls_protocol.data_received(b"".join(arrival.early))
    except BaseException:
        transport.abort()
        raise
    return transport, tls_protocol, alpn

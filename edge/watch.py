"""What supervisor and worker say to each other beside the control socket: lines and invocations.

A second socket pair, so that no flood of lines ever stands before a message that steers: whole
datagrams, dropped when the other end does not take them.  To the worker go who is followed and
requests to be served off the public port, each a connected socket that comes along; from it come
batches of lines (`edge.telemetry.lines`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge.http.addresses import TrustedProxies, pack_address
from edge.http.request_view import Peer, peer_from
from edge.server.connection import Connection
from edge.server.exchange import Exchange
from edge.server.front import Front, HttpLimits, ServerStatistics
from edge.server.timers import Sweeper
from edge.telemetry.lines import MAX_BATCH
from edge.telemetry.tap import Tap

log = logging.getLogger("edge.worker")

UNREAD_BYTES: Final = 256 * 1024  # that the other end has not taken; the kernel's own bound
MAX_ORDER: Final = 64 * 1024  # bytes of a datagram to a worker
MAX_FOLLOWED: Final = 256  # services by name; with more, all are
MAX_INVOCATIONS: Final = 64  # in one worker at once
NOT_HERE: Final = "not_loaded"  # in place of an outcome: the worker does not serve that version
_LOOPBACK: Final = b"\x7f\0\0\1"

HandleInvoke = Callable[[Exchange, str, int], bool]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep datagrams apart and tell when the other has gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
    return ours, theirs


@dataclass(frozen=True, slots=True)
class Follow:
    """Whose records are wanted, of requests that ended well too."""

    services: tuple[str, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Invoke:
    """Serve one connection, which comes with this, by one version."""

    service: str
    number: int
    request: str  # the id that its one request will have
    client: str = ""  # address; loopback where it has none


def encode_order(order: Follow | Invoke) -> bytes:
    """One datagram to a worker."""
    if isinstance(order, Follow):
        everything = order.everything or len(order.services) > MAX_FOLLOWED
        plain: dict[str, object] = {"follow": [] if everything else order.services}
        plain["all"] = everything
    else:
        plain = {
            "invoke": order.service,
            "version": order.number,
            "request": order.request,
            "client": order.client,
        }
    return json.dumps(plain).encode()


class WatchEnd:
    """A worker's end."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        limits: HttpLimits,
        sweeper: Sweeper,
        handle: HandleInvoke,
        on_follow: Callable[[], None],
    ) -> None:
        """Reads nothing before `start`.  `limits` are those of public connections."""
        self.tap = Tap(self._send, loop.time)
        self._socket = sock
        self._loop = loop
        self._limits = limits
        self._sweeper = sweeper
        self._handle = handle
        self._on_follow = on_follow
        self._statistics = ServerStatistics()
        self._connecting: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Take orders from now on."""
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._receive)

    @property
    def busy(self) -> bool:
        """Whether an invocation is under way."""
        return bool(self._statistics.connections_open or self._connecting)

    def close(self) -> None:
        """Take no more orders."""
        self._loop.remove_reader(self._socket.fileno())
        for task in self._connecting:
            task.cancel()

    def _send(self, data: bytes) -> bool:
        if len(data) > MAX_BATCH:
            return False
        try:
            self._socket.send(data)
        except OSError:  # full, or gone: the control socket tells of the latter
            return False
        return True

    def _receive(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MAX_ORDER, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, fds = b"", []
        connections = [socket.socket(fileno=fd) for fd in fds]
        if not data:  # the supervisor has gone, or given this end up
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._obey(json.loads(data), connections)
        for unused in connections:
            unused.close()

    def _obey(self, order: object, connections: list[socket.socket]) -> None:
        """What is taken of `connections` is taken out of it."""
        match order:
            case {"follow": list(services), "all": bool(everything)}:
                self.tap.follow(map(str, services), everything=everything)
                self._on_follow()
            case {
                "invoke": str(service), "version": int(number), "request": str(request),
                "client": str(client),
            } if connections:  # fmt: skip
                if self._statistics.connections_open + len(self._connecting) < MAX_INVOCATIONS:
                    self._invoke(connections.pop(), service, number, request, client)
            case _:
                log.error("an order that is not known")

    def _invoke(
        self, accepted: socket.socket, service: str, number: int, request: str, client: str
    ) -> None:
        self.tap.expect(request)
        self._on_follow()

        def handle(exchange: Exchange) -> None:
            if not self._handle(exchange, service, number):
                exchange.respond_error(
                    503, "This version is not loaded here.", NOT_HERE, close=True
                )

        front = Front(
            handler=handle,
            loop=self._loop,
            sweeper=self._sweeper,
            limits=self._limits,
            statistics=self._statistics,
        )
        accepted.setblocking(False)
        connection = Connection(front, _peer(client), accepted, counted=False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: connection, accepted)
        )
        self._connecting.add(task)

        def connected(done: asyncio.Task[object]) -> None:
            self._connecting.discard(done)
            if done.cancelled() or done.exception() is not None:
                accepted.close()
                connection.never_made()

        task.add_done_callback(connected)


def _peer(client: str) -> Peer:
    """Whose word is believed about the request's id: it is the supervisor's."""
    address = _LOOPBACK
    with contextlib.suppress(ValueError):
        address = pack_address(client) if client else _LOOPBACK
    peer = peer_from(address, _LOOPBACK, TrustedProxies(), b"http")
    return Peer(peer.address, peer.local, peer.proxies, peer.scheme, True, peer.text)


def send_order(sock: socket.socket, order: Follow | Invoke, fds: Sequence[int] = ()) -> bool:
    """Send without waiting; False when the worker does not take it."""
    try:
        socket.send_fds(sock, [encode_order(order)], list(fds))
    except OSError:
        return False
    return True

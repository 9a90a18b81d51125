"""A bound socket's accept loop: caps, descriptors running out, draining.  Not the connections.

Our own loop, and not the event loop's server, because that one neither stops when a cap is reached
nor keeps still when the process is out of descriptors (asyncio logs and retries every second,
uvloop reports each failure and spins).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl

from edge.http.request_view import peer_of
from edge.server.connection import Connection
from edge.server.front import ConnectionRefusal, Front

log = logging.getLogger(__name__)

# Accepted per wake-up, so that a flood of connections does not keep requests waiting.
ACCEPTS_PER_TURN = 64
RETRY_SECONDS = 0.1
# A TLS handshake is a few round trips; who takes longer only holds a place.
HANDSHAKE_SECONDS = 10.0
MAX_HANDSHAKES = 64  # at once, of one listener; more wait in the kernel's queue
_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """Accepts connections on one listening socket for as long as it is started.

    The socket must be bound, listening and non-blocking; it stays the caller's (a supervisor keeps
    it open for the next worker).
    """

    def __init__(
        self,
        sock: socket.socket,
        front: Front,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """With `tls`, connections begin with a handshake; `front.scheme` is then `https`."""
        self._socket = sock
        self._front = front
        self._loop = loop
        self._tls = tls
        self._listening = False
        self._started = False
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Begin to accept."""
        self._socket.setblocking(False)
        self._started = True
        self._front.on_closed.append(self._may_listen)
        self._listen()

    def drain(self) -> None:
        """Serve what the accept queue holds, accept no more, and let every connection end."""
        front = self._front
        front.draining = True  # whoever is accepted from here on gets one answer
        if self._started:
            self._started = False
            self._stop_listening()
            front.on_closed.remove(self._may_listen)
            while self._accept_some():
                pass
        for member in tuple(front.members):
            member.begin_drain()

    async def wait_idle(self) -> None:
        """Until no connection is left; after `drain`."""
        front = self._front
        while front.members or self._connecting:
            closed = self._loop.create_future()

            def tell(closed: asyncio.Future[None] = closed) -> None:
                if not closed.done():
                    closed.set_result(None)

            front.on_closed.append(tell)
            try:
                await closed
            finally:
                front.on_closed.remove(tell)

    async def aclose(self) -> None:
        """Accept no more and reset every connection that is left; returns when they are gone."""
        if self._started:
            self._started = False
            self._stop_listening()
            self._front.on_closed.remove(self._may_listen)
        for task in tuple(self._connecting):
            task.cancel()
        if self._connecting:
            await asyncio.gather(*self._connecting, return_exceptions=True)
        for member in tuple(self._front.members):
            member.abort()
        await asyncio.sleep(0)  # the transports report the loss in the next turn

    # Accepting --------------------------------------------------------------------------------

    def _listen(self) -> None:
        if not self._listening and self._started:
            self._listening = True
            self._loop.add_reader(self._socket.fileno(), self._accept_some)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._socket.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _may_listen(self) -> None:
        """A connection closed, or time has passed: try again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._listen()

    def _pause(self) -> None:
        """Leave the rest in the kernel's queue until there is room again."""
        self._stop_listening()
        if self._started:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._may_listen)

    def _accept_some(self) -> bool:
        """Accept up to one turn's worth; False if the queue was emptied or nothing more may be."""
        front = self._front
        statistics, limits = front.statistics, front.limits
        for _ in range(ACCEPTS_PER_TURN):
            shaking = len(self._connecting)
            if statistics.connections_open + shaking >= limits.max_connections or (
                self._tls is not None and shaking >= MAX_HANDSHAKES
            ):
                statistics.accept_pauses_full += 1
                self._pause()
                return False
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    statistics.accept_pauses_descriptors += 1
                    log.warning("accepting paused", extra={"error": str(error)})
                    self._pause()
                    return False
                # The client gave up while it was queued (ECONNABORTED and, on Linux, any network
                # error that was pending): accept(2) says to treat these as "try again".
                continue
            self._admit(accepted, address)
        return True

    def _admit(self, accepted: socket.socket, address: object) -> None:
        front = self._front
        front.statistics.connections_accepted += 1
        peer = peer_of(_host(address), _local(accepted), front.proxies, front.scheme)
        refused = front.statistics.connections_refused
        if front.proxy_protocol and not peer.trusted:
            refused[ConnectionRefusal.UNTRUSTED_PROXY] += 1
            accepted.close()
            return
        # A trusted proxy is many clients: the cap is not for it.
        counted = not peer.trusted
        if counted and not front.count(peer.address):
            refused[ConnectionRefusal.PER_CLIENT] += 1
            accepted.close()
            return
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(front, peer, accepted, counted=counted)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
            )
        )
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._connected(done, connection, accepted))

    def _connected(
        self, task: asyncio.Task[object], connection: Connection, accepted: socket.socket
    ) -> None:
        """The transport exists, or never will."""
        self._connecting.discard(task)
        failed = task.cancelled() or task.exception() is not None
        if failed and connection not in self._front.members:
            accepted.close()
            connection.never_made()
            if not task.cancelled():
                self._failed_to_connect(str(task.exception()))

    def _failed_to_connect(self, error: str) -> None:
        # Anybody can fail a handshake as often as they like: not a line of the log each.
        level = logging.WARNING if self._tls is None else logging.DEBUG
        log.log(level, "connection lost at once", extra={"error": error})


def _host(address: object) -> str:
    """The textual address of a socket address; "" for a Unix socket's."""
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _local(accepted: socket.socket) -> str:
    try:
        return _host(accepted.getsockname())
    except OSError:
        return ""

"""The supervisor's ends of the sockets that lines come from and invocations go to (`edge.watch`).

Workers are not believed: what one sends is read a little at a time, checked, and one that sends
nonsense is not listened to any more.  It loses its lines by that and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from edge.telemetry.lines import MAX_BATCH, BadLines, Batch, LineReader
from edge.watch import Follow, Invoke, send_order, socket_pair

log = logging.getLogger("edge.supervisor")

# One batch takes about 1 ms to read: two of them in a turn, and of one worker no more in a second
# than its own bound on what it sends.
BATCHES_PER_TURN: Final = 2
BATCHES_PER_PAUSE: Final = 8
PAUSE_SECONDS: Final = 0.1


class WatchPorts:
    """One port per worker slot; a new worker in a slot has a new one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.on_batch: Callable[[Batch], None] = _nobody
        self._loop = loop
        self._ports: dict[int, _Port] = {}
        self._follow = Follow()

    def open(self, slot: int) -> socket.socket:
        """The end for the worker that is about to start in a slot; the caller closes it."""
        self.close(slot)
        ours, theirs = socket_pair()
        send_order(ours, self._follow)
        self._ports[slot] = _Port(ours, slot, self._loop, self._take)
        return theirs

    def close(self, slot: int) -> None:
        """Forget a slot's port, if it has one."""
        port = self._ports.pop(slot, None)
        if port is not None:
            port.close()

    def close_all(self) -> None:
        """At the end."""
        for slot in tuple(self._ports):
            self.close(slot)

    def follow(self, follow: Follow) -> None:
        """Whose records all workers are to send from now on."""
        if follow != self._follow:
            self._follow = follow
            for port in self._ports.values():
                if not send_order(port.socket, follow):
                    log.warning("worker %d was not told whom to follow", port.slot)

    def invoke(self, slot: int, order: Invoke, connection: socket.socket) -> bool:
        """Give a worker one end of a connection; False when it cannot be told."""
        port = self._ports.get(slot)
        return port is not None and send_order(port.socket, order, (connection.fileno(),))

    def _take(self, batch: Batch) -> None:
        self.on_batch(batch)


class _Port:
    def __init__(
        self,
        sock: socket.socket,
        slot: int,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Batch], None],
    ) -> None:
        self.socket = sock
        self.slot = slot
        self._loop = loop
        self._take = take
        self._reader = LineReader(slot)
        self._left = BATCHES_PER_PAUSE
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.socket.fileno() >= 0:
            self._loop.remove_reader(self.socket.fileno())
            self.socket.close()

    def _readable(self) -> None:
        for _ in range(BATCHES_PER_TURN):
            try:
                data = self.socket.recv(MAX_BATCH + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self.close()  # the worker has gone
                return
            try:
                batch = self._reader.read(data)
            except BadLines as error:
                log.error("worker %d sends lines that make no sense: %s", self.slot, error)
                self.close()
                return
            self._take(batch)
            self._left -= 1
        if self._left <= 0:  # the rest waits with the worker, which drops what does not fit
            self._loop.remove_reader(self.socket.fileno())
            self._timer = self._loop.call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._left = BATCHES_PER_PAUSE
        self._loop.add_reader(self.socket.fileno(), self._readable)


def _nobody(batch: Batch) -> None:
    """Until somebody keeps lines."""

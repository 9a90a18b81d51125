"""Listening sockets: for each public address one per worker slot, all held by the supervisor.

The kernel spreads connections over the sockets of one address (SO_REUSEPORT, socket(7)), each with
an accept queue of its own.  A worker that dies leaves its queue behind, and the next one in that
slot takes the socket over.
"""

from __future__ import annotations

import socket
from typing import Final

from edge.errors import ConfigError, Problem
from edge.settings import Listen

BACKLOG: Final = 4096  # the kernel caps it at net.core.somaxconn


def open_listener(listen: Listen, *, setting: str, shared: bool = False) -> socket.socket:
    """One listening socket; `shared` lets our others have the same address.

    Raises ConfigError naming `setting` when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listen.host, listen.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            Problem(setting, f"cannot listen on {listen}: {error.strerror}")
        ) from error
    return sock


class PublicSockets:
    """Every public listening socket, as `slots[slot][address]`."""

    def __init__(self, listens: tuple[Listen, ...], workers: int) -> None:
        """Binds nothing before `open`."""
        self._listens = listens
        self._workers = workers
        self.slots: list[list[socket.socket]] = []
        self.addresses: tuple[Listen, ...] = ()  # with the ports that the kernel chose

    def open(self) -> None:
        """Bind all or none; ConfigError with every address that cannot be had."""
        problems: list[Problem] = []
        rows: list[list[socket.socket]] = [[] for _ in range(self._workers)]
        found: list[Listen] = []
        for listen in self._listens:
            try:
                # Alone first: with SO_REUSEPORT another server of the same user would share the
                # port with us in silence.
                first = open_listener(listen, setting="server.listen")
                port = first.getsockname()[1]
                first.close()
                actual = Listen(listen.host, port, listen.proxy_protocol)
                for row in rows:
                    row.append(open_listener(actual, setting="server.listen", shared=True))
                found.append(actual)
            except ConfigError as error:
                problems += error.problems
        self.slots = rows
        self.addresses = tuple(found)
        if problems:
            self.close()
            raise ConfigError(*problems)

    def close(self) -> None:
        """Close ours; a worker's own copies stay open until it closes them."""
        for row in self.slots:
            for sock in row:
                sock.close()
        self.slots = [[] for _ in range(self._workers)]

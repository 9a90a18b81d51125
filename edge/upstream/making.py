"""Connections being made, each in a task that its client owns, for the fetches that wait for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from edge.model.backend import Backend
from edge.upstream.connection import Http1Connection
from edge.upstream.dialing import Dialed, Dialer, Link, LinkFactory
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.pool import Group

if TYPE_CHECKING:
    from edge.upstream.client import Client
    from edge.upstream.pending import Fetch

log = logging.getLogger(__name__)

# Fetches that share one connection while it is being made.
MAX_WAITING = 1024


class Making:
    """One dial.  It ends with a link that takes its fetches, or with the failure of all of them."""

    __slots__ = ("_backend", "_client", "_group", "_links", "fetches", "task")

    def __init__(self, client: Client, group: Group, backend: Backend, fetch: Fetch) -> None:
        """`group` has a place reserved for the connection."""
        self._client = client
        self._group = group
        self._backend = backend
        self._links: list[Link] = []
        self.fetches = [fetch]
        fetch.carrier = self
        self.task: asyncio.Task[None] | None = None

    def drop(self, fetch: Fetch) -> None:
        """A fetch was given up; the last one takes the dial with it."""
        self.fetches.remove(fetch)
        if not self.fetches and self.task is not None:
            if self._group.making is self:
                self._group.making = None  # nobody joins what is being cancelled
            self.task.cancel()

    def ended(self, task: asyncio.Task[None]) -> None:
        """Called when the task is over, even one that was cancelled before it began."""
        if task.cancelled():
            error = UpstreamFailed(
                Cause.CONNECTION_TERMINATED, f"backend {self._backend.name}: the server is stopping"
            )
            for fetch in self._settle(None):
                fetch.fail(error)

    async def run(self, dialer: Dialer, make_h2: LinkFactory | None) -> None:
        """Dial and hand over.  Cancelled when nobody wants the connection."""
        group, backend = self._group, self._backend
        loop = asyncio.get_running_loop()

        def make(alpn: str | None) -> asyncio.BaseProtocol:
            link: Link = Http1Connection(backend, group, loop)
            if make_h2 is not None and _speaks_h2(backend, alpn):
                link = make_h2(backend, group)
            self._links.append(link)
            assert isinstance(link, asyncio.BaseProtocol)
            return link

        dialed: Dialed | None = None
        error = UpstreamFailed(
            Cause.INTERNAL_ERROR, f"backend {backend.name}: a mistake of the server's"
        )
        try:
            deadline = group.deadlines.now() + backend.connect_timeout
            dialed = await dialer.dial(backend, make, deadline)
            if make_h2 is None and _speaks_h2(backend, dialed.alpn):
                dialed = None
                error = UpstreamFailed(
                    Cause.HTTP_PROTOCOL_ERROR, f"backend {backend.name} wants HTTP/2"
                )
        except UpstreamFailed as failed:
            error = failed
        except Exception:
            log.exception("dial failed", extra={"backend": backend.name})
        if dialed is None:
            for fetch in self._settle(None):
                fetch.fail(error)
        else:
            self._hand_over(dialed)

    def _hand_over(self, dialed: Dialed) -> None:
        protocol: object = dialed.protocol
        link = next(link for link in self._links if link is protocol)
        link.address, link.port = dialed.address, dialed.port
        fetches = self._settle(link)
        self._client.opened += 1
        self._group.plain = not _speaks_h2(self._backend, dialed.alpn)
        if not link.room:  # each fetch moves on by this, so nobody dials for ever
            text = f"backend {self._backend.name}: closed as soon as it was connected"
            for fetch in fetches:
                fetch.fail(UpstreamFailed(Cause.CONNECTION_TERMINATED, text))
            return
        while fetches and link.room > 0:
            self._group.pool.unpool(self._group, link)  # a fetch that could not be sent freed it
            link.carry(fetches.pop(0))
        if link.room > 0:
            self._group.freed(link)
        for fetch in fetches:
            self._client.dispatch(fetch)

    def _settle(self, used: Link | None) -> list[Fetch]:
        """The dial is over: count what came of it, close what did not; who waits for it."""
        group = self._group
        if group.making is self:
            group.making = None
        if used is None:
            group.pool.release(group)
        else:
            group.pool.links[used] = group
        for link in self._links:
            if link is not used:
                link.abort()
                # uvloop does not tell a protocol that it has lost a connection whose making was
                # cancelled, not even one that it told of having made it.
                group.deadlines.remove(link)
        self._links = []
        fetches, self.fetches = self.fetches, []
        for fetch in fetches:
            fetch.carrier = None
        return fetches


def _speaks_h2(backend: Backend, alpn: str | None) -> bool:
    """With TLS by ALPN; without, gRPC begins with HTTP/2 (RFC 9113 section 3.3)."""
    return alpn == "h2" or (backend.grpc and not backend.url.tls)

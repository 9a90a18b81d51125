"""Connections that wait for their next request, by what makes them exchangeable.  No HTTP here.

Everything has a bound: idle connections of one place and of all places, open connections of one
backend, of one service and of the process.  An idle connection gives way to a new one elsewhere.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from edge.model.backend import Backend, ClientCertificate
from edge.upstream.dialing import Link
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.timers import Deadlines

if TYPE_CHECKING:
    from edge.upstream.making import Making
    from edge.upstream.pending import Fetcher

# Keys hold a digest of a client's private key that means nothing outside this process.
_digest_key = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of the connections of one worker."""

    open: int = 4096  # all that are open or being made: from the file descriptors
    per_service: int = 2048  # of those, one service's; never more than three quarters of them
    idle: int = 1024  # the one that has been idle longest goes
    idle_per_group: int = 64


class Key(NamedTuple):
    """What makes connections exchangeable; `origin` is everything a connection is made by."""

    service: str
    generation: int  # of the egress policy for dynamic backends, else -1
    origin: tuple[Hashable, ...]


def pool_key(service: str, backend: Backend, generation: int) -> Key:
    """Two backends with the same key may use each other's connections.

    The service is part of it: what a guest made a connection think of its client stays with the
    service.  So is the name of a backend in the document, whose `max_connections` is its own; names
    that guests make up are not.  `generation` counts changes of the egress policy, which only
    dynamic backends obey.
    """
    certificate = backend.client_certificate
    origin = (
        "" if backend.dynamic or backend.named_by_guest else backend.name,
        backend.url.tls,
        backend.url.host,
        backend.url.port,
        backend.verify,
        backend.cert_host,
        backend.use_sni,
        backend.sni_host,
        backend.ca_certificate,
        None if certificate is None else _fingerprint(certificate),
        backend.min_tls,
        backend.max_tls,
        backend.ciphers,
        backend.http2,
        backend.grpc,
        backend.prefer_ipv4,
        backend.tcp_keep_alive,
        backend.tcp_keep_alive_interval,
        backend.tcp_keep_alive_probes,
    )
    return Key(service, generation if backend.dynamic else -1, origin)


def _fingerprint(certificate: ClientCertificate) -> bytes:
    digest = blake2b(certificate.certificate.encode(), key=_digest_key, digest_size=32)
    digest.update(b"\0" + certificate.key.reveal())
    return digest.digest()


class Group:
    """The connections of one service to one place.  The `Owner` of each of them."""

    __slots__ = ("deadlines", "fetcher", "key", "making", "open", "plain", "pool", "ready",
                 "service", "stale")  # fmt: skip

    def __init__(self, pool: Pool, fetcher: Fetcher, key: Key, service: str) -> None:
        self.pool = pool
        self.fetcher = fetcher
        self.key = key
        self.service = service
        self.deadlines = pool.deadlines
        self.open = 0  # open or being made
        self.ready: list[Link] = []  # with room; the one used last is used next
        self.stale = False  # connections made under an older policy: none is used again
        # Where HTTP/2 may be agreed on, fetches share the first connection that is being made,
        # until one turned out `plain`.
        self.making: Making | None = None
        self.plain = False

    def freed(self, link: Link) -> None:
        self.pool.freed(self, link)

    def broken(self) -> None:
        self.fetcher.broken()

    def lost(self, link: Link) -> None:
        self.pool.lost(self, link)


class Pool:
    """All connections of a worker to backends."""

    def __init__(self, limits: PoolLimits, deadlines: Deadlines) -> None:
        # Where few files may be open, one service must not have all of them either.
        share = limits.open - limits.open // 4
        self.limits = replace(limits, per_service=min(limits.per_service, share))
        self.deadlines = deadlines
        self.open = 0
        self.idle: OrderedDict[Link, Group] = OrderedDict()  # longest idle first
        self.links: dict[Link, Group] = {}  # established
        self.on_empty: Callable[[], None] | None = None
        self._groups: dict[Key, Group] = {}
        self._of_service: dict[str, int] = {}

    def group(self, fetcher: Fetcher, service: str, backend: Backend, generation: int) -> Group:
        """The group of a backend, an existing one if any connection of it is left."""
        key = pool_key(service, backend, generation)
        group = self._groups.get(key)
        if group is None:
            group = Group(self, fetcher, key, service)
        return group

    def take(self, group: Group) -> Link | None:
        """A connection with room, if there is one.  It may be given back at once (`freed`)."""
        ready = group.ready
        while ready:
            link = ready.pop()
            link.pooled = False
            self.idle.pop(link, None)
            if link.room > 0:
                return link
        return None

    def freed(self, group: Group, link: Link) -> None:
        """A link has room, or has become idle."""
        if group.stale:
            if link.idle:
                link.close()
            return
        if not link.pooled:
            link.pooled = True
            group.ready.append(link)
        if link.idle:
            idle, limits = self.idle, self.limits
            idle[link] = group
            if len(group.ready) > limits.idle_per_group and group.ready[0].idle:
                oldest = group.ready.pop(0)
                oldest.pooled = False
                idle.pop(oldest, None)  # one that is closing may have become idle without a word
                oldest.close()
            if len(idle) > limits.idle:
                self._evict().close()

    def unpool(self, group: Group, link: Link) -> None:
        """It is to be used by whoever has it already: nobody else may choose or end it."""
        if link.pooled:
            link.pooled = False
            group.ready.remove(link)
            self.idle.pop(link, None)

    def lost(self, group: Group, link: Link) -> None:
        """A connection is gone.  One that was never used by a fetch was never counted here."""
        if self.links.pop(link, None) is None:
            return
        self.unpool(group, link)
        self.release(group)

    def reserve(self, group: Group, backend: Backend) -> None:
        """Count one more connection.  Raises UpstreamFailed when there may be no more."""
        limits = self.limits
        of_service = self._of_service.get(group.service, 0)
        if 0 < backend.max_connections <= group.open:
            raise UpstreamFailed(
                Cause.CONNECTION_LIMIT_REACHED,
                f"backend {backend.name}: all of its {backend.max_connections} connections are "
                "in use (max_connections)",
            )
        if of_service >= limits.per_service:
            if not self._evict_of(group.service):
                raise UpstreamFailed(
                    Cause.CONNECTION_LIMIT_REACHED,
                    f"backend {backend.name}: service {group.service} has {of_service} connections "
                    "to backends in one worker, and may have no more",
                )
        elif self.open >= limits.open:  # one that has just gone makes room here as well
            if not self.idle:
                raise UpstreamFailed(
                    Cause.CONNECTION_LIMIT_REACHED,
                    f"backend {backend.name}: a worker has {self.open} connections to backends, "
                    "and may have no more",
                )
            self._evict().abort()
        if not group.open:
            self._groups[group.key] = group
        group.open += 1
        self.open += 1
        self._of_service[group.service] = of_service + 1

    def release(self, group: Group) -> None:
        """The opposite of `reserve`."""
        self.open -= 1
        group.open -= 1
        if not group.open and self._groups.get(group.key) is group:
            del self._groups[group.key]
        left = self._of_service[group.service] - 1
        if left:
            self._of_service[group.service] = left
        else:
            del self._of_service[group.service]
        if not self.open and self.on_empty is not None:
            self.on_empty()

    def forget(self, *, dynamic_only: bool) -> None:
        """Use no connection again that is open now; the idle ones close."""
        for group in list(self._groups.values()):
            if not dynamic_only or group.key.generation >= 0:
                group.stale = True
                for link in [link for link in group.ready if link.idle]:
                    link.close()

    def _evict(self) -> Link:
        """Take out the connection that has been idle longest; the caller ends it."""
        link, group = self.idle.popitem(last=False)
        group.ready.remove(link)
        link.pooled = False
        return link

    def _evict_of(self, service: str) -> bool:
        """End the oldest idle connection of one service, to make room for another of its own."""
        for link, group in self.idle.items():
            if group.service == service:
                del self.idle[link]
                group.ready.remove(link)
                link.pooled = False
                link.abort()
                return True
        return False

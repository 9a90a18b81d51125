"""Requests to backends: an idle connection at once, or a new one.  Implements `Upstream`.

One per worker; each service sees it through `for_service`, so that its connections stay its own.
With an idle connection at hand there is no task and no await.  Not here: names, addresses and TLS
(`edge.upstream.dial`) and whether backends are well (`edge.upstream.health`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol
from weakref import WeakValueDictionary

from edge.model.backend import Backend, MockHealth
from edge.upstream.dialing import Dialer, LinkFactory
from edge.upstream.fetch import Cause, Health, Pending, UpstreamFailed, UpstreamRequest
from edge.upstream.making import MAX_WAITING, Making
from edge.upstream.pending import Fetch, OnDone
from edge.upstream.pool import Group, Pool, PoolLimits
from edge.upstream.timers import Deadlines
from edge.upstream.unattended import Unattended

_TOLD = {
    MockHealth.UNKNOWN: Health.UNKNOWN,
    MockHealth.HEALTHY: Health.HEALTHY,
    MockHealth.UNHEALTHY: Health.UNHEALTHY,
}
# Backends whose group a service remembers by identity: a key takes 4 us, this 0.1.
_KNOWN_MAX = 64


class HealthSource(Protocol):
    """Who checks backends."""

    def health(self, service: str, backend: Backend) -> Health:
        """By its checks; UNKNOWN when it has none."""
        ...


@dataclass(frozen=True, slots=True)
class UpstreamStatistics:
    """Counts of one worker since it began, and what is open now."""

    connections_open: int = 0
    connections_idle: int = 0
    connections_opened: int = 0
    connections_reused: int = 0
    requests: int = 0
    responses: int = 0
    retries: int = 0
    bodies_broken: int = 0  # of responses whose head was good
    failures: dict[Cause, int] = field(default_factory=dict)


class Client:
    """All requests of one worker.  Made inside a running loop; ended by `aclose`."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        limits: PoolLimits | None = None,
        make_h2: LinkFactory | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """`now` in monotonic seconds.  `make_h2` makes links for HTTP/2; without it, none."""
        self.loop = asyncio.get_running_loop()
        self._dialer = dialer
        self._make_h2 = make_h2
        self.deadlines = Deadlines(self.loop, now)
        self.now = now
        self.pool = Pool(limits or PoolLimits(), self.deadlines)
        self.health_source: HealthSource | None = None  # it needs a client, so it comes later
        self.generation = 0  # of the egress policy
        # By service, whatever its version; gone with the last version that has it.
        self.unattended: WeakValueDictionary[str, Unattended] = WeakValueDictionary()
        self.opened = 0
        self._reused = 0
        self._requests = 0
        self._responses = 0
        self._retries = 0
        self._broken = 0
        self._failures: dict[Cause, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def for_service(
        self, service: str, *, checks: bool = False, on_done: OnDone | None = None
    ) -> ServiceUpstream:
        """What guests of one service get.  `checks`: for health checks, which ignore health.

        `on_done` is called for each request when the head of its response is here or it failed.
        """
        return ServiceUpstream(self, service, checks=checks, on_done=on_done)

    def statistics(self) -> UpstreamStatistics:
        """A copy of the counts."""
        return UpstreamStatistics(
            connections_open=self.pool.open,
            connections_idle=len(self.pool.idle),
            connections_opened=self.opened,
            connections_reused=self._reused,
            requests=self._requests,
            responses=self._responses,
            retries=self._retries,
            bodies_broken=self._broken,
            failures=dict(self._failures),
        )

    def policy_changed(self) -> None:
        """Dynamic backends use no connection that was allowed by the egress policy of before."""
        self.generation += 1
        self.pool.forget(dynamic_only=True)

    async def aclose(self) -> None:
        """Close every connection; what is in flight fails.  Nothing is left open afterwards."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in tuple(self.pool.links):
            link.abort()
        if self.pool.open:
            empty = asyncio.Event()
            self.pool.on_empty = empty.set
            await empty.wait()

    # For services, fetches and dials ----------------------------------------------------------

    def begin(self, fetch: Fetch) -> None:
        """Send it over an idle connection, or make one."""
        self._requests += 1
        group = fetch.group
        assert group is not None
        link = self.pool.take(group)
        if link is None:
            self.dispatch(fetch)
            return
        self._reused += 1
        link.carry(fetch)
        if link.room > 0 and not link.pooled:
            group.freed(link)

    def dispatch(self, fetch: Fetch) -> None:
        """Make a connection for it, or let it share one that is being made."""
        group, backend = fetch.group, fetch.request.backend
        assert group is not None
        making = group.making
        if making is not None:
            if len(making.fetches) < MAX_WAITING:
                making.fetches.append(fetch)
                fetch.carrier = making
            else:
                fetch.fail(
                    UpstreamFailed(
                        Cause.CONNECTION_LIMIT_REACHED,
                        f"backend {backend.name}: {MAX_WAITING} requests wait for a connection",
                    )
                )
            return
        if self._closed:
            fetch.fail(
                UpstreamFailed(
                    Cause.CONNECTION_TERMINATED, f"backend {backend.name}: the server is stopping"
                )
            )
            return
        try:
            self.pool.reserve(group, backend)
        except UpstreamFailed as error:
            fetch.fail(error)
            return
        making = Making(self, group, backend, fetch)
        if (backend.grpc or (backend.http2 and backend.url.tls)) and not group.plain:
            group.making = making
        task = self.loop.create_task(making.run(self._dialer, self._make_h2))
        making.task = task
        self._tasks.add(task)
        task.add_done_callback(making.ended)
        task.add_done_callback(self._tasks.discard)

    def responded(self, fetch: Fetch, status: int) -> None:
        self._responses += 1
        if fetch.on_done is not None:
            fetch.on_done(fetch.request.backend, None, status, self.now() - fetch.started)

    def failed(self, fetch: Fetch, cause: Cause) -> None:
        self._failures[cause] = self._failures.get(cause, 0) + 1
        if fetch.on_done is not None:
            fetch.on_done(fetch.request.backend, cause, 0, self.now() - fetch.started)

    def broken(self) -> None:
        self._broken += 1

    def retry(self, fetch: Fetch) -> None:
        self._retries += 1
        self.dispatch(fetch)


class ServiceUpstream:
    """The client as one service sees it.  Implements `Upstream`."""

    def __init__(
        self, client: Client, service: str, *, checks: bool, on_done: OnDone | None
    ) -> None:
        self._client = client
        self._service = service
        self._checks = checks
        self._on_done = on_done
        self._known: dict[int, tuple[Backend, Group]] = {}
        self._unattended = client.unattended.setdefault(service, Unattended(client.loop))

    def leave(self, pending: Pending) -> None:
        """The guest has ended and may have sent it for its effect: it goes on, within bounds."""
        self._unattended.take(pending)

    def send(self, request: UpstreamRequest) -> Fetch:
        """Never raises: whatever is wrong is the pending request's failure."""
        client, backend = self._client, request.backend
        known = self._known.get(id(backend))
        if known is not None and known[0] is backend and not known[1].stale and known[1].open:
            group = known[1]
        else:
            group = self._group(backend)
        fetch = Fetch(request, group, client.now())
        fetch.on_done = self._on_done
        if (
            backend.health_check is not None
            and not self._checks
            and backend.health is None
            and self.health(backend) is Health.UNHEALTHY
        ):
            fetch.fail(
                UpstreamFailed(
                    Cause.DESTINATION_UNAVAILABLE, f"backend {backend.name} fails its health checks"
                )
            )
        else:
            client.begin(fetch)
        return fetch

    def health(self, backend: Backend) -> Health:
        """By its checks or by what its configuration tells; UNKNOWN without either."""
        if backend.health is not None:
            return _TOLD[backend.health]
        source = self._client.health_source
        if source is None or backend.health_check is None:
            return Health.UNKNOWN
        return source.health(self._service, backend)

    def _group(self, backend: Backend) -> Group:
        client, known = self._client, self._known
        group = client.pool.group(client, self._service, backend, client.generation)
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[id(backend)] = (backend, group)
        return group

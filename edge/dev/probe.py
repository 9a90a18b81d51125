"""Whether the backends of a manifest can be reached: asked once, when the server starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edge.clock import SystemClock
from edge.local.world import OPEN_EGRESS
from edge.model.backend import Backend
from edge.upstream.dial import NetworkDialer
from edge.upstream.egress import EgressPolicy
from edge.upstream.fetch import UpstreamFailed
from edge.upstream.resolve import Resolver
from edge.upstream.tls import TlsContexts


async def probe(
    backends: Iterable[Backend], tell: Callable[[str], None], *, seconds: float
) -> None:
    """Connect to each, TLS included, and tell why that was not possible within `seconds`."""
    clock = SystemClock()
    dialer = NetworkDialer(
        policy=EgressPolicy(OPEN_EGRESS), resolver=Resolver(clock), contexts=TlsContexts(),
        clock=clock,
    )  # fmt: skip

    async def one(backend: Backend) -> None:
        try:
            deadline = clock.monotonic() + seconds
            dialed = await dialer.dial(backend, lambda alpn: asyncio.Protocol(), deadline)
        except UpstreamFailed as failed:
            tell(f"{failed}; a request to it would fail as well")
        else:
            dialed.transport.abort()

    try:
        async with asyncio.TaskGroup() as group:
            for backend in backends:
                group.create_task(one(backend))
    finally:
        dialer.close()

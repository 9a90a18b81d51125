"""Platform: what guests of one process can reach outside their sandboxes, put together.

Connections to backends, KV stores and rate counters live as long as the process; what a service
version is given of them is a `Capabilities`, made anew with each snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from edge.abi.capabilities import Capabilities
from edge.abi.sandbox import Sandbox
from edge.clock import SystemClock
from edge.model.backend import Backend
from edge.model.service import Service, Version
from edge.settings import Settings
from edge.stores.kv import KvEngine, identity_of
from edge.stores.rates import Rates
from edge.telemetry.layout import DYNAMIC_BACKENDS, OTHER_BACKENDS
from edge.telemetry.service_block import ServiceBlock
from edge.upstream.client import Client
from edge.upstream.dial import NetworkDialer
from edge.upstream.egress import EgressPolicy
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.health import HealthMonitor
from edge.upstream.pending import OnDone
from edge.upstream.pool import PoolLimits
from edge.upstream.resolve import Resolver
from edge.upstream.tls import TlsContexts

OnFailure = Callable[[Sandbox, Backend, UpstreamFailed], None]
Address = tuple[str, int]


class Platform:
    """One per process that runs guests.  `start`, then `prepare` and `commit` for each snapshot."""

    def __init__(
        self,
        settings: Settings,
        *,
        kv: KvEngine,
        rates: Rates,
        own_addresses: Sequence[Address],
        max_connections: int,
        on_failure: OnFailure,
    ) -> None:
        """Opens nothing.  `own_addresses`: where this server listens, which guests never reach.

        `max_connections`: to backends, of this process.  `on_failure` is told of each failed
        request when its guest or client learns of it.
        """
        self._settings = settings  # that are served
        self._offered = settings  # that are being prepared
        self._own_addresses = own_addresses
        self._max_connections = max_connections
        self._on_failure = on_failure
        self.kv = kv
        self.rates = rates
        self.client: Client
        self.dialer: NetworkDialer
        self._health: HealthMonitor

    async def start(self) -> None:
        """Raises ConfigError when the stores cannot be used."""
        await self.kv.start()
        clock = SystemClock()
        self.dialer = NetworkDialer(
            policy=self._policy(self._settings),
            resolver=Resolver(clock),
            contexts=TlsContexts(),
            clock=clock,
        )
        self.client = Client(
            self.dialer, limits=PoolLimits(open=self._max_connections)
        )
        self._health = HealthMonitor(
            lambda service: self.client.for_service(service, checks=True),
            asyncio.get_running_loop(),
        )
        self.client.health_source = self._health

    async def prepare(self, settings: Settings) -> None:
        """Read what a snapshot needs of files, before its services are equipped.

        Raises ConfigError, with nothing changed.
        """
        self._offered = settings

    async def aclose(self) -> None:
        """Close connections and stores; what was accepted for a store is written first."""
        self._health.close()
        await self.client.aclose()
        self.dialer.close()
        await self.kv.aclose()

    def equip(self, version: Version, block: ServiceBlock) -> Capabilities:
        """What guests of one version are given; what they use of it is counted in `block`."""
        service = version.service
        done = counter(block, version.backend_slots)
        return Capabilities(
            upstream=self.client.for_service(service.name, on_done=done),
            backends=service.backends,
            on_failure=self._on_failure,
            shield_sites=self._offered.shielding_sites,
            kv_stores={
                name: self.kv.open(identity_of(service.name, name, shared))
                for name, shared in service.kv_stores.items()
            },
            rates=self.rates,
        )

    def commit(self, settings: Settings, services: Iterable[Service]) -> None:
        """A snapshot is served from now on: its egress policy, its health checks."""
        if settings.egress != self._settings.egress:
            self.dialer.policy = self._policy(settings)
            self.client.policy_changed()
        self._settings = settings
        self._health.watch({service.name: service.backends.values() for service in services})

    def _policy(self, settings: Settings) -> EgressPolicy:
        return EgressPolicy(settings.egress, self._own_addresses)


def counter(block: ServiceBlock, slots: Mapping[str, int]) -> OnDone:
    """Counts what becomes of requests to backends."""

    def done(backend: Backend, cause: Cause | None, status: int, seconds: float) -> None:
        slot = slots.get(backend.name, DYNAMIC_BACKENDS if backend.dynamic else OTHER_BACKENDS)
        if cause is None:
            block.backend_answered(slot, status, int(seconds * 1e9))
        else:
            block.backend_failed(slot, cause.value)

    return done

"""Platform: what guests of one process can reach outside their sandboxes, put together.

Connections to backends, KV stores and rate counters live as long as the process; what a service
version is given of them is a `Capabilities`, made anew with each snapshot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from edge.abi.capabilities import Capabilities
from edge.abi.sandbox import Sandbox
from edge.clock import SystemClock
from edge.errors import ConfigError
from edge.metering import CountedKvStore, backend_counter
from edge.model.backend import Backend
from edge.model.service import Service, Version
from edge.settings import Settings, ShieldSite
from edge.stores.acl import Acl
from edge.stores.devices import Devices
from edge.stores.geo import Geo
from edge.stores.kv import KvEngine, identity_of
from edge.stores.rates import Rates
from edge.stores.records import signature
from edge.telemetry.service_block import ServiceBlock
from edge.upstream.client import Client
from edge.upstream.dial import NetworkDialer
from edge.upstream.egress import EgressPolicy
from edge.upstream.fetch import UpstreamFailed
from edge.upstream.h2 import make_h2
from edge.upstream.health import HealthMonitor
from edge.upstream.pool import PoolLimits
from edge.upstream.resolve import Resolver
from edge.upstream.tls import TlsContexts

log = logging.getLogger("edge.platform")

S = TypeVar("S")
T = TypeVar("T")

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
        default_loopback: bool = False,
        tolerant: bool = False,
    ) -> None:
        """Opens nothing.  `own_addresses`: where this server listens, which guests never reach.

        `max_connections`: to backends, of this process.  `on_failure` is told of each failed
        request when its guest or client learns of it.  `default_loopback`: see `Geo`.
        `tolerant`: a data file that cannot be read any more is logged, and ends no worker.
        """
        self._settings = settings  # that are served
        self._offered = settings  # that are being prepared
        self._own_addresses = own_addresses
        self._max_connections = max_connections
        self._on_failure = on_failure
        self._default_loopback = default_loopback
        self._tolerant = tolerant
        self._geo: Geo | None = None
        self._devices: Devices | None = None
        self._given: _Given | None = None  # to what is served
        # Of the snapshot that was prepared last, by id() of the service that is held beside them.
        self._acls: _Acls = {}
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
            self.dialer, limits=PoolLimits(open=self._max_connections), make_h2=make_h2
        )
        self._health = HealthMonitor(
            lambda service: self.client.for_service(service, checks=True),
            asyncio.get_running_loop(),
        )
        self.client.health_source = self._health

    async def prepare(self, settings: Settings, services: Sequence[Service]) -> bool:
        """Read what a snapshot needs of files, before its services are equipped.

        True when `equip` still gives what those that are served were given, as far as that is the
        same for all services.  What was made of the same `Service` object is used again.  Raises
        ConfigError, with nothing changed.
        """
        if self._geo is None or self._is_stale(settings):
            load_geo = partial(Geo.load, default_loopback=self._default_loopback)
            self._geo = await self._data(load_geo, settings.geolocation, self._geo or Geo({}))
            self._devices = await self._data(
                Devices.load, settings.device_detection, self._devices or Devices({})
            )
        # 200,000 entries take half a second: not on the loop.
        self._acls = await asyncio.to_thread(_acls, services, self._acls)
        self._offered = settings
        return self._given == self._gives

    async def aclose(self) -> None:
        """Close connections and stores; what was accepted for a store is written first."""
        self._health.close()
        await self.client.aclose()
        self.dialer.close()
        await self.kv.aclose()

    def equip(self, version: Version, block: ServiceBlock) -> Capabilities:
        """What guests of one version are given; what they use of it is counted in `block`."""
        service = version.service
        done = backend_counter(block, version.backend_slots)
        return Capabilities(
            upstream=self.client.for_service(service.name, on_done=done),
            backends=service.backends,
            on_failure=self._on_failure,
            shield_sites=self._offered.shielding_sites,
            kv_stores={
                name: CountedKvStore(self.kv.open(identity_of(service.name, name, shared)), block)
                for name, shared in service.kv_stores.items()
            },
            acls=self._acls[id(service)][1],
            geo=self._geo,
            devices=self._devices,
            rates=self.rates,
        )

    def commit(self, settings: Settings, services: Iterable[Service]) -> None:
        """A snapshot is served from now on: its egress policy, its health checks."""
        if settings.egress != self._settings.egress:
            self.dialer.policy = self._policy(settings)
            self.client.policy_changed()
        self._settings = settings
        self._given = self._gives
        backends: dict[str, list[Backend]] = {}  # a canary may have others than the active version
        for service in services:
            backends.setdefault(service.name, []).extend(service.backends.values())
        self._health.watch(backends)

    @property
    def _gives(self) -> _Given:
        return _Given(self._geo, self._devices, self._offered.shielding_sites)

    async def _data(self, load: Callable[[S], T], settings: S, before: T) -> T:
        """What a file holds; what was there before where that may stand in for it."""
        try:
            return await asyncio.to_thread(load, settings)
        except ConfigError as error:
            if not self._tolerant:
                raise
            log.error("%s; guests find what was read before, if anything, until a reload", error)
            return before

    def _is_stale(self, settings: Settings) -> bool:
        """Whether what was read of files is not what a snapshot asks for."""
        before = self._offered
        if (settings.geolocation, settings.device_detection) != (
            before.geolocation,
            before.device_detection,
        ):
            return True
        assert self._geo is not None
        assert self._devices is not None
        return (self._geo.signature, self._devices.signature) != (
            signature(settings.geolocation.file),
            signature(settings.device_detection.file),
        )

    def _policy(self, settings: Settings) -> EgressPolicy:
        return EgressPolicy(settings.egress, self._own_addresses)


@dataclass(frozen=True, slots=True)
class _Given:
    """What all services get alike; other tables are equal only to themselves."""

    geo: Geo | None
    devices: Devices | None
    shield_sites: Mapping[str, ShieldSite]


_Acls = dict[int, tuple[Service, dict[str, Acl]]]


def _acls(services: Iterable[Service], before: _Acls) -> _Acls:
    return {
        id(service): before.get(id(service))
        or (service, {name: Acl(entries) for name, entries in service.acls.items()})
        for service in services
    }

"""What guests of one service version can reach outside their sandbox.  Made once per version.

The features themselves live in `edge.stores` and `edge.upstream`; hostcalls find them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge.model.backend import Backend
from edge.settings import ShieldSite
from edge.stores.acl import Acl
from edge.stores.devices import Devices
from edge.stores.geo import Geo
from edge.stores.kv import KvStore
from edge.stores.rates import Rates
from edge.upstream.fetch import Upstream, UpstreamFailed

if TYPE_CHECKING:
    from edge.abi.sandbox import Sandbox


@dataclass(slots=True)
class Capabilities:
    """`box.capabilities`; fields that are None are features this process does not have."""

    upstream: Upstream | None = None  # without one, no backend is known
    backends: Mapping[str, Backend] = field(default_factory=dict)
    # Told of each request to a backend that failed, when its guest or client learns of it.
    on_failure: Callable[[Sandbox, Backend, UpstreamFailed], None] | None = None
    acls: Mapping[str, Acl] = field(default_factory=dict)
    geo: Geo | None = None
    devices: Devices | None = None
    rates: Rates | None = None
    shield_sites: Mapping[str, ShieldSite] = field(default_factory=dict)
    kv_stores: Mapping[str, KvStore] = field(default_factory=dict)  # by the name a guest uses


NO_CAPABILITIES = Capabilities()

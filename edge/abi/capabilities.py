"""What guests of one service version can reach outside their sandbox.  Made once per version.

The features themselves live in `edge.stores` and `edge.upstream`; hostcalls find them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.model.backend import Backend
from edge.settings import ShieldSite
from edge.upstream.fetch import Upstream


@dataclass(slots=True)
class Capabilities:
    """`box.capabilities`; fields that are None are features this process does not have."""

    upstream: Upstream | None = None
    backends: Mapping[str, Backend] = field(default_factory=dict)
    shield_sites: Mapping[str, ShieldSite] = field(default_factory=dict)


NO_CAPABILITIES = Capabilities()

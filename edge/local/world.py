"""What a local server serves: services, settings, and what a real installation keeps elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.local.faults import Fault
from edge.model.service import Service
from edge.settings import Egress, EgressRule, Settings

# A developer's program may reach everything that the developer can.
OPEN_EGRESS = Egress(allow=(EgressRule(host="*"),), private_networks=True)


@dataclass(frozen=True, slots=True)
class Seed:
    """What a KV store has under one key when the server starts."""

    data: bytes
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class LocalWorld:
    """Everything that a local server is told.  KV stores go by their shared names."""

    services: tuple[Service, ...]
    settings: Settings = field(default_factory=lambda: Settings(egress=OPEN_EGRESS))
    faults: Mapping[str, Mapping[str, Fault]] = field(default_factory=dict)  # service, backend
    seeds: Mapping[str, Mapping[str, Seed]] = field(default_factory=dict)  # KV store, key
    default_loopback: bool = True  # loopback addresses have a place
    valid_keys: frozenset[str] = frozenset()  # `fastly-key` values that count as valid
    kv_directory: Path | None = None  # None: KV stores are forgotten at the end

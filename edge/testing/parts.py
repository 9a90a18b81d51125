"""From what a test writes down, in Python's own types, to what a local server serves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from edge.local.faults import Fault
from edge.local.world import OPEN_EGRESS, LocalWorld, Seed
from edge.model.backend import Backend
from edge.model.backend_reader import read_origin
from edge.model.limits import Limits
from edge.model.platform_reader import read_acl
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Service
from edge.settings import DeviceDetection, Geolocation, Settings, ShieldSite

# A test machine is slow and shared, and the test is not about that: the CPU limit alone is wider.
TEST_LIMITS: Final = replace(Limits(), cpu=10.0, slots=1.0, queue_wait=30.0)

Value = str | bytes


def world_of(
    module: Path,
    *,
    name: str = "app",
    backends: Mapping[str, str | Backend] | None = None,
    backend_options: Mapping[str, Mapping[str, Any]] | None = None,
    config_stores: Mapping[str, Mapping[str, str]] | None = None,
    secret_stores: Mapping[str, Mapping[str, Value]] | None = None,
    kv_stores: Mapping[str, Mapping[str, Value | tuple[Value, Value]]] | None = None,
    acls: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    geolocation: Mapping[str, Mapping[str, Any]] | None = None,
    device_detection: Mapping[str, Mapping[str, Any]] | None = None,
    shielding_sites: Mapping[str, ShieldSite] | None = None,
    valid_keys: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    faults: Mapping[str, Fault] | None = None,
) -> LocalWorld:
    """One service and what it reaches.

    `backend_options`: fields of `edge.model.backend.Backend` besides the URL, by backend.
    `kv_stores`: a value, or a value and its metadata, by key.  `acls`: pairs of network and action.
    `limits`: fields of `edge.model.limits.Limits`; durations in seconds, sizes in bytes.
    """
    service = Service(
        name,
        module.absolute(),
        (Route(),),
        limits=replace(TEST_LIMITS, **(limits or {})),  # type: ignore[arg-type]
        env=dict(env or {}),
        config_stores={store: dict(items) for store, items in (config_stores or {}).items()},
        secret_stores={
            store: {key: Secret(_bytes(value)) for key, value in items.items()}
            for store, items in (secret_stores or {}).items()
        },
        backends={
            key: url
            if isinstance(url, Backend)
            else Backend(key, read_origin(url), **(backend_options or {}).get(key, {}))
            for key, url in (backends or {}).items()
        },
        kv_stores={store: store for store in kv_stores or {}},
        acls={store: read_acl(list(entries)) for store, entries in (acls or {}).items()},
    )
    settings = replace(
        Settings(),
        egress=OPEN_EGRESS,
        geolocation=Geolocation(
            addresses={
                str(ip_address(address)): json.dumps(record)
                for address, record in (geolocation or {}).items()
            }
        ),
        device_detection=DeviceDetection(
            user_agents={
                agent: json.dumps(record) for agent, record in (device_detection or {}).items()
            }
        ),
        shielding_sites=dict(shielding_sites or {}),
    )
    return LocalWorld(
        services=(service,),
        settings=settings,
        faults={name: dict(faults or {})},
        seeds={
            store: {key: _seed(value) for key, value in items.items()}
            for store, items in (kv_stores or {}).items()
        },
        valid_keys=frozenset(valid_keys),
    )


def _seed(value: Value | tuple[Value, Value]) -> Seed:
    if isinstance(value, tuple):
        return Seed(_bytes(value[0]), _bytes(value[1]))
    return Seed(_bytes(value))


def _bytes(value: Value) -> bytes:
    return value.encode() if isinstance(value, str) else value

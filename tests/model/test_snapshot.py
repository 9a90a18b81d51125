"""A snapshot survives the pipe to a worker whole, and answers which version serves a request."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.model.parse import parse_config
from edge.model.route import Miss
from edge.model.secret import Secret
from edge.model.service import Role, Version
from edge.model.snapshot import Snapshot

DOCUMENT = """
server: {listen: ["127.0.0.1:1", "[::1]:2"], trusted_proxies: [10.0.0.0/8, "fd00::/8"], workers: 2}
log: {access: text, file: access.log}
metrics: {listen: "127.0.0.1:3"}
services:
  shop:
    module: shop.wasm
    routes: [{host: shop.example}, {host: "*", path: {exact: /shop}}]
    limits: {cpu: 20ms, slots: 100%}
    env: {A: b}
    config_stores: {flags: {on: "true"}}
    secret_stores: {keys: {api: "hunter2 \\xff"}}
  idle: {module: idle.wat, routes: [{host: idle.example, path: /x}]}
"""


def snapshot() -> Snapshot:
    config = parse_config(DOCUMENT, source="test", base=Path("/etc/edge"), env={})
    shop, idle = config.services
    return Snapshot(
        7,
        config.settings,
        (
            Version(shop, 3, sha256="ab" * 32, artifact=Path("/var/cache/shop.cwasm"), series=1),
            Version(idle, 1, refused="not WebAssembly", quarantined=True),
        ),
    )


def test_a_snapshot_crosses_the_pipe_unchanged_secrets_included() -> None:
    sent = snapshot()
    received = Snapshot.from_json(json.loads(json.dumps(sent.to_json())))
    assert received == sent
    secrets = received.versions[0].service.secret_stores["keys"]
    assert secrets["api"].reveal() == "hunter2 \xff".encode()


def test_lookup_gives_the_version_or_the_reason_for_none() -> None:
    served = snapshot()
    shop, idle = served.versions
    assert served.lookup(b"shop.example", b"/a/b") is shop
    assert served.lookup(b"other.example", b"/shop") is shop
    assert served.lookup(b"idle.example", b"/x/y") is idle
    assert served.lookup(b"idle.example", b"/") is Miss.PATH


def test_a_snapshot_with_the_same_route_twice_cannot_be_built() -> None:
    served = snapshot()
    with pytest.raises(ConfigError, match=r"two routes for shop\.example"):
        Snapshot(8, served.settings, served.versions + served.versions[:1])


def test_a_snapshot_of_another_shape_is_refused() -> None:
    plain = snapshot().to_json()
    with pytest.raises(TypeError):
        Snapshot.from_json({**plain, "generation": "7"})
    with pytest.raises(KeyError):
        Snapshot.from_json({"generation": 7})


def test_a_secret_is_neither_printed_nor_pickled() -> None:
    secret = Secret(b"hunter2")
    assert "hunter2" not in f"{secret!r} {secret}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_routes_lead_to_the_active_version_alone_and_a_canary_may_have_the_same() -> None:
    served = snapshot()
    shop, idle = served.versions
    beside = (
        replace(shop, number=4, role=Role.CANARY, share=100),
        shop,
        replace(shop, number=5, role=Role.STAGED),
    )
    several = Snapshot(8, served.settings, (*beside, idle))
    assert several.lookup(b"shop.example", b"/a/b") is shop
    assert several.lookup(b"idle.example", b"/x/y") is idle
    only_staged = Snapshot(9, served.settings, (beside[2],))
    assert only_staged.lookup(b"shop.example", b"/") is Miss.HOST


def test_a_snapshot_with_the_same_routes_takes_the_table_of_the_one_before() -> None:
    served = snapshot()
    shop, idle = served.versions
    again = Snapshot(8, served.settings, (replace(shop, number=4), idle), like=served)
    assert again.routes is served.routes
    moved = Snapshot(9, served.settings, (idle, shop), like=served)
    assert moved.lookup(b"shop.example", b"/") is shop
    without = Snapshot(9, served.settings, (replace(shop, role=Role.STAGED), idle), like=served)
    assert without.lookup(b"shop.example", b"/") is Miss.HOST


def test_two_services_of_one_name_cannot_be_served_even_without_routes() -> None:
    served = snapshot()
    shop, _ = served.versions
    staged = replace(shop, role=Role.STAGED)
    with pytest.raises(ConfigError, match=r"services\.shop@3: two services have this name"):
        Snapshot(8, served.settings, (shop, staged, staged), like=served)

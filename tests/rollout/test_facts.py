"""What the control API shows of the server: no secrets, and every version in its role."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.admin.status import Status
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Role, Service, Version
from edge.model.snapshot import Snapshot
from edge.rollout.facts import configuration_of, deployed_routes, file_services_of, nodes_of
from edge.settings import Settings
from edge.supervisor.world import World

FILED = Version(Service("filed", Path("/f"), (Route("f.test"),)), 3, "f" * 64, refused="too large")
SHOP = Version(
    Service("shop", Path("/s"), (Route("s.test"),)), 1, "a" * 64, Path("/code"), id="id-shop"
)
CANARY = replace(SHOP, number=2, role=Role.CANARY, quarantined=True)
WORLD = World(Snapshot(7, Settings(), (FILED, SHOP, CANARY)), {})


@dataclass(frozen=True)
class WithSecrets:
    plain: str = "seen"
    hidden: Secret = field(default_factory=lambda: Secret(b"unseen"))
    several: tuple[Secret, ...] = (Secret(b"unseen"),)


def test_the_settings_are_plain_and_secrets_are_masked() -> None:
    shown = configuration_of(Settings())
    assert json.loads(json.dumps(shown))["deploy"]["domain"] == "localhost"
    hiding = configuration_of(WithSecrets())  # type: ignore[arg-type]  # settings have none today
    assert hiding == {"plain": "seen", "hidden": "***", "several": ["***"]}


def test_services_of_the_file_are_told_with_their_state() -> None:
    (found,) = file_services_of(WORLD)
    assert (found.name, found.number, found.state, found.reason, found.routes) == (
        "filed",
        3,
        "refused",
        "too large",
        ("f.test /",),
    )


def test_only_active_versions_have_routes() -> None:
    assert deployed_routes(WORLD) == [("shop", SHOP.service.routes), ("shop", ())]


def test_a_node_shows_every_version_in_its_role() -> None:
    status = Status("1.0", ready=True, draining=False, generation=7, workers=(), services=())
    (node,) = nodes_of(status, WORLD)
    services = node["services"]
    assert isinstance(services, list)
    assert [(s["service"], s["version"], s["role"], s["state"]) for s in services] == [
        ("filed", 3, "active", "refused"),
        ("shop", 1, "active", "loaded"),
        ("shop", 2, "canary", "quarantined"),
    ]

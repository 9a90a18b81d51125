"""What the control API tells of the server as it is: pure views of the world and the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge.admin.control import FileService
from edge.admin.status import ServiceState, Status
from edge.model.plain import to_plain
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Role, Version
from edge.settings import Settings
from edge.supervisor.world import World

MASKED: Final = "***"


def state_of(version: Version) -> ServiceState:
    """Whether it answers."""
    if version.refused:
        return ServiceState.REFUSED
    return ServiceState.QUARANTINED if version.quarantined else ServiceState.LOADED


def file_services_of(world: World) -> tuple[FileService, ...]:
    """Those of the configuration file."""
    return tuple(
        FileService(
            name=version.service.name,
            number=version.number,
            sha256=version.sha256,
            state=state_of(version).value,
            reason=version.refused,
            routes=tuple(map(str, version.service.routes)),
        )
        for version in world.snapshot.versions
        if not version.id
    )


def deployed_routes(world: World) -> list[tuple[str, Sequence[Route]]]:
    """Names of the services of the catalogue that are served, and the routes that lead to them."""
    return [
        (version.service.name, version.service.routes if version.role is Role.ACTIVE else ())
        for version in world.snapshot.versions
        if version.id
    ]


def configuration_of(settings: Settings) -> Mapping[str, object]:
    """The settings in force as plain values: durations in seconds, sizes in bytes."""
    plain = to_plain(settings)
    masked = _masked(settings, plain)
    assert isinstance(masked, dict)
    return masked


def _masked(value: object, plain: Any) -> Any:
    """`plain`, the plain form of `value`, without anything that is a secret there."""
    if isinstance(value, Secret):
        return MASKED
    if isinstance(value, Mapping):
        return {key: _masked(value[key], plain[key]) for key in plain}
    if isinstance(plain, dict):
        return {key: _masked(getattr(value, key), item) for key, item in plain.items()}
    if isinstance(plain, list) and isinstance(value, tuple):
        return [_masked(one, item) for one, item in zip(value, plain, strict=True)]
    return plain


def nodes_of(status: Status, world: World) -> Sequence[Mapping[str, object]]:
    """This node, the only one there is."""
    versions = world.snapshot.versions
    return (
        {
            "id": "local",
            "version": status.version,
            "ready": status.ready,
            "draining": status.draining,
            "generation": status.generation,
            "workers": [
                {
                    "slot": worker.slot,
                    "pid": worker.pid,
                    "phase": worker.phase,
                    "generation": worker.generation,
                }
                for worker in status.workers
            ],
            "services": [
                {
                    "service": version.service.name,
                    "id": version.id,
                    "version": version.number,
                    "role": version.role.value,
                    "sha256": version.sha256,
                    "state": state_of(version).value,
                }
                for version in versions
            ],
        },
    )

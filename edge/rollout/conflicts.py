"""Who owns which name and which route, where the file and the catalogue meet.  Pure.

The file was there first: what a developer deploys may take nothing from it.  What is deployed is
not taken away by a reload either; a start that finds both refuses to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge.errors import ApiRefused, ConfigError, Problem, Refusal
from edge.model.route import Route
from edge.model.service import Role, Service, Version


def refuse_taken(service_id: str, versions: Sequence[Version], present: Iterable[Version]) -> None:
    """ApiRefused when what a service would serve belongs to another one that is served."""
    others = [version for version in present if version.id != service_id]
    for version in versions:
        name = version.service.name
        if any(not other.id and other.service.name == name for other in others):
            raise ApiRefused(
                Refusal.OWNED_BY_FILE,
                f"the configuration file has a service {name}; deploy under another name",
            )
        if version.role is Role.ACTIVE:
            _refuse_routes(version, [other for other in others if other.role is Role.ACTIVE])


def _refuse_routes(version: Version, others: Sequence[Version]) -> None:
    taken = {route.key: other for other in others for route in other.service.routes}
    problems = tuple(
        Problem(f"routes[{position}]", f"{route} belongs to {_owner(taken[route.key])}")
        for position, route in enumerate(version.service.routes)
        if route.key in taken
    )
    if problems:
        raise ApiRefused(
            Refusal.ROUTE_CONFLICT,
            f"another service has a route of {version.service.name}; choose another domain",
            problems=problems,
        )


def _owner(version: Version) -> str:
    name = version.service.name
    return f"service {name}" if version.id else f"service {name} of the configuration file"


def check_file(
    services: Sequence[Service], deployed: Iterable[tuple[str, Sequence[Route]]]
) -> None:
    """ConfigError when the document claims a name or a route of a service that was deployed.

    `deployed` has the name of each that is served, and the routes of its active version.
    """
    problems: list[Problem] = []
    names = {service.name for service in services}
    claimed = {
        route.key: (service.name, position)
        for service in services
        for position, route in enumerate(service.routes)
    }
    for name, routes in deployed:
        if name in names:
            problems.append(
                Problem(
                    f"services.{name}",
                    f"a service {name} was deployed through the control API and is being served: "
                    "rename this one, or delete that one first",
                )
            )
        for route in routes:
            claim = claimed.get(route.key)
            if claim is not None and claim[0] != name:
                problems.append(
                    Problem(
                        f"services.{claim[0]}.routes[{claim[1]}]",
                        f"{route} belongs to service {name}, which was deployed through the "
                        "control API: give one of them another route",
                    )
                )
    if problems:
        raise ConfigError(*problems)

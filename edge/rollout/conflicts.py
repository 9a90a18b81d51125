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


def refuse_foreign_hosts(
    service_id: str, versions: Sequence[Version], present: Iterable[Version], domain: str | None
) -> None:
    """ApiRefused when a service would take a part of a host that another one serves.

    The most specific route wins, so `shop.example/login` would get what clients mean for the
    service of `shop.example`.  An operator may want that; a token of one service is not asked.
    """
    present = tuple(present)
    for version in versions:
        service = version.service
        if version.role is not Role.ACTIVE:
            continue
        problems = foreign_hosts(service_id, service.name, service.routes, present, domain)
        if problems:
            raise ApiRefused(
                Refusal.ROUTE_CONFLICT,
                f"{service.name} would take a part of a host that another service has, which a "
                "token of one service may not; choose another domain",
                problems=problems,
            )


def foreign_hosts(
    service_id: str,
    name: str,
    routes: Sequence[Route],
    present: Iterable[Version],
    domain: str | None,
) -> tuple[Problem, ...]:
    """One for each route of a service whose host another service answers on now.

    What the service has at present stays its own.  Its name below `domain` is its own as well where
    the other has no more than a wildcard above it.
    """
    active = [version for version in present if version.role is Role.ACTIVE]
    own = {route.key for v in active if v.id == service_id for route in v.service.routes}
    owners = _hosts_of_others(service_id, active)
    default = f"{name}.{domain}".lower()
    return tuple(
        Problem(f"routes[{position}]", f"{host} belongs to {_owner(owners[host])}")
        for position, route in enumerate(routes)
        if route.key not in own
        for host in ([route.host] if route.host == default else _covering(route.host))
        if host in owners
    )


def shared_hosts(
    service_id: str, versions: Iterable[Version], present: Iterable[Version]
) -> tuple[str, ...]:
    """Warnings: hosts of a service that others answer on as well, by path."""
    owners = _hosts_of_others(service_id, present)
    hosts = [route.host for v in versions if v.role is Role.ACTIVE for route in v.service.routes]
    return tuple(
        f"the host {host} is shared with {_owner(owners[host])}: the longest path decides"
        for host in dict.fromkeys(hosts)
        if host in owners
    )


def _hosts_of_others(service_id: str, present: Iterable[Version]) -> dict[str, Version]:
    return {
        route.host: version
        for version in present
        if version.id != service_id and version.role is Role.ACTIVE
        for route in version.service.routes
    }


def _covering(host: str) -> list[str]:
    """The host, and every wildcard but `*` that has it, the most specific first."""
    labels = host.removeprefix("*.").split(".")
    return [host, *(f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels)))]


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
        raise ConfigError(*dict.fromkeys(problems))  # a service may serve several versions

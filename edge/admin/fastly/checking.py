"""Whether what clients of Fastly's API say makes sense, asked of the reader of definitions.

Each thing is looked at when it is said, so that its author hears of it then, and not when a version
is activated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.catalogue import definition, parts, services, versions
from edge.catalogue.records import PartKind
from edge.errors import ApiRefused, Problem, Refusal
from edge.model.definition import read_definition

if TYPE_CHECKING:
    from edge.admin.around import Around
    from edge.catalogue.database import Transaction

Data = Mapping[str, object]


def check_backend(name: str, data: Data) -> None:
    """Raises ApiRefused INVALID with every problem."""
    problems = _problems({"backends": {name: _keys(data)}})
    _refuse(f"the backend {name!r}", f"backends.{name}", problems)


def check_health_check(name: str, data: Data) -> None:
    """Raises ApiRefused INVALID with every problem."""
    backend = {"url": "http://example.com", "health_check": _keys(data)}
    problems = _problems({"backends": {"any": backend}})
    _refuse(f"the health check {name!r}", "backends.any.health_check", problems)


def problems_of(tx: Transaction, around: Around, service: str, number: int) -> list[str]:
    """Why a version could not be activated, as far as the catalogue tells."""
    found = versions.get(tx, service, number)
    problems: list[str] = []
    if found.package is None:
        problems.append(f"version {number} has no package")
    domains = parts.listing(tx, service, number, PartKind.DOMAIN)
    if not domains and around.settings.deploy.domain is None:
        problems.append(f"version {number} has no domain")
    checks = {part.name for part in parts.listing(tx, service, number, PartKind.HEALTH_CHECK)}
    for part in parts.listing(tx, service, number, PartKind.BACKEND):
        kept = part.data.get("fastly")
        wanted = kept.get("healthcheck") if isinstance(kept, Mapping) else None
        if wanted and wanted not in checks:
            problems.append(f"the backend {part.name!r} names no health check: {wanted!r}")
    try:
        read_definition(
            services.get(tx, service).name,
            definition.fields(tx, service, number),
            defaults=around.limits,
            ceilings=around.ceilings,
        )
    except ApiRefused as refused:
        problems += map(str, refused.problems)
    return problems


def _problems(fields: dict[str, object]) -> tuple[Problem, ...]:
    try:
        read_definition("service", fields)
    except ApiRefused as refused:
        return refused.problems
    return ()


def _refuse(what: str, path: str, problems: tuple[Problem, ...]) -> None:
    """Problems, each with the key alone."""
    if problems:
        plain = tuple(
            Problem(problem.path.removeprefix(path).removeprefix("."), problem.message)
            for problem in problems
        )
        raise ApiRefused(Refusal.INVALID, f"{what} cannot be used", problems=plain)


def _keys(data: Data) -> dict[str, object]:
    return {key: value for key, value in data.items() if key != "fastly"}

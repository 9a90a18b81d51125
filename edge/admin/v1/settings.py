"""What the settings of a version mean for its module, before there is a whole service to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.admin.around import Around
from edge.errors import ApiRefused, ConfigError, Refusal
from edge.model.limits import Limits
from edge.model.parse import parse_service
from edge.model.service import UnknownImports

_RELEVANT = ("limits", "unknown_imports")


@dataclass(frozen=True, slots=True)
class ModuleNeeds:
    """What a module is compared with."""

    limits: Limits
    trap_unknown: bool  # imports that we do not have end the request that calls them


def module_needs(around: Around, name: str, settings: Mapping[str, object]) -> ModuleNeeds:
    """Raises ApiRefused INVALID for settings that are not allowed, or not any more."""
    fields = {key: settings[key] for key in _RELEVANT if key in settings}
    try:
        service = parse_service(
            name,
            {**fields, "routes": [{"host": "*"}]},
            module=Path("/module"),
            defaults=around.limits,
            ceilings=around.ceilings,
        )
    except ConfigError as error:
        raise ApiRefused(
            Refusal.INVALID,
            f"the settings of {name}: {error.problems[0]}",
            problems=error.problems,
        ) from None
    return ModuleNeeds(service.limits, service.unknown_imports is UnknownImports.TRAP)

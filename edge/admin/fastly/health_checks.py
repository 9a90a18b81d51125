"""Health checks of a version, as Fastly's API has them; backends name the one they have."""

from __future__ import annotations

from collections.abc import Mapping

from edge.admin.api import Route
from edge.admin.around import Around
from edge.admin.fastly import health_check_fields
from edge.admin.fastly.checking import check_health_check
from edge.admin.fastly.shape import Form
from edge.admin.fastly.version_parts import PartEndpoints
from edge.catalogue.records import PartKind


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = PartEndpoints(around, PartKind.HEALTH_CHECK, _changed, health_check_fields.shown)
    return here.routes("healthcheck")


def _changed(name: str, data: Mapping[str, object], form: Form) -> tuple[str, Mapping[str, object]]:
    after = health_check_fields.changed(data, form)
    check_health_check(name, after)
    return name, after

"""Backends of a version, as Fastly's API has them."""

from __future__ import annotations

from collections.abc import Mapping

from edge.admin.api import Route
from edge.admin.around import Around
from edge.admin.fastly import backend_fields
from edge.admin.fastly.checking import check_backend
from edge.admin.fastly.shape import Form
from edge.admin.fastly.version_parts import PartEndpoints
from edge.catalogue.records import PartKind


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = PartEndpoints(around, PartKind.BACKEND, _changed, backend_fields.shown)
    return here.routes("backend")


def _changed(name: str, data: Mapping[str, object], form: Form) -> tuple[str, Mapping[str, object]]:
    after = backend_fields.changed(data, form)
    check_backend(name, after)
    return name, after

"""A server as `edge nodes` and `edge status` show it: its facts, its workers, what they serve."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from edge.client.show import facts, rows_of, table

_WORKER = (">slot", ">pid", "phase", ">generation")
_SERVICE = ("service", ">version", "role", "state", "sha256", "reason")


def node_view(node: Mapping[str, object]) -> RenderableType:
    """Everything that the server says; what is not known here is shown as JSON."""
    shown: list[RenderableType] = [
        facts(
            (
                key.replace("_", " "),
                json.dumps(value) if isinstance(value, dict | list) else value,
            )
            for key, value in node.items()
            if key not in ("workers", "services")
        )
    ]
    if workers := _rows(node.get("workers")):
        columns = tuple(name.lstrip(">") for name in _WORKER)
        shown += [Text(), table(_WORKER, ([one.get(key) for key in columns] for one in workers))]
    if services := _rows(node.get("services")):
        shown += [Text(), table(_SERVICE, map(_served, services))]
    return Lines(*shown)


def _rows(value: object) -> list[Mapping[str, object]]:
    return rows_of(value) if isinstance(value, list) else []


def _served(one: Mapping[str, object]) -> tuple[object, ...]:
    return (
        one.get("service") or one.get("name"),
        one.get("version"),
        one.get("role"),
        one.get("state"),
        str(one.get("sha256", ""))[:12],
        one.get("reason") or None,
    )

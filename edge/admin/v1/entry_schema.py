"""How `/v1` describes entries of stores: their facts, many changes at once, how many there were."""

from __future__ import annotations

from typing import Final

from edge.admin import schema
from edge.admin.schema import Schema

MAX_CHANGES: Final = 1000  # of one batch
MAX_BODY: Final = 16 * 1024 * 1024  # bytes: MAX_CHANGES long values, escaped; 200,000 networks
CHANGED: Final = schema.obj({"changed": schema.number(kind="integer")})
_OP: Final = schema.one_of("create", "update", "upsert", "delete")


def entry(key: str, value: str) -> Schema:
    """An entry, by what its two texts are called."""
    names = (key, value, "created_at", "updated_at")
    return schema.obj({name: schema.text() for name in names})


def batch(under: str, keys: dict[str, Schema], values: dict[str, Schema]) -> Schema:
    """Changes, which name a key and may have a value."""
    return schema.obj({under: schema.array(schema.obj({"op": _OP, **keys}, values), MAX_CHANGES)})

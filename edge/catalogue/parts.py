"""Parts of a version: domains, backends, health checks, links to stores, dictionaries, ACLs.

What their data says is judged by `edge.model.definition`; here it is bounded and kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edge.catalogue import part_rows, versions
from edge.catalogue.ids import new_id
from edge.catalogue.part_rows import (
    MOST,
    check_name,
    columns_of,
    insert,
    part_of,
    store_of,
    told,
    too_many,
)
from edge.catalogue.records import Part, PartKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def add(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    name: str,
    data: Mapping[str, object],
    *,
    expect: int | None = None,
) -> Part:
    """ApiRefused NOT_FOUND, VERSION_LOCKED, CONFLICT, LIMIT, INVALID, PRECONDITION_FAILED."""
    versions.changeable(tx, service, number, expect)
    check_name(kind, name)
    if _by_name(tx, service, number, kind, name) is not None:
        raise _taken(number, kind, name)
    counted = tx.count(
        "SELECT count(*) FROM part WHERE service = ? AND number = ? AND kind = ?",
        service, number, kind.value,
    )  # fmt: skip
    if counted >= MOST[kind]:
        raise too_many(kind)
    insert(tx, service, number, kind, new_id(), name, data, tx.now)
    _changed(tx, service, number, f"{kind.value}.create", None, {name: dict(told(kind, data))})
    return get(tx, service, number, kind, name)


def get(tx: Transaction, service: str, number: int, kind: PartKind, name_or_id: str) -> Part:
    """By name, or else by id.  ApiRefused NOT_FOUND."""
    row = _by_name(tx, service, number, kind, name_or_id)
    if row is None:
        row = tx.one(
            "SELECT * FROM part WHERE service = ? AND number = ? AND kind = ? AND id = ?",
            service, number, kind.value, name_or_id,
        )  # fmt: skip
    if row is None:
        versions.get(tx, service, number)
        raise ApiRefused(Refusal.NOT_FOUND, f"version {number} has no {kind.value} {name_or_id!r}")
    return part_of(tx, row)


def listing(tx: Transaction, service: str, number: int, kind: PartKind) -> list[Part]:
    """All, by name; none where there is no such version."""
    return part_rows.listing(tx, service, number, kind)


def update(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    name_or_id: str,
    *,
    name: str | None = None,
    data: Mapping[str, object] | None = None,
    expect: int | None = None,
) -> Part:
    """Change what is given; it keeps its id.  ApiRefused as `add`, but no LIMIT."""
    versions.changeable(tx, service, number, expect)
    found = get(tx, service, number, kind, name_or_id)
    new_name = found.name if name is None else name
    new_data = found.data if data is None else data
    if new_name != found.name:
        check_name(kind, new_name)
        if _by_name(tx, service, number, kind, new_name) is not None:
            raise _taken(number, kind, new_name)
    text, secret, sealed_by = columns_of(tx, kind, found.id, new_name, new_data)
    tx.run(
        "UPDATE part SET name = ?, data = ?, store = ?, secret = ?, sealed_by = ?, updated_at = ? "
        "WHERE service = ? AND number = ? AND id = ?",
        new_name, text, store_of(tx, kind, new_data), secret, sealed_by, tx.now,
        service, number, found.id,
    )  # fmt: skip
    _changed(
        tx, service, number, f"{kind.value}.update",
        {found.name: dict(told(kind, found.data))}, {new_name: dict(told(kind, new_data))},
    )  # fmt: skip
    return get(tx, service, number, kind, new_name)


def remove(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    name_or_id: str,
    *,
    expect: int | None = None,
) -> Part:
    """The part that is gone.  ApiRefused NOT_FOUND, VERSION_LOCKED, PRECONDITION_FAILED."""
    versions.changeable(tx, service, number, expect)
    found = get(tx, service, number, kind, name_or_id)
    tx.run(
        "DELETE FROM part WHERE service = ? AND number = ? AND id = ?", service, number, found.id
    )
    _changed(
        tx,
        service,
        number,
        f"{kind.value}.delete",
        {found.name: dict(told(kind, found.data))},
        None,
    )
    return found


def _changed(
    tx: Transaction, service: str, number: int, action: str, before: object, after: object
) -> None:
    versions.touch(tx, service, number)
    tx.record(action, versions.subject(tx, service, number), before, after)


def _by_name(
    tx: Transaction, service: str, number: int, kind: PartKind, name: str
) -> sqlite3.Row | None:
    return tx.one(
        "SELECT * FROM part WHERE service = ? AND number = ? AND kind = ? AND name = ?",
        service, number, kind.value, name,
    )  # fmt: skip


def _taken(number: int, kind: PartKind, name: str) -> ApiRefused:
    return ApiRefused(Refusal.CONFLICT, f"version {number} has a {kind.value} {name!r} already")

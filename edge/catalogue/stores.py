"""Stores that services are linked to: their names and owners.  What is in them: `entries`."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from edge.catalogue.checks import expect_revision, read
from edge.catalogue.ids import new_id
from edge.catalogue.records import Page, Store, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_name

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

MOST_OF_ONE = 200  # stores of a kind that one service owns: it must not take those of all others
OWNED = (StoreKind.DICTIONARY, StoreKind.SERVICE_ACL)  # their names are unique in a service


def create(tx: Transaction, kind: StoreKind, name: str, *, owner: str = "") -> Store:
    """`owner` is the id of the service that alone may link it.  CONFLICT, INVALID, LIMIT."""
    read("name", name, read_name)
    if kind in OWNED and not owner:
        raise ApiRefused(Refusal.INVALID, f"a {kind.value} belongs to a service; none is named")
    if owner and tx.one("SELECT 1 FROM service WHERE id = ?", owner) is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no service with the id {owner!r}")
    if _by_name(tx, kind, name, owner) is not None:
        raise _taken(kind, name)
    if tx.count("SELECT count(*) FROM store WHERE kind = ?", kind.value) >= tx.limits.stores:
        raise ApiRefused(
            Refusal.LIMIT,
            f"there are {tx.limits.stores} stores of kind {kind.value}; delete one, or raise "
            "deploy.stores",
        )
    if (
        owner
        and tx.count("SELECT count(*) FROM store WHERE kind = ? AND owner = ?", kind.value, owner)
        >= MOST_OF_ONE
    ):
        raise ApiRefused(
            Refusal.LIMIT,
            f"the service owns {MOST_OF_ONE} stores of kind {kind.value}; delete one",
        )
    made = new_id()
    tx.run(
        "INSERT INTO store (id, kind, name, owner, created_at, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        made, kind.value, name, owner or None, tx.now, tx.now,
    )  # fmt: skip
    tx.record("store.create", subject(kind, name), None, {"id": made, "owner": owner})
    return get(tx, made)


def get(tx: Transaction, store: str) -> Store:
    """By id.  ApiRefused NOT_FOUND."""
    row = tx.one("SELECT * FROM store WHERE id = ?", store)
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no store with the id {store!r}")
    return _store(row)


def find(tx: Transaction, kind: StoreKind, name_or_id: str, owner: str = "") -> Store:
    """By id, or else by name; of a dictionary or a service's ACL, of that owner.  NOT_FOUND."""
    row = tx.one("SELECT * FROM store WHERE id = ? AND kind = ?", name_or_id, kind.value)
    if row is None or (owner and kind in OWNED and row["owner"] != owner):
        row = _by_name(tx, kind, name_or_id, owner)
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no {kind.value} store {name_or_id!r}")
    return _store(row)


def listing(
    tx: Transaction, kind: StoreKind, page: Page, *, name: str = "", owner: str | None = None
) -> list[Store]:
    """By name; of one name or one owner where that is given (empty: those that nobody owns)."""
    rows = tx.all(
        "SELECT * FROM store WHERE kind = ?1 AND name > ?2 AND (?3 = '' OR name = ?3) "
        "AND (?4 IS NULL OR coalesce(owner, '') = ?4) ORDER BY name, id LIMIT ?5",
        kind.value, page.after, name, owner, page.limit,
    )  # fmt: skip
    return [_store(row) for row in rows]


def owned(tx: Transaction, service: str, kind: StoreKind | None = None) -> list[Store]:
    """All that go when the service is deleted, by kind and name."""
    rows = tx.all(
        "SELECT * FROM store WHERE owner = ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY kind, name",
        service, kind.value if kind else None,
    )  # fmt: skip
    return [_store(row) for row in rows]


def rename(tx: Transaction, store: str, name: str, *, expect: int | None = None) -> Store:
    """Links go by id and stay.  NOT_FOUND, CONFLICT, INVALID, PRECONDITION_FAILED."""
    found = get(tx, store)
    expect_revision(f"the store {found.name}", expect, found.revision)
    if name == found.name:
        return found
    read("name", name, read_name)
    if _by_name(tx, found.kind, name, found.owner) is not None:
        raise _taken(found.kind, name)
    tx.run("UPDATE store SET name = ? WHERE id = ?", name, store)
    touch(tx, store)
    tx.record("store.rename", subject(found.kind, found.name), {"name": found.name}, {"name": name})
    return get(tx, store)


def delete(tx: Transaction, store: str, *, force: bool = False, expect: int | None = None) -> None:
    """With its entries.  IN_USE while a served version links it, unless `force`.

    Versions that link it keep the link, which then leads nowhere.
    """
    found = get(tx, store)
    expect_revision(f"the store {found.name}", expect, found.revision)
    users = linked(tx, store, served=True)
    if users and not force:
        service, number = users[0]
        row = tx.one("SELECT name FROM service WHERE id = ?", service)
        name = row["name"] if row else service
        raise ApiRefused(
            Refusal.IN_USE,
            f"version {number} of {name} is served and uses the {found.kind.value} store "
            f"{found.name!r}" + (f", as do {len(users) - 1} more" if len(users) > 1 else ""),
        )
    tx.run("DELETE FROM store WHERE id = ?", store)
    tx.record(
        "store.delete",
        subject(found.kind, found.name),
        {"id": store, "owner": found.owner, "entries": found.entries},
        None,
    )


def linked(tx: Transaction, store: str, *, served: bool = False) -> list[tuple[str, int]]:
    """Service id and number of the versions that use it: all, or those that are served."""
    rows = tx.all(
        "SELECT DISTINCT part.service, part.number FROM part "
        "JOIN service ON service.id = part.service WHERE part.store = ?1 "
        "AND (NOT ?2 OR part.number IN (service.active, service.staged, service.canary)) "
        "ORDER BY part.service, part.number",
        store, served,
    )  # fmt: skip
    return [(row["service"], row["number"]) for row in rows]


def left(tx: Transaction, store: str) -> list[tuple[str, int]]:
    """The served versions that had a link to a store that has gone."""
    rows = tx.all(
        "SELECT DISTINCT part.service, part.number FROM service "
        "JOIN part ON part.service = service.id "
        "AND part.number IN (service.active, service.staged, service.canary) "
        "WHERE part.store IS NULL AND part.kind IN ('link', 'dictionary', 'acl') "
        "AND json_extract(part.data, '$.store') = ? ORDER BY part.service, part.number",
        store,
    )
    return [(row["service"], row["number"]) for row in rows]


def touch(tx: Transaction, store: str) -> None:
    """It, or something in it, has changed."""
    tx.run("UPDATE store SET revision = revision + 1, updated_at = ? WHERE id = ?", tx.now, store)


def subject(kind: StoreKind, name: str) -> str:
    """What the audit log calls it."""
    return f"stores/{kind.value}/{name}"


def _by_name(tx: Transaction, kind: StoreKind, name: str, owner: str) -> sqlite3.Row | None:
    if kind in OWNED:
        return tx.one(
            "SELECT * FROM store WHERE kind = ? AND owner = ? AND name = ?", kind.value, owner, name
        )
    return tx.one("SELECT * FROM store WHERE kind = ? AND name = ?", kind.value, name)


def _taken(kind: StoreKind, name: str) -> ApiRefused:
    return ApiRefused(Refusal.CONFLICT, f"there is a {kind.value} store {name!r} already")


def _store(row: sqlite3.Row) -> Store:
    return Store(
        id=row["id"],
        kind=StoreKind(row["kind"]),
        name=row["name"],
        owner=row["owner"] or "",
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        entries=row["entries"],
    )

"""Entries of config stores, dictionaries, secret stores and ACLs.

Values of secrets are sealed before SQL sees them, and only `reveal` opens them.  A store may be
named by its id or by a record, which may be stale: it is read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge.catalogue import entry_rules, stores
from edge.catalogue.checks import expect_revision
from edge.catalogue.entry_rules import NETWORKS, read_key, read_value
from edge.catalogue.ids import new_id
from edge.catalogue.records import Entry, Page, Store, StoreKind
from edge.catalogue.sealed import unseal
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def listing(tx: Transaction, store: Store | str, page: Page, *, prefix: str = "") -> list[Entry]:
    """By key; values of secrets are left out."""
    found = _found(tx, store)
    rows = tx.all(
        "SELECT * FROM entry WHERE store = ?1 AND key > ?2 AND key >= ?3 "
        "AND substr(key, 1, length(?3)) = ?3 ORDER BY key LIMIT ?4",
        found.id, page.after, prefix, page.limit,
    )  # fmt: skip
    return [_entry(found, row) for row in rows]


def get(tx: Transaction, store: Store | str, key_or_id: str) -> Entry:
    """By id, in ACLs, or else by key.  ApiRefused NOT_FOUND."""
    found = _found(tx, store)
    return _entry(found, _row(tx, found, key_or_id))


def contents(tx: Transaction, store: Store | str) -> dict[str, bytes]:
    """All values of a store that holds no secrets, by key."""
    found = _found(tx, store)
    if found.kind is StoreKind.SECRET:
        raise ApiRefused(Refusal.INVALID, "values of secrets are not given out")
    rows = tx.all("SELECT key, value FROM entry WHERE store = ? ORDER BY key", found.id)
    return {row["key"]: row["value"] for row in rows}


def total_bytes(tx: Transaction, store: Store | str) -> int:
    """What the keys and values of a store take together; of secrets, as they are sealed."""
    return tx.count("SELECT bytes FROM store WHERE id = ?", _found(tx, store).id)


def served_bytes(tx: Transaction) -> dict[str, int]:
    """The same of all stores that the served versions of each service are linked to, by its id."""
    rows = tx.all(
        "SELECT part.service, sum(store.bytes) AS size FROM part "
        "JOIN service ON service.id = part.service JOIN store ON store.id = part.store "
        "WHERE part.number IN (service.active, service.staged, service.canary) "
        "GROUP BY part.service"
    )
    return {row["service"]: int(row["size"]) for row in rows}


def reveal(tx: Transaction, store: Store | str) -> dict[str, bytes]:
    """All values of a secret store, by name, for the programs it is linked to.

    ApiRefused STORAGE when one does not open: damaged, or its key is gone.
    """
    found = _found(tx, store)
    rows = tx.all(
        "SELECT key, value, sealed_by FROM entry WHERE store = ? AND sealed_by <> '' ORDER BY key",
        found.id,
    )
    return {
        row["key"]: unseal(tx, row["sealed_by"], found.id, row["key"], row["value"]) for row in rows
    }


def put(
    tx: Transaction, store: Store | str, key: str, value: bytes, *, expect: int | None = None
) -> tuple[Entry, bool]:
    """Whatever was there; True when nothing was.  `expect` is the store's revision.

    ApiRefused NOT_FOUND, INVALID, LIMIT, PRECONDITION_FAILED.
    """
    found = _expected(tx, store, expect)
    entry, before = _put(tx, found, key, value)
    _refuse_large(tx, found)
    _changed(
        tx,
        found,
        "entry.create" if before is None else "entry.update",
        None if before is None else {entry.key: _told(found, before["value"])},
        {entry.key: _told(found, value)},
    )
    return entry, before is None


def insert(tx: Transaction, store: Store | str, key: str, value: bytes) -> Entry:
    """ApiRefused CONFLICT when it is there; otherwise as `put`."""
    found = _found(tx, store)
    if _by_key(tx, found, read_key(found.kind, key)) is not None:
        raise _taken(found, key)
    return put(tx, found, key, value)[0]


def delete(
    tx: Transaction, store: Store | str, key_or_id: str, *, expect: int | None = None
) -> Entry:
    """The entry that is gone.  ApiRefused NOT_FOUND, PRECONDITION_FAILED."""
    found = _expected(tx, store, expect)
    row = _row(tx, found, key_or_id)
    _delete(tx, found, row["key"])
    _changed(tx, found, "entry.delete", {row["key"]: _told(found, row["value"])}, None)
    return _entry(found, row)


def replace_all(
    tx: Transaction,
    store: Store | str,
    wanted: Mapping[str, bytes],
    *,
    expect: int | None = None,
) -> None:
    """Exactly these entries.  ApiRefused as `put`."""
    found = _expected(tx, store, expect)
    keys = {read_key(found.kind, key) for key in wanted}
    if len(keys) < len(wanted):
        raise ApiRefused(Refusal.CONFLICT, "two of the keys mean the same entry")
    present = {row["key"] for row in tx.all("SELECT key FROM entry WHERE store = ?", found.id)}
    for key in present - keys:
        _delete(tx, found, key)
    for key, value in wanted.items():
        _put(tx, found, key, value)
    _refuse_large(tx, found)
    _changed(tx, found, "entry.replace_all", {"entries": len(present)}, {"entries": len(wanted)})


def batch(
    tx: Transaction,
    store: Store | str,
    changes: Iterable[tuple[str, str, bytes]],
    *,
    expect: int | None = None,
) -> None:
    """Each (`create`, `update`, `upsert` or `delete`; key or id; value), all or none, in order.

    ApiRefused as `put`, and CONFLICT for a create of what is there.
    """
    found = _expected(tx, store, expect)
    before: dict[str, object] = {}
    after: dict[str, object] = {}
    for op, key_or_id, value in changes:
        match op:
            case "create":
                if _by_key(tx, found, read_key(found.kind, key_or_id)) is not None:
                    raise _taken(found, key_or_id)
                key = key_or_id
            case "update" | "delete":
                key = _row(tx, found, key_or_id)["key"]
            case "upsert":
                row = _find(tx, found, key_or_id)
                key = key_or_id if row is None else row["key"]
            case _:
                raise ApiRefused(
                    Refusal.INVALID, f"{op[:64]!r} is not create, update, upsert or delete"
                )
        if op == "delete":
            before[key] = None
            _delete(tx, found, key)
        else:
            entry, _ = _put(tx, found, key, value)
            after[entry.key] = _told(found, value)
    if after:
        _refuse_large(tx, found)
    if before or after:
        _changed(tx, found, "entry.batch", {"deleted": sorted(before)}, {"put": after})


def _found(tx: Transaction, store: Store | str) -> Store:
    found = stores.get(tx, store if isinstance(store, str) else store.id)
    if found.kind is StoreKind.KV:
        raise ApiRefused(Refusal.INVALID, "what is in a KV store is not in the catalogue")
    return found


def _expected(tx: Transaction, store: Store | str, expect: int | None) -> Store:
    found = _found(tx, store)
    expect_revision(f"the store {found.name}", expect, found.revision)
    return found


def _put(tx: Transaction, store: Store, key: str, value: bytes) -> tuple[Entry, sqlite3.Row | None]:
    key = read_key(store.kind, key)
    value = read_value(store.kind, key, value)
    before = _by_key(tx, store, key)
    if before is None:
        counted = tx.count("SELECT entries FROM store WHERE id = ?", store.id)
        if counted >= tx.limits.store_entries:
            raise ApiRefused(
                Refusal.LIMIT,
                f"the {store.kind.value} store {store.name!r} has {counted} entries; delete some, "
                "or raise deploy.store_entries",
            )
    sealed_by, digest = "", b""
    if store.kind is StoreKind.SECRET:
        sealed = tx.keyring.seal(store.id, key, value)
        sealed_by, value, digest = sealed.sealed_by, sealed.value, sealed.digest
    row = tx.one(
        "INSERT INTO entry (store, key, id, value, sealed_by, digest, created_at, updated_at) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7) ON CONFLICT (store, key) DO UPDATE SET "
        "value = ?4, sealed_by = ?5, digest = ?6, updated_at = ?7 "
        "RETURNING *",
        store.id, key, new_id() if store.kind in NETWORKS else "", value, sealed_by, digest,
        tx.now,
    )  # fmt: skip
    assert row is not None
    return _entry(store, row), before


def _refuse_large(tx: Transaction, store: Store) -> None:
    size = total_bytes(tx, store)
    if size > entry_rules.STORE_BYTES:
        raise ApiRefused(
            Refusal.LIMIT,
            f"the {store.kind.value} store {store.name!r} would have {size} bytes, and "
            f"{entry_rules.STORE_BYTES} are kept; what is large belongs into a KV store",
        )


def _delete(tx: Transaction, store: Store, key: str) -> None:
    tx.run("DELETE FROM entry WHERE store = ? AND key = ?", store.id, key)


def _changed(tx: Transaction, store: Store, action: str, before: object, after: object) -> None:
    stores.touch(tx, store.id)
    tx.record(action, stores.subject(store.kind, store.name), before, after)


def _told(store: Store, value: bytes) -> object:
    """A value in the audit log: never a secret."""
    return None if store.kind is StoreKind.SECRET else value.decode(errors="replace")


def _by_key(tx: Transaction, store: Store, key: str) -> sqlite3.Row | None:
    return tx.one(
        "SELECT * FROM entry WHERE store = ? AND key = ?",
        store.id,
        key,
    )


def _find(tx: Transaction, store: Store, key_or_id: str) -> sqlite3.Row | None:
    if store.kind in NETWORKS:
        row = tx.one(
            "SELECT * FROM entry WHERE store = ? AND id = ? AND id <> ''",
            store.id, key_or_id,
        )  # fmt: skip
        if row is not None:
            return row
    try:
        key = read_key(store.kind, key_or_id)
    except ApiRefused:  # what cannot be a key is not there
        return None
    return _by_key(tx, store, key)


def _row(tx: Transaction, store: Store, key_or_id: str) -> sqlite3.Row:
    row = _find(tx, store, key_or_id)
    if row is None:
        raise ApiRefused(
            Refusal.NOT_FOUND,
            f"the {store.kind.value} store {store.name!r} has no entry {key_or_id[:256]!r}",
        )
    return row


def _taken(store: Store, key: str) -> ApiRefused:
    return ApiRefused(
        Refusal.CONFLICT, f"the {store.kind.value} store {store.name!r} has {key!r} already"
    )


def _entry(store: Store, row: sqlite3.Row) -> Entry:
    return Entry(
        store_id=row["store"],
        id=row["id"],
        key=row["key"],
        value=b"" if store.kind is StoreKind.SECRET else row["value"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        digest=row["digest"],
    )

"""How parts stand in the catalogue: rows, their bounds, and what happens to all of a kind at once.

The functions for one part, which see to locks and the audit log, are in `edge.catalogue.parts`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge.catalogue.checks import from_json, read_text, to_json
from edge.catalogue.ids import new_id
from edge.catalogue.records import Part, PartKind
from edge.catalogue.sealed import PART_SECRET, unseal
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

MOST: Mapping[PartKind, int] = {
    PartKind.DOMAIN: 100,
    PartKind.BACKEND: 200,
    PartKind.HEALTH_CHECK: 200,
    PartKind.LINK: 100,
    PartKind.DICTIONARY: 100,
    PartKind.ACL: 100,
}
_DATA_BYTES = 128 * 1024  # a backend may carry certificates
_CERTIFICATE, _HIDDEN = "client_certificate", "(hidden)"
_NAME_CHARS: Mapping[PartKind, int] = {PartKind.DOMAIN: 2048}  # host and path; others: 255


def listing(tx: Transaction, service: str, number: int, kind: PartKind) -> list[Part]:
    """All of a kind, by name; `MOST` bounds them."""
    rows = tx.all(
        "SELECT * FROM part WHERE service = ? AND number = ? AND kind = ? ORDER BY name",
        service, number, kind.value,
    )  # fmt: skip
    return [part_of(tx, row) for row in rows]


def replace(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    wanted: Sequence[tuple[str, Mapping[str, object]]],
) -> list[Part]:
    """For `versions.replace_parts`, which sees to locks and the audit log; returns the old ones."""
    before = listing(tx, service, number, kind)
    old = {part.name: part for part in before}
    if len(wanted) > MOST[kind]:
        raise too_many(kind)
    if len({name for name, _ in wanted}) < len(wanted):
        names = [name for name, _ in wanted]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiRefused(Refusal.CONFLICT, f"the {kind.value} {twice!r} is there twice")
    tx.run(
        "DELETE FROM part WHERE service = ? AND number = ? AND kind = ?",
        service, number, kind.value,
    )  # fmt: skip
    for name, data in wanted:
        check_name(kind, name)
        part = old.get(name)
        kept, since = (new_id(), tx.now) if part is None else (part.id, part.created_at)
        insert(tx, service, number, kind, kept, name, data, since)
    return before


def copy(tx: Transaction, service: str, source: int, target: int) -> None:
    """For `versions.create`: all parts of one version into another that has none."""
    tx.run(
        "INSERT INTO part (service, number, kind, name, id, data, store, secret, sealed_by, "
        "created_at, updated_at) SELECT service, ?, kind, name, id, data, store, secret, "
        "sealed_by, created_at, updated_at FROM part WHERE service = ? AND number = ?",
        target, service, source,
    )  # fmt: skip


def insert(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    identity: str,
    name: str,
    data: Mapping[str, object],
    since: float,
) -> None:
    """A row, with its secret sealed; who calls this has checked the name."""
    text, secret, sealed_by = columns_of(tx, kind, identity, name, data)
    tx.run(
        "INSERT INTO part (service, number, kind, name, id, data, store, secret, sealed_by, "
        "created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        service, number, kind.value, name, identity, text, store_of(tx, kind, data), secret,
        sealed_by, since, tx.now,
    )  # fmt: skip


def columns_of(
    tx: Transaction, kind: PartKind, identity: str, name: str, data: Mapping[str, object]
) -> tuple[str, bytes | None, str]:
    """`data` as JSON without its secret, that secret sealed, and the id of the key."""
    text = to_json(f"the {kind.value} {name!r}", told(kind, data), _DATA_BYTES)
    key = _private_key(kind, data)
    if key is None:
        return text, None, ""
    to_json(f"the {kind.value} {name!r}", data, _DATA_BYTES)  # with the key it is bounded as well
    sealed = tx.keyring.seal(identity, PART_SECRET, key.encode(errors="replace"))
    return text, sealed.value, sealed.sealed_by


def told(kind: PartKind, data: Mapping[str, object]) -> Mapping[str, object]:
    """`data` for logs and for SQL: without the private key of a client certificate."""
    certificate = data.get(_CERTIFICATE)
    if _private_key(kind, data) is None or not isinstance(certificate, Mapping):
        return data
    return {**data, _CERTIFICATE: {**certificate, "key": _HIDDEN}}


def _private_key(kind: PartKind, data: Mapping[str, object]) -> str | None:
    certificate = data.get(_CERTIFICATE)
    if kind is not PartKind.BACKEND or not isinstance(certificate, Mapping):
        return None
    key = certificate.get("key")
    return key if isinstance(key, str) else None


def store_of(tx: Transaction, kind: PartKind, data: Mapping[str, object]) -> str | None:
    """The store that a link, a dictionary or an ACL names; it must exist."""
    if kind not in (PartKind.LINK, PartKind.DICTIONARY, PartKind.ACL):
        return None
    store = data.get("store")
    if not isinstance(store, str) or tx.one("SELECT 1 FROM store WHERE id = ?", store) is None:
        raise ApiRefused(Refusal.INVALID, f"there is no store with the id {store!r}")
    return store


def check_name(kind: PartKind, name: str) -> None:
    read_text(f"the name of a {kind.value}", name, _NAME_CHARS.get(kind, 255))


def too_many(kind: PartKind) -> ApiRefused:
    return ApiRefused(Refusal.LIMIT, f"a version has at most {MOST[kind]} of kind {kind.value}")


def part_of(tx: Transaction, row: sqlite3.Row) -> Part:
    """The part of a row, with its secret.  ApiRefused STORAGE when that does not open."""
    data = from_json(row["data"])
    certificate = data.get(_CERTIFICATE)
    if row["secret"] is not None and isinstance(certificate, Mapping):
        key = unseal(tx, row["sealed_by"], row["id"], PART_SECRET, row["secret"]).decode()
        data = {**data, _CERTIFICATE: {**certificate, "key": key}}
    return Part(
        id=row["id"],
        kind=PartKind(row["kind"]),
        name=row["name"],
        data=data,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )

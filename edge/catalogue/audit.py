"""The audit log: who changed what, when, from where, and what it was before.

Rows are written by `Transaction.record` within the change itself.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from edge.catalogue.records import AuditRecord, Page

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

# A row is for people; what is larger is told by its size.
MOST_BYTES = 16 * 1024
# Of all rows, those of one service's own tokens: else a tenant could push out what it did before,
# and what others did, by changing something small again and again.
TENANT_SHARE = 10
_LOOK_EVERY = 64  # rows: finding the oldest that stays walks over all of them


def listing(
    tx: Transaction, page: Page, *, subject_prefix: str = "", actor: str = ""
) -> list[AuditRecord]:
    """Newest first; `page.after` is the id of the last one seen."""
    before = int(page.after) if page.after.isascii() and page.after.isdigit() else None
    rows = tx.all(
        "SELECT * FROM audit WHERE (?1 IS NULL OR id < ?1) AND (?2 = '' OR actor = ?2) "
        "AND substr(subject, 1, length(?3)) = ?3 ORDER BY id DESC LIMIT ?4",
        None if before is None else min(before, 2**62),
        actor,
        subject_prefix,
        page.limit,
    )
    return [_record(row) for row in rows]


def write_record(tx: Transaction, action: str, subject: str, before: object, after: object) -> None:
    """One row; the oldest beyond the limits go, a few dozen late."""
    actor = tx.actor
    written = tx.db.execute(
        "INSERT INTO audit (at, actor, token_id, remote, request_id, action, subject, before, "
        "after, tenant) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (tx.now, actor.name, actor.token_id, actor.remote, actor.request_id, action, subject,
         _text(before), _text(after), actor.service_id),
    )  # fmt: skip
    if (written.lastrowid or 0) % _LOOK_EVERY == 0:
        _prune(tx)


def _prune(tx: Transaction) -> None:
    most = tx.limits.audit_records
    tenants = tx.all("SELECT DISTINCT tenant FROM audit WHERE tenant <> '' AND id > ("
                     "SELECT max(id) FROM audit) - ?", _LOOK_EVERY)  # fmt: skip
    for row in tenants:
        tx.run(
            "DELETE FROM audit WHERE tenant = ?1 AND id <= (SELECT id FROM audit WHERE tenant = ?1 "
            "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            row["tenant"],
            most // TENANT_SHARE,
        )
    tx.run(
        "DELETE FROM audit WHERE id <= (SELECT id FROM audit ORDER BY id DESC LIMIT 1 OFFSET ?)",
        most,
    )


def _text(value: object) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= MOST_BYTES else json.dumps({"left_out_bytes": len(text)})


def _record(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(
        id=row["id"],
        at=row["at"],
        actor=row["actor"],
        token_id=row["token_id"],
        remote=row["remote"],
        request_id=row["request_id"],
        action=row["action"],
        subject=row["subject"],
        before=None if row["before"] is None else json.loads(row["before"]),
        after=None if row["after"] is None else json.loads(row["after"]),
    )

"""Everything of the catalogue that is sealed: which keys it needs, and sealing it with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.catalogue.keyring import Unopened
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

# Where the secret of a part is sealed, in the place of the name that an entry has.
PART_SECRET = "client_certificate.key"  # noqa: S105 - a place


def keys_in_use(tx: Transaction) -> frozenset[str]:
    """The ids of the keys that anything is sealed with."""
    rows = tx.all(
        "SELECT DISTINCT sealed_by FROM entry WHERE sealed_by <> '' "
        "UNION SELECT DISTINCT sealed_by FROM part WHERE sealed_by <> ''"
    )
    return frozenset(row["sealed_by"] for row in rows)


def unseal(tx: Transaction, sealed_by: str, holder: str, name: str, value: bytes) -> bytes:
    """ApiRefused STORAGE when it does not open: damaged, moved, or its key is gone."""
    try:
        return tx.keyring.open(sealed_by, holder, name, value)
    except Unopened as error:
        raise ApiRefused(Refusal.STORAGE, str(error)) from error


def reseal(tx: Transaction, most: int = 200) -> bool:
    """Seal up to so many secrets with the newest key; whether older keys still seal any."""
    keyring = tx.keyring
    entries = tx.all(
        "SELECT * FROM entry WHERE sealed_by <> '' AND sealed_by <> ? LIMIT ?",
        keyring.newest, most,
    )  # fmt: skip
    for row in entries:
        value = unseal(tx, row["sealed_by"], row["store"], row["key"], row["value"])
        sealed = keyring.seal(row["store"], row["key"], value)
        tx.run(
            "UPDATE entry SET value = ?, sealed_by = ?, digest = ? WHERE place = ?",
            sealed.value, sealed.sealed_by, sealed.digest, row["place"],
        )  # fmt: skip
    parts = tx.all(
        "SELECT * FROM part WHERE sealed_by <> '' AND sealed_by <> ? LIMIT ?",
        keyring.newest, most,
    )  # fmt: skip
    for row in parts:
        value = unseal(tx, row["sealed_by"], row["id"], PART_SECRET, row["secret"])
        sealed = keyring.seal(row["id"], PART_SECRET, value)
        tx.run(
            "UPDATE part SET secret = ?, sealed_by = ? WHERE service = ? AND number = ? "
            "AND kind = ? AND name = ?",
            sealed.value, sealed.sealed_by, row["service"], row["number"], row["kind"], row["name"],
        )  # fmt: skip
    return bool(keys_in_use(tx) - {keyring.newest})

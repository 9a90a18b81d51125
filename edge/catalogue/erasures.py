"""KV stores that have gone from the catalogue, while their values may still be in another file.

Noted in the transaction in which a store goes, by a trigger: whether it was deleted itself or with
the service that owned it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def pending(tx: Transaction, limit: int) -> list[str]:
    """Ids of some of them; each may have been erased already."""
    rows = tx.all("SELECT store FROM erasure ORDER BY store LIMIT ?", limit)
    return [row["store"] for row in rows]


def forget(tx: Transaction, stores: Iterable[str]) -> None:
    """Their values have gone, or go without our help."""
    for store in stores:
        tx.run("DELETE FROM erasure WHERE store = ?", store)

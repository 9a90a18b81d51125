"""Replacing the key that seals secrets, while the server runs.

A crash between any two steps loses nothing: the file has both keys before the first secret is
sealed anew, and the old one until the last has been.  The next rotation finishes what was left.
"""

from __future__ import annotations

import asyncio

from edge.catalogue import entries
from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.keyring import Keyring
from edge.catalogue.records import Actor


async def rotate(catalogue: Catalogue, keyring: Keyring, actor: Actor) -> str:
    """A new key; all secrets sealed with it; the old ones forgotten.  Returns the new key's id.

    Raises ApiRefused, or ConfigError when the file cannot be written; old keys stay good then.
    """
    made = await asyncio.to_thread(keyring.rotate)
    while await catalogue.write(actor, entries.reseal):
        pass
    await catalogue.write(actor, lambda tx: _finish(tx, keyring, made))
    return made


def _finish(tx: Transaction, keyring: Keyring, made: str) -> None:
    # In the lane of writes: nothing is being sealed while this decides.
    rows = tx.all("SELECT DISTINCT sealed_by FROM entry WHERE sealed_by <> ''")
    gone = keyring.retire(frozenset(row["sealed_by"] for row in rows))
    tx.record("keyring.rotate", "secrets.key", {"retired": gone}, {"key": made})

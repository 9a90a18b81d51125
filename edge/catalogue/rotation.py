"""Replacing the key that seals secrets, while the server runs.

A crash between any two steps loses nothing: the file has both keys before the first secret is
sealed anew, and the old one until the last has been.  The next rotation finishes what was left.
"""

from __future__ import annotations

import asyncio

from edge.catalogue.database import Catalogue, Transaction
from edge.catalogue.keyring import Keyring
from edge.catalogue.records import Actor
from edge.catalogue.sealed import keys_in_use, reseal
from edge.errors import ApiRefused, ConfigError, Refusal


async def rotate(catalogue: Catalogue, keyring: Keyring, actor: Actor) -> str:
    """A new key; all secrets sealed with it; the old ones forgotten.  Returns the new key's id.

    Raises what `Catalogue.write` raises; ApiRefused STORAGE when the file cannot be written, or a
    secret does not open.  Old keys stay good then.
    """
    try:
        made = await asyncio.to_thread(keyring.rotate)
        while await catalogue.write(actor, reseal):
            pass
        await catalogue.write(actor, lambda tx: _finish(tx, keyring, made))
    except ConfigError as error:
        raise ApiRefused(Refusal.STORAGE, f"the key is not rotated: {error}") from error
    return made


def _finish(tx: Transaction, keyring: Keyring, made: str) -> None:
    # In the lane of writes: nothing is being sealed while this decides.
    gone = keyring.retire(keys_in_use(tx))
    tx.record("keyring.rotate", "secrets.key", {"retired": gone}, {"key": made})

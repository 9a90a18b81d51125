"""Which sandbox has to go when all of a worker hold too much memory, and what it is told."""

from __future__ import annotations

from collections.abc import Collection

from edge.model.units import write_bytes
from edge.outcome import Ending, Outcome
from edge.runtime.guest import Guest


def largest_guest(guests: Collection[Guest]) -> Guest | None:
    """The largest one of the service that holds most of it; None when there is none."""
    shares: dict[str, int] = {}
    for guest in guests:
        key = guest.share_key
        shares[key] = shares.get(key, 0) + _size(guest)
    if not shares:
        return None
    worst = max(shares, key=shares.__getitem__)
    return max((guest for guest in guests if guest.share_key == worst), key=_size)


def outcome(held: int, budget: int) -> Outcome:
    """How its request ended; both in bytes."""
    return Outcome(
        Ending.MEMORY_PRESSURE,
        "the sandboxes of this worker held too much memory together",
        write_bytes(held),
        write_bytes(budget),
        "pool.memory_share",
    )


def _size(guest: Guest) -> int:
    return guest.memory_peak + guest.box.account.held

"""Which sandbox has to go when all of a worker hold too much memory, and what it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from edge.model.units import write_bytes
from edge.outcome import Ending, Outcome


class Holder(Protocol):
    """What holds memory for a service and can be ended: a guest, or a response without one."""

    @property
    def share_key(self) -> str: ...

    @property
    def memory_held(self) -> int:
        """Bytes that ending it gives back."""
        ...


H = TypeVar("H", bound=Holder)


def largest(holders: Iterable[H]) -> H | None:
    """The largest one of the service that holds most of it; None when there is none."""
    services: dict[str, list[H]] = {}
    for holder in holders:
        services.setdefault(holder.share_key, []).append(holder)
    if not services:
        return None
    worst = max(services.values(), key=lambda several: sum(one.memory_held for one in several))
    return max(worst, key=lambda one: one.memory_held)


def outcome(held: int, budget: int) -> Outcome:
    """How its request ended; both in bytes."""
    return Outcome(
        Ending.MEMORY_PRESSURE,
        "the sandboxes of this worker held too much memory together",
        write_bytes(held),
        write_bytes(budget),
        "pool.memory_share",
    )

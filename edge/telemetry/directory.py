"""Which service version has which block of the shared cells.  Lives in the supervisor only.

The number of blocks bounds the number of series.  Over the bound versions share the block
`_other`: still counted, no longer told apart.  A version that retires leaves its numbers with its
service, so a service's counters never step back when it is deployed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge.telemetry.layout import DYNAMIC_BACKENDS as DYNAMIC_SLOT
from edge.telemetry.layout import (
    NAMED_BACKENDS,
    NO_SERVICE_BLOCK,
    OTHER_BLOCK,
    RESERVED_BLOCKS,
)
from edge.telemetry.layout import OTHER_BACKENDS as OTHER_SLOT
from edge.telemetry.metrics import (
    DYNAMIC_BACKENDS,
    NO_SERVICE,
    OTHER_BACKENDS,
    OTHER_SERVICES,
)
from edge.telemetry.shared import SharedCells


@dataclass(frozen=True, slots=True)
class Series:
    """One version of one service, as the labels name it."""

    service: str
    version: str
    sha256: str = ""
    id: str = ""  # of a service of the catalogue; no label, but tells services of one name apart

    @property
    def owner(self) -> tuple[str, str]:
        """Whose it is: a service that is made anew under a name inherits no numbers."""
        return self.service, self.id


class BlockDirectory:
    """Assigns blocks, takes them back, and remembers what retired versions counted."""

    def __init__(self, cells: SharedCells) -> None:
        """All blocks of `cells` are taken to be unused and zero."""
        self._cells = cells
        self._free = list(range(cells.blocks - 1, RESERVED_BLOCKS - 1, -1))
        self._assigned: dict[Series, int] = {}
        self._folded: set[Series] = set()
        self._retired: dict[tuple[str, str], list[int]] = {}  # by owner
        self._backends: dict[str, dict[str, int]] = {}
        self.reserved = {
            NO_SERVICE_BLOCK: Series(NO_SERVICE, ""),
            OTHER_BLOCK: Series(OTHER_SERVICES, ""),
        }

    def assign(self, series: Series) -> int:
        """The block of a version; the same one each time, `OTHER_BLOCK` when none is free.

        Assign a service's new version before releasing the old one, or its counters restart.
        """
        if series in self._assigned:
            return self._assigned[series]
        if not self._free:
            self._folded.add(series)
            return OTHER_BLOCK
        self._folded.discard(series)
        block = self._free.pop()
        self._assigned[series] = block
        return block

    def release(self, series: Series) -> None:
        """Take a block back and zero it.  Unknown series are ignored.

        Call it only when no worker can write the block any more: each living worker has
        acknowledged a snapshot without this version and ended its last request of it.
        """
        self._folded.discard(series)
        block = self._assigned.pop(series, None)
        if block is None:
            return
        if any(other.owner == series.owner for other in self._assigned):
            row = self._cells.block_sum(block, exact_codes=True)
            before = self._retired.get(series.owner)
            self._retired[series.owner] = (
                [a + b for a, b in zip(before, row, strict=True)] if before else row
            )
        else:
            self._retired.pop(series.owner, None)
            if not any(other.service == series.service for other in self._assigned):
                self._backends.pop(series.service, None)
        self._cells.zero_block(block)
        self._free.append(block)

    def backend_slots(self, service: str, backends: Iterable[str]) -> dict[str, int]:
        """Where a service's backends are counted: the same place as long as the service lives."""
        slots = self._backends.setdefault(service, {})
        for name in sorted(backends):
            if name not in slots and len(slots) < NAMED_BACKENDS:
                slots[name] = len(slots)
        return {name: slots.get(name, OTHER_SLOT) for name in backends}

    def backend_names(self, service: str) -> dict[int, str]:
        """The label of each slot that a service may have used."""
        names = {slot: name for name, slot in self._backends.get(service, {}).items()}
        return names | {DYNAMIC_SLOT: DYNAMIC_BACKENDS, OTHER_SLOT: OTHER_BACKENDS}

    @property
    def assigned(self) -> dict[Series, int]:
        """Versions with a block of their own; a copy."""
        return dict(self._assigned)

    @property
    def capacity(self) -> int:
        """How many versions can have a block of their own."""
        return self._cells.blocks - RESERVED_BLOCKS

    @property
    def folded(self) -> int:
        """How many versions share `_other`."""
        return len(self._folded)

    def retired(self, service: str, id: str = "") -> list[int] | None:  # noqa: A002 - as in Series
        """What released versions of a living service have counted, in block layout."""
        return self._retired.get((service, id))

"""What a canary had counted before it became one: it may have been staged, or active once."""

from __future__ import annotations

from collections.abc import Iterable

from edge.model.service import Version
from edge.rollout.verdict import Tally, tally
from edge.telemetry.layout import OTHER_BLOCK
from edge.telemetry.shared import SharedCells


def is_unwatched(version: Version) -> bool:
    """Whether it shares its counters with other versions, so that they tell nothing of it."""
    return version.series == OTHER_BLOCK


class Baselines:
    """By service and version.  What is not here began at zero, as all counters do at a start."""

    def __init__(self, cells: SharedCells) -> None:
        self._cells = cells
        self._before: dict[tuple[str, int], Tally] = {}

    def begin(self, version: Version) -> None:
        """From now on what this one does counts."""
        self._before[version.id, version.number] = self._now(version)

    def done(self, version: Version) -> Tally:
        """What it has done since."""
        before = self._before.get((version.id, version.number), Tally())
        return self._now(version).since(before)

    def keep(self, versions: Iterable[Version]) -> None:
        """Forget all others."""
        kept = {(version.id, version.number) for version in versions}
        self._before = {key: before for key, before in self._before.items() if key in kept}

    def _now(self, version: Version) -> Tally:
        if is_unwatched(version):
            return Tally()
        return tally(self._cells.block_sum(version.series))

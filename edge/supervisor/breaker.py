"""When to start a dead worker again, and which service version to blame for deaths.  Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from edge.clock import Clock

FIRST_DELAY: Final = 0.1  # seconds
LAST_DELAY: Final = 5.0
SETTLED: Final = 10.0  # a worker that lived this long did not die of starting

DEATHS: Final = 3
WINDOW: Final = 60.0
QUARANTINE: Final = 600.0
MAX_SUSPECTS: Final = 1024  # the oldest suspect is forgotten; services come and go


class Backoff:
    """Delay before the next start in one worker slot: none at first, then doubling, for ever."""

    __slots__ = ("_delay",)

    def __init__(self) -> None:
        self._delay = 0.0

    def after(self, lived: float) -> float:
        """Seconds to wait after a worker that lived `lived` seconds."""
        if lived >= SETTLED:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(FIRST_DELAY, 2 * delay), LAST_DELAY)
        return delay


@dataclass(frozen=True, slots=True)
class VersionKey:
    """One version of one service."""

    service: str
    number: int
    id: str = ""  # of a service of the catalogue: one made anew under a name is another one


class Breaker:
    """Counts worker deaths by the version whose guest was running, and names those to stop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deaths: dict[VersionKey, deque[float]] = {}
        self._until: dict[VersionKey, float] = {}

    def died(self, key: VersionKey) -> bool:
        """A worker died while this version ran.  True when that puts it into quarantine."""
        now = self._clock.monotonic()
        deaths = self._deaths.pop(key, None) or deque(maxlen=DEATHS)
        self._deaths[key] = deaths  # last in order: the most recent suspect
        if len(self._deaths) > MAX_SUSPECTS:
            del self._deaths[next(iter(self._deaths))]
        deaths.append(now)
        if len(deaths) < DEATHS or now - deaths[0] > WINDOW or key in self._until:
            return False
        self._until[key] = now + QUARANTINE
        return True

    def lift_expired(self) -> set[VersionKey]:
        """Versions whose time is over; they may run again, and start with a clean record."""
        now = self._clock.monotonic()
        over = {key for key, until in self._until.items() if until <= now}
        for key in over:
            del self._until[key]
            self._deaths.pop(key, None)
        return over

    def reset(self) -> None:
        """The operator reloaded: everything gets another chance."""
        self._deaths.clear()
        self._until.clear()

    @property
    def quarantined(self) -> frozenset[VersionKey]:
        """Versions that must not run now."""
        return frozenset(self._until)

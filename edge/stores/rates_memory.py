"""Rate counters of one process: for the local server, for tests, and for a server of one worker.

Expired entries go first, then of the service that has most those that expire soonest, which among
counters are those idle longest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from heapq import heappop, heappush
from types import TracebackType

from edge.stores import rate_windows
from edge.stores.rates import ENTRY_BYTES, SECRET_BYTES, RateEngine, RateStatistics, Table

# How many entries of a service one call looks at, and how many it removes at most.
LOOK_AT = 24
REMOVE = 8


class _Entries(dict[bytes, bytes]):
    """A dict that is a table: there is nobody to keep out."""

    put = dict.__setitem__

    def __enter__(self) -> _Entries:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held."""


class MemoryRates(RateEngine):
    """`Rates` in this process's memory, bounded by the number of entries."""

    def __init__(self, rate_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(os.urandom(SECRET_BYTES), clock)
        self._capacity = max(1, rate_bytes // ENTRY_BYTES)
        self._entries = _Entries()
        # service -> (filed expiry, key), one for each entry.  An entry that was used since stands
        # there too early, and is filed anew when its turn comes.
        self._queues: dict[bytes, list[tuple[int, bytes]]] = {}
        self._expired = self._evicted = 0

    def statistics(self) -> RateStatistics:
        return RateStatistics(len(self._entries), self._capacity, self._expired, self._evicted)

    def _begin(self) -> _Entries:
        return self._entries

    def _insert(self, table: Table, tag: bytes, key: bytes, value: bytes, second: int) -> None:
        if len(self._entries) >= self._capacity:
            self._make_room(second)
        self._entries[key] = value
        heappush(self._queues.setdefault(tag, []), (rate_windows.expiry(value), key))

    def _make_room(self, second: int) -> None:
        tag, only_expired = self._victim(second)
        queue = self._queues[tag]
        removed = 0
        for looked_at in range(1, LOOK_AT + 1):
            if only_expired and removed and queue[0][0] > second:
                break
            filed, key = heappop(queue)
            expires = rate_windows.expiry(self._entries[key])
            if expires > filed and (removed or looked_at < LOOK_AT):
                heappush(queue, (expires, key))
            else:
                del self._entries[key]
                removed += 1
                self._expired += expires <= second
                self._evicted += expires > second
            if not queue or removed == REMOVE:
                break
        if not queue:
            del self._queues[tag]

    def _victim(self, second: int) -> tuple[bytes, bool]:
        """A service, and whether only what has expired may be taken from it."""
        for tag, queue in self._queues.items():
            filed, key = queue[0]
            if filed <= second and rate_windows.expiry(self._entries[key]) <= second:
                return tag, True
        return max(self._queues, key=lambda tag: len(self._queues[tag])), False

"""Rate counters of one machine: an LMDB file in shared memory, open in every worker.

Every call is one write transaction, so additions of several workers are exact, and no reader can
pin old pages.  LMDB's mutex is a robust one: when a worker is killed while it holds it, the next
gets it, and what was not committed has not happened.  Nothing is ever synced: the file survives
processes, not the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import TypeAlias

import lmdb

from edge.errors import LimitExceeded
from edge.stores import rate_windows
from edge.stores.rates import (
    ENTRY_BYTES,
    KEY_BYTES,
    TAG_BYTES,
    RateEngine,
    RateStatistics,
    Table,
)
from edge.stores.rates_file import FACTS, SECRET, map_file

# What one call looks at, and removes, at most: 20 us, and 0.8 us more for each service.
LOOK_AT = 24
REMOVE = 8
MAX_SERVICES = 256
# Pages for the tree's own needs: its upper levels, and copies of what a transaction changes.
RESERVED = 256 * 1024

_COUNT = Struct("<Q")
_TOTALS = Struct("<QQQ")  # entries, expired, evicted
_ORDER = Struct(f">{TAG_BYTES}sI{KEY_BYTES}s")  # big endian: bytes sort as numbers do
_TOTALS_KEY = b"totals"


@dataclass(slots=True)
class _Totals:
    entries: int
    expired: int
    evicted: int


_Transaction: TypeAlias = "lmdb.Transaction[bytes]"


class _Call:
    """One write transaction at a time: committed at the end, undone by an exception."""

    def __init__(self, env: lmdb.Environment, entries: lmdb._Database) -> None:
        self._env, self._entries = env, entries

    def __enter__(self) -> _Transaction:
        """Waits while another process is in its own."""
        self._transaction = self._env.begin(write=True, db=self._entries)
        return self._transaction

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._transaction.commit()
                return
        except lmdb.MapFullError:
            kind = lmdb.MapFullError
        self._transaction.abort()
        if kind is lmdb.MapFullError:
            # The capacity is chosen so that this cannot be; nothing of the call has happened.
            raise LimitExceeded("no room for rate counters", limit="storage.rate_bytes") from None


class LmdbRates(RateEngine):
    """`Rates` shared by all processes that open the same file; `start` before use."""

    def __init__(self, path: Path, rate_bytes: int, clock: Callable[[], float]) -> None:
        """`path` and `rate_bytes` are those that `prepare` was given; so must be the clock's epoch,
        the same in all processes (CLOCK_MONOTONIC is)."""
        super().__init__(b"", clock)
        self._path = path
        self._rate_bytes = rate_bytes
        self._capacity = max(1, (rate_bytes - RESERVED) // ENTRY_BYTES)
        self._asked = True  # something, since the last `news`

    def start(self) -> None:
        """Open the file.  Raises lmdb.Error."""
        self._env = map_file(self._path, self._rate_bytes)
        self._entries = self._env.open_db(b"entries")  # key -> value
        self._order = self._env.open_db(b"order")  # tag, filed expiry, key -> nothing
        self._services = self._env.open_db(b"services")  # tag -> number of entries
        self._facts = self._env.open_db(FACTS)
        self._call = _Call(self._env, self._entries)
        with self._call as table:
            self._secret = _there(table.get(SECRET, db=self._facts))

    def close(self) -> None:
        self._env.close()

    def news(self) -> RateStatistics | None:
        """The statistics, if anything was asked of this process since the last time.

        Looking takes the lock.  A process whose guests count nothing must not wait for one that was
        stopped while it held it.
        """
        asked, self._asked = self._asked, False
        return self.statistics() if asked else None

    def statistics(self) -> RateStatistics:
        with self._call as table:
            totals = self._totals(table)
        return RateStatistics(totals.entries, self._capacity, totals.expired, totals.evicted)

    def _begin(self) -> _Call:
        self._asked = True
        return self._call

    def _insert(self, table: Table, tag: bytes, key: bytes, value: bytes, second: int) -> None:
        assert isinstance(table, lmdb.Transaction)
        totals = self._totals(table)
        if totals.entries >= self._capacity:
            self._make_room(table, tag, second, totals)
        table.put(key, value)
        table.put(_ORDER.pack(tag, rate_windows.expiry(value), key), b"", db=self._order)
        self._adjust(table, tag, 1)
        totals.entries += 1
        self._write(table, totals)

    def _make_room(self, table: _Transaction, near: bytes, second: int, totals: _Totals) -> None:
        tag, only_expired = self._victim(table, near, second)
        removed = 0
        order = self._order
        for looked_at in range(1, LOOK_AT + 1):
            first = self._first(table, tag)
            if first is None:
                break
            filed, key = first
            if only_expired and removed and filed > second:
                break
            expires = rate_windows.expiry(_there(table.get(key)))
            table.delete(_ORDER.pack(tag, filed, key), db=order)
            if expires > filed and (removed or looked_at < LOOK_AT):
                table.put(_ORDER.pack(tag, expires, key), b"", db=order)
                continue
            table.delete(key)
            removed += 1
            totals.expired += expires <= second
            totals.evicted += expires > second
            if removed == REMOVE:
                break
        totals.entries -= removed
        self._adjust(table, tag, -removed)

    def _victim(self, table: _Transaction, near: bytes, second: int) -> tuple[bytes, bool]:
        """A service, and whether only what has expired may be taken from it.

        Beginning with the one that needs room, so that it is always among those looked at.
        """
        largest, most = near, 0
        cursor = table.cursor(db=self._services)
        found = cursor.set_range(near) or cursor.first()
        assert found, "it is full, of entries that no service has"
        begin = cursor.key()
        for _ in range(MAX_SERVICES):
            tag, count = cursor.key(), _COUNT.unpack(cursor.value())[0]
            first = self._first(table, tag)
            if (
                first is not None
                and first[0] <= second
                and rate_windows.expiry(_there(table.get(first[1]))) <= second
            ):
                return tag, True
            if count > most:
                largest, most = tag, count
            if not (cursor.next() or cursor.first()) or cursor.key() == begin:
                break  # once around
        return largest, False

    def _first(self, table: _Transaction, tag: bytes) -> tuple[int, bytes] | None:
        """Filed expiry and key of the entry of a service that is filed first."""
        cursor = table.cursor(db=self._order)
        if not cursor.set_range(tag):
            return None
        owner, filed, key = _ORDER.unpack(cursor.key())
        return (filed, key) if owner == tag else None

    def _adjust(self, table: _Transaction, tag: bytes, change: int) -> None:
        before = table.get(tag, db=self._services)
        count = change + (0 if before is None else _COUNT.unpack(before)[0])
        if count:
            table.put(tag, _COUNT.pack(count), db=self._services)
        elif before is not None:
            table.delete(tag, db=self._services)

    def _totals(self, table: _Transaction) -> _Totals:
        stored = table.get(_TOTALS_KEY, db=self._facts)
        return _Totals(*((0, 0, 0) if stored is None else _TOTALS.unpack(stored)))

    def _write(self, table: _Transaction, totals: _Totals) -> None:
        value = _TOTALS.pack(totals.entries, totals.expired, totals.evicted)
        table.put(_TOTALS_KEY, value, db=self._facts)


def _there(value: bytes | None) -> bytes:
    assert value is not None, "the file of the rate counters contradicts itself"
    return value

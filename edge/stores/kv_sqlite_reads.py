"""What reads take from the file: on the loop where that is quick, on a thread where it is not."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import NamedTuple

from edge.stores.kv import KvPage, KvValue
from edge.stores.kv_rules import MAX_SCAN, page_of

_STORE = "SELECT id FROM stores WHERE identity = ?"
_USAGE = "SELECT bytes FROM stores WHERE identity = ?"
_ENTRY = (
    "SELECT generation, expires, size, metadata, value FROM entries WHERE store = ? AND key = ?"
)
_PIECES = "SELECT data FROM pieces WHERE store = ? AND key = ? ORDER BY place"
_KEYS = (
    "SELECT key, expires FROM entries WHERE store = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
)


class InPieces(NamedTuple):
    """A live value that is too long for the loop; its cost in bytes."""

    cost: int


class Reader:
    """One connection and what it has learnt.  Raises sqlite3.Error, from everything."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}  # of stores that exist; one for each that was opened
        self._run = connection.execute

    def warm(self) -> None:
        """Prepare the statements now, for good: a guest's stack is no place for SQL's parser."""
        self._run(_STORE, ("",)).fetchall()
        with contextlib.suppress(sqlite3.DatabaseError):  # a damaged page is for who looks there
            self._run(_ENTRY, (0, b"")).fetchall()
        self._run("PRAGMA busy_timeout = 0")  # from here on the loop does not wait

    def find(self, identity: str, key: bytes, now: int) -> KvValue | InPieces | None:
        """One statement, two for a store that was empty; `now` in milliseconds since 1970."""
        store = self._ids.get(identity)
        if store is None:
            found = self._run(_STORE, (identity,)).fetchone()
            if found is None:
                return None
            store = self._ids[identity] = found[0]
        row = self._run(_ENTRY, (store, key)).fetchone()
        if row is None:
            return None
        generation, expires, size, metadata, value = row
        if expires is not None and expires <= now:
            return None
        if value is None:
            return InPieces(size + len(metadata))
        return KvValue((value,) if value else (), size, metadata, generation)

    def find_whole(
        self, identity: str, key: bytes, now: int, allowed: int
    ) -> KvValue | InPieces | None:
        """The same with all pieces, on a thread; InPieces when it costs more than `allowed`."""
        self._run("BEGIN")
        try:
            found = self.find(identity, key, now)
            if isinstance(found, KvValue):
                return found if found.cost <= allowed else InPieces(found.cost)
            if found is None or found.cost > allowed:
                return found
            row = self._run(_ENTRY, (self._ids[identity], key)).fetchone()
            generation, _, size, metadata, _ = row
            pieces = tuple(data for (data,) in self._run(_PIECES, (self._ids[identity], key)))
            return KvValue(pieces, size, metadata, generation)
        finally:
            self._end()

    def page(self, identity: str, first: bytes, beyond: bytes, limit: int, now: int) -> KvPage:
        """Keys from `first` on, as `kv_rules.read_range` gives them.  On a thread."""
        found = self._run(_STORE, (identity,)).fetchone()
        if found is None:
            return KvPage((), limit)
        rows = self._run(_KEYS, (found[0], first, beyond, MAX_SCAN + 1))
        try:
            return page_of(rows, now, limit)
        finally:
            rows.close()  # an open cursor would keep the log from being checkpointed

    def usage(self, identity: str) -> int:
        """Bytes that a store counts.  On a thread."""
        found = self._run(_USAGE, (identity,)).fetchone()
        return int(found[0]) if found else 0

    def _end(self) -> None:
        if self._connection.in_transaction:
            self._run("COMMIT")

    def close(self) -> None:
        self._connection.close()

"""What writes do to the file, inside a transaction that somebody else opens and commits.

Every check comes before the first change, so that a refused operation leaves nothing behind and
its neighbours in the same transaction are not disturbed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from edge.stores.kv import MAX_PIECE, Insertion, InsertMode, KvLimits
from edge.stores.kv_rules import (
    all_full,
    check_deletion,
    check_insertion,
    cost_of,
    end_of,
    milliseconds,
    next_generation,
    regrouped,
    store_full,
    store_gone,
)
from edge.stores.kv_sqlite_file import INLINE

# One transaction clears away so many values that are over, or so many bytes and one more.
SWEEP_ENTRIES = 256
SWEEP_BYTES = 32 * 1024 * 1024

_FIND = (
    "SELECT generation, expires, size, length(metadata), value IS NULL FROM entries "
    "WHERE store = ? AND key = ?"
)
_PUT = (
    "INSERT INTO entries (store, key, generation, expires, size, metadata, value) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (store, key) DO UPDATE SET "
    "generation = excluded.generation, expires = excluded.expires, size = excluded.size, "
    "metadata = excluded.metadata, value = excluded.value"
)
_OVER = (
    "SELECT key, size, length(metadata) FROM entries "
    "WHERE store = ? AND expires <= ? ORDER BY expires LIMIT ?"
)
_ANY = "SELECT key, size, length(metadata) FROM entries WHERE store = ? LIMIT ?"
_FIRST = "SELECT place, data FROM pieces WHERE store = ? AND key = ? ORDER BY place LIMIT 1"
_LAST = "SELECT place, data FROM pieces WHERE store = ? AND key = ? ORDER BY place DESC LIMIT 1"


class _Row(NamedTuple):
    generation: int
    expires: int | None
    size: int
    metadata: int  # its length
    in_pieces: int


@dataclass(slots=True)
class _Books:
    """The row of a store, as it will be written back."""

    id: int
    bytes: int
    generation: int
    gone: int
    changed: bool = False


class WriteBatch:
    """The writes of one transaction.  `finish` belongs into it too."""

    def __init__(self, connection: sqlite3.Connection, limits: KvLimits, wall: float) -> None:
        self._connection = connection
        self._limits = limits
        self._wall = wall
        self._now = milliseconds(wall)
        self._books: dict[str, _Books] = {}
        self._total: int | None = None  # bytes of all stores, once that was asked
        self._grown = 0  # bytes that they have more since then
        self.expired = 0  # values swept

    def insert(self, identity: str, key: bytes, insertion: Insertion) -> int:
        """The new generation.  Raises KvFailed, having changed nothing."""
        books = self._books_of(identity)
        if books.gone:
            raise store_gone()
        old, live = self._find(books, key)
        size = check_insertion(
            insertion, live and (live.generation, live.size), self._limits.value_bytes
        )
        more = cost_of(len(key), len(insertion.metadata), size) - _cost(key, old)
        if more > 0 and books.bytes + more > self._limits.store_bytes:
            self._sweep(books, but=key)
            if books.bytes + more > self._limits.store_bytes:
                raise store_full(self._limits.store_bytes)
        if more > 0 and self._all() + more > self._limits.total_bytes:
            self._sweep(books, but=key)
            if self._all() + more > self._limits.total_bytes:
                raise all_full(self._limits.total_bytes)
        books.generation = next_generation(books.generation, self._wall)
        self._grow(books, more)
        joins = live and insertion.mode in (InsertMode.APPEND, InsertMode.PREPEND)
        value, pieces = self._layout(books, key, insertion, size, live if joins else None)
        if old is not None and old.in_pieces and not (joins and live and live.in_pieces):
            self._run("DELETE FROM pieces WHERE store = ? AND key = ?", (books.id, key))
        end = end_of(insertion.ttl, self._now)
        row = (books.id, key, books.generation, end, size, insertion.metadata, value)
        self._run(_PUT, row)
        for place, piece in pieces:
            self._run("INSERT INTO pieces VALUES (?, ?, ?, ?)", (books.id, key, place, piece))
        return books.generation

    def _layout(
        self, books: _Books, key: bytes, insertion: Insertion, size: int, joined: _Row | None
    ) -> tuple[bytes | None, list[tuple[int, bytes]]]:
        """What stands in the entry's row, or the pieces to add and their places."""
        front = insertion.mode is InsertMode.PREPEND
        if joined is not None and joined.in_pieces:
            return None, self._joined(books, key, insertion.pieces, front=front)
        pieces = insertion.pieces
        if joined is not None:
            find = "SELECT value FROM entries WHERE store = ? AND key = ?"
            value: bytes = self._run(find, (books.id, key)).fetchone()[0]
            pieces = (*pieces, value) if front else (value, *pieces)
        if size <= INLINE:
            return b"".join(pieces), []
        return None, list(enumerate(regrouped(pieces)))

    def _joined(
        self, books: _Books, key: bytes, pieces: tuple[bytes, ...], *, front: bool
    ) -> list[tuple[int, bytes]]:
        """New pieces at one end of those that are there; a small one there grows instead."""
        place, outermost = self._run(_FIRST if front else _LAST, (books.id, key)).fetchone()
        if len(outermost) < MAX_PIECE:
            delete = "DELETE FROM pieces WHERE store = ? AND key = ? AND place = ?"
            self._run(delete, (books.id, key, place))
            pieces = (*pieces, outermost) if front else (outermost, *pieces)
        else:
            place += -1 if front else 1
        new = list(regrouped(pieces))
        if front:
            return [(place - at, piece) for at, piece in enumerate(reversed(new))]
        return [(place + at, piece) for at, piece in enumerate(new)]

    def delete(self, identity: str, key: bytes, generation: int | None = None) -> bool:
        """Whether there was a live value.  Raises KvFailed, having changed nothing."""
        books = self._books_of(identity)
        old, live = self._find(books, key)
        if live is not None:
            check_deletion(live.generation, generation)
        if old is not None:
            self._remove(books, key, _cost(key, old))
        return live is not None

    def erase(self, identity: str) -> bool:
        """Mark a store as gone; `sweep` clears it away.  Whether it held anything."""
        books = self._books_of(identity)
        self._run("UPDATE stores SET gone = 1 WHERE id = ?", (books.id,))
        books.gone = 1
        return books.bytes > 0

    def sweep(self) -> bool:
        """Clear away values that are over; True when there may be more."""
        for (identity,) in self._run("SELECT identity FROM stores WHERE bytes > 0").fetchall():
            if self._sweep(self._books_of(identity)):
                return True
        return False

    def finish(self) -> None:
        """Write back what the stores now hold."""
        update = "UPDATE stores SET bytes = ?, generation = ? WHERE id = ?"
        for books in self._books.values():
            if books.changed:
                self._run(update, (books.bytes, books.generation, books.id))
        if self._grown:
            self._run("UPDATE totals SET bytes = bytes + ?", (self._grown,))

    def _sweep(self, books: _Books, but: bytes = b"") -> bool:
        """`but` is a key that the caller is about to replace itself."""
        freed = 0
        if books.gone:
            rows = self._run(_ANY, (books.id, SWEEP_ENTRIES)).fetchall()
        else:
            rows = self._run(_OVER, (books.id, self._now, SWEEP_ENTRIES)).fetchall()
        for key, size, metadata in rows:
            if key == but:
                continue
            self._remove(books, key, cost_of(len(key), metadata, size))
            self.expired += 1
            freed += size
            if freed > SWEEP_BYTES:
                return True
        return len(rows) == SWEEP_ENTRIES

    def _remove(self, books: _Books, key: bytes, cost: int) -> None:
        self._run("DELETE FROM entries WHERE store = ? AND key = ?", (books.id, key))
        self._grow(books, -cost)

    def _grow(self, books: _Books, more: int) -> None:
        books.bytes += more
        books.changed = True
        self._grown += more

    def _all(self) -> int:
        if self._total is None:
            self._total = int(self._run("SELECT bytes FROM totals").fetchone()[0])
        return self._total + self._grown

    def _find(self, books: _Books, key: bytes) -> tuple[_Row | None, _Row | None]:
        """The entry, and the same again if it is not over."""
        found = self._run(_FIND, (books.id, key)).fetchone()
        if found is None:
            return None, None
        row = _Row(*found)
        return row, row if row.expires is None or row.expires > self._now else None

    def _books_of(self, identity: str) -> _Books:
        books = self._books.get(identity)
        if books is None:
            find = "SELECT id, bytes, generation, gone FROM stores WHERE identity = ?"
            row = self._run(find, (identity,)).fetchone()
            if row is None:
                self._run("INSERT INTO stores (identity) VALUES (?)", (identity,))
                row = self._run(find, (identity,)).fetchone()
            books = self._books[identity] = _Books(*row)
        return books

    def _run(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)


def _cost(key: bytes, row: _Row | None) -> int:
    return 0 if row is None else cost_of(len(key), row.metadata, row.size)

"""The file of the KV stores: opening it, its tables, and the lock that orders its writers.

One SQLite file for all stores and all workers, in WAL mode: readers never wait for writers.
Decision 014 has the reasons.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from edge.errors import ConfigError, Problem

VERSION = 2  # PRAGMA user_version
APPLICATION = 0x65646B76  # PRAGMA application_id: "edkv"
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

# Our own writers take the lock in turn and never meet; this is for tools that know nothing of it.
BUSY_SECONDS = 5.0
# What the log may keep on disk after a burst; it is checkpointed into the file every 1000 pages.
_LOG_BYTES = 64 * 1024 * 1024
# Pages that a reader keeps; any commit of anybody empties it.  Scattered lookups of 2,000 values of
# 2 KiB take 22 us each with 4 MiB and with 16, and 14 with 32: not worth it in every worker.
_CACHE_KIB = 4 * 1024

# Values up to this stand in the row of their key and are read on the loop; longer ones stand in
# pieces, which a thread reads.  Copying 128 KiB out of 32 pages takes about 80 us.
INLINE = 128 * 1024

# Keys are bytes, so that ranges go by memcmp and nothing in a key means anything to SQL.
# AUTOINCREMENT: an id that somebody has remembered must never name another store.
_TABLES = """
CREATE TABLE stores (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE,
    bytes INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE entries (
    store INTEGER NOT NULL REFERENCES stores (id),
    key BLOB NOT NULL,
    generation INTEGER NOT NULL,
    expires INTEGER,
    size INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    value BLOB,
    PRIMARY KEY (store, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_over ON entries (store, expires) WHERE expires IS NOT NULL;
CREATE TABLE pieces (
    store INTEGER NOT NULL,
    key BLOB NOT NULL,
    place INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (store, key, place),
    FOREIGN KEY (store, key) REFERENCES entries (store, key) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
"""
# Format 2.  The row of a store that was erased stays: readers remember its id, and a guest that
# still has it open must not bring it back.
_TOTALS = """
ALTER TABLE stores ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO totals SELECT 1, coalesce(sum(bytes), 0) FROM stores;
"""
_FORMATS = (_TABLES, _TOTALS)  # what leads from each to the next


class FileLock:
    """An exclusive lock of all processes that name the same file; the kernel ends it with them.

    SQLite alone would do, but it polls with sleeps, and up to 3.51.2 two connections that write
    and checkpoint at the same instant could lose a transaction (its "WAL-reset bug").  Under this
    lock they never do.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def open_writer(path: Path, lock: FileLock) -> sqlite3.Connection:
    """A connection that may write, with the tables made.  Raises ConfigError."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise unusable(path, f"SQLite {sqlite3.sqlite_version} is too old; 3.37 is needed")
    try:
        with lock:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = _connect(path)
            try:
                _prepare(path, connection)
            except BaseException:
                connection.close()
                raise
    except (OSError, sqlite3.Error) as error:
        raise unusable(path, str(error)) from error
    return connection


def open_reader(path: Path, *, wait: float) -> sqlite3.Connection:
    """A connection that never writes; `wait` seconds for whoever recovers the log after a crash.

    Not opened read-only: after a crash the first reader may have to bring the log's index in order.
    Raises ConfigError.
    """
    try:
        connection = _connect(path, wait)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise unusable(path, str(error)) from error
    return connection


def _connect(path: Path, wait: float = BUSY_SECONDS) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=wait,
        isolation_level=None,  # transactions are spelt out
        check_same_thread=False,  # made on one thread, then used by one other
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise unusable(path, "the file system has no shared memory for a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it is told
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise unusable(path, f"a newer version of this server made it (format {version})")
        if version < VERSION:
            for statements in _FORMATS[version:]:
                for statement in statements.strip().split(";\n"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def unusable(path: Path, why: str) -> ConfigError:
    """What an operator is told of a file that cannot be used."""
    return ConfigError(Problem("state_dir", f"{path.name} there cannot hold KV stores: {why}"))

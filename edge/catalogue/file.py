"""The file of the catalogue: opening it safely, and saying in words why it cannot be used.

Decision 018 has the reasons for what is set here.  That no second server uses the file is
seen to by the lock on `state_dir`, which the supervisor holds.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from edge.catalogue.migrations import MIGRATIONS
from edge.errors import ApiRefused, ConfigError, Problem, Refusal

_RESTORE = "restore it from a copy, with secrets.key and packages of the same time"
APPLICATION = 0x65646361  # PRAGMA application_id: "edca"
OLDEST_SQLITE = (3, 38, 0)  # STRICT tables, and JSON functions that are always there
_BUSY_SECONDS = 5.0  # for tools of the operator that look into the file
_LOG_BYTES = 64 * 1024 * 1024  # what the log may keep on disk after a burst


def open_writer(
    path: Path, migrations: tuple[str, ...] = MIGRATIONS, max_pages: int | None = None
) -> sqlite3.Connection:
    """The connection that writes, with the tables as this version has them.  Raises ConfigError."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise unusable(path, f"SQLite {sqlite3.sqlite_version} is too old; 3.38 is needed")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # it holds what tokens are recognised by
        finally:
            os.close(descriptor)
        connection = _connect(path)
        try:
            _prepare(path, connection, migrations)
            if max_pages is not None:
                connection.execute(f"PRAGMA max_page_count = {max_pages:d}")
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise unusable(path, str(error)) from error
    except sqlite3.Error as error:
        raise unusable(path, f"{error}; {_RESTORE}") from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that never writes.  Raises ConfigError."""
    try:
        connection = _connect(path)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise unusable(path, str(error)) from error
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,  # transactions are spelt out
        check_same_thread=False,  # made on one thread, then used by another, one at a time
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepare(path: Path, connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application not in (0, APPLICATION) or (version and application != APPLICATION):
        raise unusable(path, "it belongs to another program")
    if version > len(migrations):
        raise unusable(
            path,
            f"a newer version of this server made it (format {version}; this one knows "
            f"{len(migrations)}); start that one, or restore a copy from before the upgrade",
        )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise unusable(path, "the file system has no shared memory for a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it is told
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    found = connection.execute("PRAGMA integrity_check(3)").fetchall()
    if [row[0] for row in found] != ["ok"]:
        raise unusable(
            path,
            f"it is damaged ({'; '.join(row[0] for row in found)}); {_RESTORE}",
        )
    for number in range(version, len(migrations)):
        _migrate(connection, number + 1, migrations[number])
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise unusable(path, "it refers to things that it does not have; restore it from a copy")


def _migrate(connection: sqlite3.Connection, version: int, script: str) -> None:
    """One step, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in script.strip().removesuffix(";;").split(";;\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def unusable(path: Path, why: str) -> ConfigError:
    """What an operator is told of a file that cannot be used."""
    return ConfigError(Problem("state_dir", f"{path.name} there cannot be used: {why}"))


def refused(error: sqlite3.Error) -> ApiRefused | None:
    """What a caller is told when storage fails; None for a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells more of the same
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ApiRefused(Refusal.BUSY, "another program holds the catalogue; end it, or try again")
    if code == sqlite3.SQLITE_FULL:
        return ApiRefused(
            Refusal.STORAGE, "the disk of the catalogue is full; make room in state_dir"
        )
    if code in _BROKEN:
        return ApiRefused(
            Refusal.STORAGE, f"the catalogue cannot be read or written ({error}); see the log"
        )
    return None


_BROKEN = frozenset(
    {
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip

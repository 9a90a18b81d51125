"""The catalogue: what has been deployed, durably, behind lanes: for writes, reads, small reads.

A write is one transaction, on the disk before it returns; a read sees the state of one instant.
The functions that run in them are in the modules beside this one, one for each subject.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge.catalogue.audit import write_record
from edge.catalogue.file import open_reader, open_writer, refused
from edge.catalogue.keyring import Keyring
from edge.catalogue.lane import Lane
from edge.catalogue.records import Actor
from edge.catalogue.sealed import keys_in_use
from edge.clock import Clock
from edge.errors import ApiRefused, Refusal
from edge.settings import GIB, Deploy

T = TypeVar("T")
log = logging.getLogger(__name__)

STARTUP = Actor("startup")
_NOBODY = Actor("reader")
_CLOSE_SECONDS = 10.0
# Modules that lost their last version, until `tidy` removes them; more wait for the next start.
_MOST_ORPHANS = 10_000


@dataclass(frozen=True, slots=True)
class CatalogueLimits:
    """How much may be in it; each is a setting of `deploy` but the number of tokens."""

    services: int = 1000
    keep_versions: int = 100
    service_bytes: int = GIB  # of modules
    stores: int = 1000  # of each kind
    store_entries: int = 10_000
    audit_records: int = 100_000
    tokens: int = 1000

    @classmethod
    def of(cls, deploy: Deploy) -> CatalogueLimits:
        return cls(
            services=deploy.services,
            keep_versions=deploy.keep_versions,
            service_bytes=deploy.service_bytes,
            stores=deploy.stores,
            store_entries=deploy.store_entries,
            audit_records=deploy.audit_records,
        )


class Transaction:
    """One transaction, for functions over the catalogue.  Used on one thread, and not kept."""

    def __init__(
        self,
        db: sqlite3.Connection,
        now: float,
        actor: Actor,
        limits: CatalogueLimits,
        keyring: Keyring | None,
    ) -> None:
        self.db = db
        self.now = now  # seconds since 1970
        self.actor = actor
        self.limits = limits
        self.orphans: set[str] = set()  # modules of versions that were deleted or got another
        self._keyring = keyring

    @property
    def keyring(self) -> Keyring:
        """What seals secrets.  ApiRefused where the catalogue was opened without."""
        if self._keyring is None:
            raise ApiRefused(Refusal.UNSUPPORTED, "this catalogue has no key for secrets")
        return self._keyring

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """The first row."""
        found: sqlite3.Row | None = self.db.execute(sql, values).fetchone()
        return found

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """All rows; the statement bounds them."""
        return self.db.execute(sql, values).fetchall()

    def count(self, sql: str, *values: object) -> int:
        """The number that a `SELECT count(*)` gives."""
        return int(self.db.execute(sql, values).fetchone()[0])

    def run(self, sql: str, *values: object) -> int:
        """How many rows a statement changed."""
        return self.db.execute(sql, values).rowcount

    def record(self, action: str, subject: str, before: object, after: object) -> None:
        """A row of the audit log, in this transaction: there is no change without one."""
        write_record(self, action, subject, before, after)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start."""

    writes: int
    reads: int
    failed: int  # ended by an exception, refusals of the caller included
    write_seconds: float  # in all, from the lane's turn to the disk
    longest_write_seconds: float
    waiting: int


class Catalogue:
    """One file; used from one event loop, and blocking before that loop runs (`..._now`)."""

    def __init__(
        self, path: Path, *, clock: Clock, limits: CatalogueLimits, keyring: Keyring | None = None
    ) -> None:
        self.limits = limits
        self.keyring = keyring
        self._path = path
        self._clock = clock
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._read_turn, self._write_turn = threading.Lock(), threading.Lock()
        self._urgent: sqlite3.Connection | None = None  # used on the thread of its lane alone
        self._read_lane = Lane("catalogue-read")
        self._urgent_lane = Lane("catalogue-urgent")
        self._write_lane = Lane("catalogue-write")
        self._orphans: set[str] = set()
        self._orphans_turn = threading.Lock()  # held for moments, so that a loop may take it
        self._writes = self._reads = self._urgent_reads = self._failed = 0
        self._write_seconds = self._longest = 0.0

    def start(self) -> None:
        """Open, migrate and check the file, and the keyring.  Blocks.

        Raises ConfigError, in words, for a file that is damaged, newer than this server, or cannot
        be written, and for secrets whose key is missing.
        """
        self._writer = open_writer(self._path)
        try:
            self._reader = open_reader(self._path)
            self._urgent = open_reader(self._path)
            if self.keyring is not None:
                self.keyring.start(self.read_now(keys_in_use))
        except BaseException:
            self._close_files()
            raise
        self._read_lane.start()
        self._urgent_lane.start()
        self._write_lane.start()

    def close(self) -> None:
        """Finish what waits, and close the file.  Blocks.  Calls after it are refused STOPPING."""
        lanes = self._urgent_lane, self._read_lane, self._write_lane
        done = [lane.close(_CLOSE_SECONDS) for lane in lanes]
        if all(done):  # closing under a thread that uses a connection would crash
            self._close_files()
        else:
            log.warning("the catalogue was left open: its disk does not answer")

    async def read(self, work: Callable[[Transaction], T], *, urgent: bool = False) -> T:
        """What `work` returns; it sees every write that has been acknowledged, and changes none.

        `urgent`: few rows that every call needs, which waits for no large read of anybody's.
        Raises what `work` raises; ApiRefused BUSY, STORAGE, STOPPING.
        """
        if urgent:
            self._urgent_reads += 1
            return await self._urgent_lane.run(
                lambda: self._within(self._urgent, "BEGIN", _NOBODY, work)
            )
        return await self._read_lane.run(lambda: self.read_now(work))

    async def write(self, actor: Actor, work: Callable[[Transaction], T]) -> T:
        """What `work` returns, once all it did is on the disk; what it raises undoes all of it.

        Raises ApiRefused BUSY, STORAGE, STOPPING as well.  When the caller is cancelled, it has
        been done or not.
        """
        return await self._write_lane.run(lambda: self.write_now(actor, work))

    def read_now(self, work: Callable[[Transaction], T]) -> T:
        """As `read`, on this thread; for the start."""
        with self._read_turn:
            self._reads += 1
            return self._within(self._reader, "BEGIN", _NOBODY, work)

    def write_now(self, actor: Actor, work: Callable[[Transaction], T]) -> T:
        """As `write`, on this thread; for the start."""
        with self._write_turn:
            began = time.perf_counter()
            try:
                return self._within(self._writer, "BEGIN IMMEDIATE", actor, work)
            finally:
                took = time.perf_counter() - began
                self._writes += 1
                self._write_seconds += took
                self._longest = max(self._longest, took)

    def take_orphans(self) -> set[str]:
        """SHA-256 of modules that may have lost their last version since the last call."""
        with self._orphans_turn:
            taken, self._orphans = self._orphans, set()
        return taken

    def statistics(self) -> Statistics:
        return Statistics(
            writes=self._writes,
            reads=self._reads + self._urgent_reads,
            failed=self._failed,
            write_seconds=self._write_seconds,
            longest_write_seconds=self._longest,
            waiting=sum(
                lane.waiting for lane in (self._urgent_lane, self._read_lane, self._write_lane)
            ),
        )

    def _within(
        self,
        db: sqlite3.Connection | None,
        begin: str,
        actor: Actor,
        work: Callable[[Transaction], T],
    ) -> T:
        if db is None:
            raise ApiRefused(Refusal.STOPPING, "the catalogue is not open")
        tx = Transaction(db, self._clock.wall(), actor, self.limits, self.keyring)
        try:
            with _translated():
                db.execute(begin)
                try:
                    value = work(tx)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:  # SQLite has undone it already where the disk failed
                        db.execute("ROLLBACK")
                    raise
        except BaseException:
            self._failed += 1
            raise
        if tx.orphans:
            with self._orphans_turn:
                self._orphans |= tx.orphans
                while len(self._orphans) > _MOST_ORPHANS:
                    self._orphans.pop()
        return value

    def _close_files(self) -> None:
        # Readers first: the last connection moves the log into the file, and they may not write.
        for connection in (self._reader, self._urgent, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._urgent = self._writer = None


@contextmanager
def _translated() -> Iterator[None]:
    """Failures of storage as callers of the control API are told of them."""
    try:
        yield
    except (UnicodeEncodeError, OverflowError) as error:
        # A lone surrogate or a number beyond 64 bits, where somebody looks for such a thing.
        raise ApiRefused(Refusal.INVALID, "a text or a number that cannot be stored") from error
    except sqlite3.Error as error:
        told = refused(error)
        if told is None:
            raise
        log.error("the catalogue failed", extra={"error": str(error)})
        raise told from error

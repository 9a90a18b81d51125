"""KV stores in one SQLite file that all workers share; what is acknowledged survives a power cut.

Short values are read on the loop, through a connection of its own.  Everything else happens on two
threads: one reads what is long (values above INLINE, lists), the other writes, as many waiting
operations as there are in one transaction.  Nothing of SQLite's reaches a guest but INTERNAL_ERROR.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.clock import Clock
from edge.errors import ConfigError, HostcallError
from edge.stores.kv import (
    Insertion,
    KvCause,
    KvCounts,
    KvFailed,
    KvLimits,
    KvOperation,
    KvPage,
    KvStatistics,
    KvValue,
    Payer,
)
from edge.stores.kv_lane import Gate, Lane, Outcome
from edge.stores.kv_rules import check_key, check_metadata, check_size, milliseconds, read_range
from edge.stores.kv_sqlite_file import (
    BUSY_SECONDS,
    FileLock,
    open_reader,
    open_writer,
    unusable,
)
from edge.stores.kv_sqlite_reads import InPieces, Reader
from edge.stores.kv_sqlite_writes import WriteBatch

log = logging.getLogger("edge.kv")

# Operations that wait for a thread, in all; one store may have half of them.
MAX_WAITING = 4096
# Values that wait to be written, in bytes; likewise.  At least four of the largest.
MAX_WAITING_BYTES = 128 * 1024 * 1024
# One transaction: what it costs to begin and sync is shared, and a neighbour waits no longer.
BATCH = 256
BATCH_BYTES = 8 * 1024 * 1024

SWEEP_SECONDS = 10.0
_SWEEP_ON_SECONDS = 0.05  # when the last sweep left something
_CLOSE_SECONDS = 10.0
_QUIET_SECONDS = 10.0  # between two lines about errors
# A value may grow between the look at its size and the reading of it; not for ever.
_MOST_TRIES = 5
# What a listed key takes besides its text.
_KEY_OVERHEAD = 64


@dataclass(slots=True)
class _Write:
    """One waiting write; `apply` runs on the thread."""

    store: str
    size: int
    apply: Callable[[WriteBatch], Outcome]
    operation: KvOperation[int] | KvOperation[bool] | None  # None: a sweep, which nobody waits for


@dataclass(slots=True)
class _Lookup:
    store: str
    key: bytes
    operation: KvOperation[KvValue | None]
    allowed: int = 0  # bytes that the payer has been charged for
    tries: int = 0


@dataclass(slots=True)
class _List:
    store: str
    first: bytes
    beyond: bytes
    limit: int
    operation: KvOperation[KvPage]


@dataclass(slots=True)
class _Usage:
    store: str
    operation: KvOperation[int]


_Read = _Lookup | _List | _Usage


@dataclass(slots=True)
class _Trouble:
    """Errors of storage since the last line about them."""

    unsaid: int = 0
    quiet_until: float = field(default=float("-inf"))


class SqliteKvEngine:
    """The stores of one process; others may have the same file open."""

    def __init__(self, path: Path, limits: KvLimits, clock: Clock) -> None:
        """The directory of `path` must exist when the engine is started."""
        self.limits = limits
        self.clock = clock
        self.counts = KvCounts()
        self._path = path
        self._stores: dict[str, SqliteKvStore] = {}
        waiting_bytes = max(MAX_WAITING_BYTES, 4 * limits.value_bytes)
        self._write_gate = Gate(MAX_WAITING, waiting_bytes)
        self._read_gate = Gate(MAX_WAITING, 1)
        self._writing = Lane[_Write]("kv-write", self._write, self._written)
        self._reading = Lane[_Read]("kv-read", self._read, self._were_read)
        self._trouble = _Trouble()
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self._lock: FileLock
        self._writer: sqlite3.Connection
        self._thread_reader: Reader
        self.reader: Reader  # of the loop

    async def start(self) -> None:
        """Opens the file, making it if need be.  Raises ConfigError."""
        try:
            self._lock = FileLock(self._path.with_name(f"{self._path.name}-lock"))
        except OSError as error:
            raise unusable(self._path, str(error)) from error
        connections: list[sqlite3.Connection] = []
        try:
            self._writer = await asyncio.to_thread(open_writer, self._path, self._lock)
            connections.append(self._writer)
            connections.append(open_reader(self._path, wait=BUSY_SECONDS))
            self._thread_reader = Reader(connections[-1])
            connections.append(open_reader(self._path, wait=BUSY_SECONDS))
            self.reader = Reader(connections[-1])
            self.reader.warm()
        except (ConfigError, sqlite3.Error) as error:
            for connection in connections:
                connection.close()
            self._lock.close()
            if isinstance(error, ConfigError):
                raise
            raise unusable(self._path, str(error)) from error
        self._writing.start()
        self._reading.start()
        self._open = True
        self._plan_sweep(SWEEP_SECONDS)

    async def aclose(self) -> None:
        """Writes that were accepted are made first, for at most ten seconds."""
        if not self._open:
            return
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        ended = await self._writing.aclose(_CLOSE_SECONDS)
        ended = await self._reading.aclose(_CLOSE_SECONDS) and ended
        if not ended:
            log.error("KV storage hangs: %d writes are given up", self._write_gate.count)
            return
        await asyncio.sleep(0)  # the last outcomes are delivered
        self.reader.close()
        self._thread_reader.close()
        await asyncio.to_thread(self._close_writer)

    def _close_writer(self) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):  # the last one out checkpoints
            self._writer.close()
        self._lock.close()

    def open(self, identity: str) -> SqliteKvStore:
        store = self._stores.get(identity)
        if store is None:
            store = self._stores[identity] = SqliteKvStore(self, identity)
        return store

    def erase(self, identity: str) -> KvOperation[bool]:
        operation = KvOperation[bool]()
        operation.watch(lambda: self._plan_sweep(_SWEEP_ON_SECONDS))
        self.write(_Write(identity, 0, lambda to: to.erase(identity), operation))
        return operation

    def usage(self, identity: str) -> KvOperation[int]:
        operation = KvOperation[int]()
        self.read(_Usage(identity, operation))
        return operation

    def statistics(self) -> KvStatistics:
        return KvStatistics(
            replace(self.counts),
            queued=self._write_gate.count + self._read_gate.count,
            queued_bytes=self._write_gate.size,
        )

    # Writing --------------------------------------------------------------------------------

    def write(self, job: _Write) -> None:
        """Queue a write, or fail its operation."""
        operation = job.operation
        assert operation is not None
        if not self._open:
            operation.fail(_internal())
        elif self._write_gate.enter(job.store, job.size):
            self._writing.put(job)
        else:
            self.counts.refused += 1
            operation.fail(_too_many("written"))

    def _write(self, batch: list[_Write], more: Callable[[], _Write | None]) -> list[Outcome]:
        """On the thread: everything that waits, in one transaction."""
        with self._lock:
            size = batch[0].size
            while len(batch) < BATCH and size < BATCH_BYTES:
                job = more()
                if job is None:
                    break
                size += job.size
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                writes = WriteBatch(self._writer, self.limits, self.clock.wall())
                outcomes = [_apply(job, writes) for job in batch]
                writes.finish()
                self._writer.execute("COMMIT")
                self.counts.commits += 1  # these two are this thread's to count
                self.counts.expired += writes.expired
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                raise
        return outcomes

    def _written(self, outcomes: list[tuple[_Write, Outcome]]) -> None:
        for job, outcome in outcomes:
            operation = job.operation
            if operation is None:
                self._swept(outcome)
                continue
            self._write_gate.leave(job.store, job.size)
            if isinstance(outcome, KvFailed):
                operation.fail(outcome)
            elif isinstance(outcome, BaseException):
                operation.fail(self.trouble(outcome))
            else:
                operation.release()
                operation.settle(outcome)  # type: ignore[arg-type]  # `apply` and it were made together

    # Sweeping -------------------------------------------------------------------------------

    def _plan_sweep(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.sweep)

    def sweep(self) -> None:
        """Clear away what is over, a bounded lot at a time; the timer calls it."""
        self._writing.put(_Write("", 0, WriteBatch.sweep, None))

    def _swept(self, outcome: Outcome) -> None:
        if isinstance(outcome, BaseException):
            self.trouble(outcome)
            self._plan_sweep(SWEEP_SECONDS)
            return
        self._plan_sweep(_SWEEP_ON_SECONDS if outcome else SWEEP_SECONDS)

    # Reading --------------------------------------------------------------------------------

    def read(self, job: _Read) -> None:
        """Queue a read, or fail its operation."""
        if not self._open:
            job.operation.fail(_internal())
        elif self._read_gate.enter(job.store, 0):
            self._reading.put(job)
        else:
            self.counts.refused += 1
            job.operation.fail(_too_many("read"))

    def read_whole(self, job: _Lookup, cost: int) -> None:
        """Queue the lookup of a value that costs so much, once that is paid for."""
        try:
            job.operation.hold(cost)
        except HostcallError as error:
            job.operation.fail(error)
            return
        job.allowed = cost
        self.read(job)

    def _read(self, batch: list[_Read], more: Callable[[], _Read | None]) -> list[Outcome]:
        """On the thread."""
        job, now = batch[0], milliseconds(self.clock.wall())
        if job.operation.abandoned:
            return [None]
        if isinstance(job, _List):
            page = self._thread_reader.page(job.store, job.first, job.beyond, job.limit, now)
            return [page]
        if isinstance(job, _Usage):
            return [self._thread_reader.usage(job.store)]
        return [self._thread_reader.find_whole(job.store, job.key, now, job.allowed)]

    def _were_read(self, outcomes: list[tuple[_Read, Outcome]]) -> None:
        for job, outcome in outcomes:
            self._read_gate.leave(job.store, 0)
            if job.operation.abandoned:
                continue
            if isinstance(outcome, BaseException):
                job.operation.fail(self.trouble(outcome))
            elif isinstance(job, _List):
                assert isinstance(outcome, KvPage)
                _listed(job.operation, outcome)
            elif isinstance(job, _Usage):
                assert isinstance(outcome, int)
                job.operation.settle(outcome)
            elif isinstance(outcome, InPieces):  # it has grown
                job.tries += 1
                if job.tries < _MOST_TRIES:
                    self.read_whole(job, outcome.cost)
                else:
                    job.operation.fail(_too_many("read: the value keeps growing"))
            else:
                assert outcome is None or isinstance(outcome, KvValue)
                job.operation.hold(outcome.cost if outcome else 0)
                job.operation.settle(outcome)

    # Errors ---------------------------------------------------------------------------------

    def trouble(self, error: BaseException) -> KvFailed:
        """Count an error of storage, say so now and then, and give what a guest is told."""
        self.counts.errors += 1
        trouble, now = self._trouble, self.clock.monotonic()
        trouble.unsaid += 1
        if now >= trouble.quiet_until:
            ours = None if isinstance(error, sqlite3.Error | OSError) else error
            log.error(
                "KV storage fails, %d times since the last such line: %s: %s",
                trouble.unsaid,
                type(error).__name__,
                error,
                exc_info=ours,
            )
            self._trouble = _Trouble(0, now + _QUIET_SECONDS)
        return _internal()


class SqliteKvStore:
    """One store.  All state is in the file."""

    def __init__(self, engine: SqliteKvEngine, identity: str) -> None:
        self.value_limit = engine.limits.value_bytes
        self._engine = engine
        self._identity = identity

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        raw = check_key(key)
        engine = self._engine
        engine.counts.lookups += 1
        operation = KvOperation[KvValue | None](payer)
        try:
            found = engine.reader.find(self._identity, raw, milliseconds(engine.clock.wall()))
        except sqlite3.Error as error:
            if not _is_busy(error):
                return operation.fail(engine.trouble(error))
            found = InPieces(0)  # somebody recovers the log: the thread can wait for that
        if found is None:
            return operation.settle(None)
        if isinstance(found, InPieces):
            engine.read_whole(_Lookup(self._identity, raw, operation), found.cost)
            return operation
        try:
            operation.hold(found.cost)
        except HostcallError as error:
            return operation.fail(error)
        return operation.settle(found)

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        raw = check_key(key)
        self._engine.counts.inserts += 1
        operation = KvOperation[int](payer, insertion.size)
        try:
            check_metadata(insertion.metadata)
            check_size(insertion.size, self.value_limit)
        except HostcallError as error:
            return operation.fail(error)
        size = insertion.size + len(insertion.metadata) + len(raw)
        identity = self._identity
        self._engine.write(
            _Write(identity, size, lambda to: to.insert(identity, raw, insertion), operation)
        )
        return operation

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        raw = check_key(key)
        self._engine.counts.deletes += 1
        operation = KvOperation[bool]()
        identity = self._identity
        self._engine.write(
            _Write(identity, len(raw), lambda to: to.delete(identity, raw, generation), operation)
        )
        return operation

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        self._engine.counts.lists += 1
        operation = KvOperation[KvPage](payer)
        try:
            first, beyond, limit = read_range(prefix, cursor, limit)
        except HostcallError as error:
            return operation.fail(error)
        self._engine.read(_List(self._identity, first, beyond, limit, operation))
        return operation


def _apply(job: _Write, writes: WriteBatch) -> Outcome:
    try:
        return job.apply(writes)
    except KvFailed as refused:
        return refused


def _listed(operation: KvOperation[KvPage], page: KvPage) -> None:
    try:
        operation.hold(sum(map(len, page.keys)) + _KEY_OVERHEAD * len(page.keys))
    except HostcallError as error:
        operation.fail(error)
    else:
        operation.settle(page)


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells more of the same
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _internal() -> KvFailed:
    return KvFailed(KvCause.INTERNAL_ERROR, "storage failed; the log of the server says how")


def _too_many(what: str) -> KvFailed:
    return KvFailed(KvCause.TOO_MANY_REQUESTS, f"too much waits to be {what}")

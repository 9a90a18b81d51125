"""KV stores as the rest of the server sees them: operations, their results, and two protocols.

An operation has started when it is handed out, and may be over already.  Whoever waits for one
watches it; there is no task.  What a guest may call is in `edge.abi`, how values are kept in
`kv_memory` and `kv_sqlite`, what both must agree on in `kv_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from edge.errors import Failed, HostcallError

T = TypeVar("T")

# A value crosses in pieces: no copy of one takes long, and none is joined on the loop.
MAX_PIECE = 256 * 1024


class KvCause(Enum):
    """Why an operation failed; the value is the word in logs."""

    BAD_REQUEST = "bad_request"  # a cursor that is none, metadata that are too long
    PRECONDITION_FAILED = "precondition_failed"  # `add` of a key that exists, another generation
    PAYLOAD_TOO_LARGE = "payload_too_large"  # the value, or the store with it
    INTERNAL_ERROR = "internal_error"  # storage: a write may have happened, or not
    TOO_MANY_REQUESTS = "too_many_requests"  # a queue is full: nothing has happened


class KvFailed(Failed):
    """An operation on a store that came to nothing."""

    def __init__(self, cause: KvCause, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.setting = setting  # that allows more, for the operator


class InsertMode(Enum):
    """What becomes of a value that is there."""

    OVERWRITE = "overwrite"
    ADD = "add"  # only where there is none
    APPEND = "append"
    PREPEND = "prepend"


@dataclass(frozen=True, slots=True)
class Insertion:
    """A value on its way into a store, in pieces of at most MAX_PIECE bytes.

    Metadata and time to live replace those that are there, in every mode.
    """

    pieces: tuple[bytes, ...]
    size: int  # of all pieces
    mode: InsertMode = InsertMode.OVERWRITE
    metadata: bytes = b""
    ttl: int | None = None  # seconds; 0 is over at once
    generation: int | None = None  # of the value to replace; not asked when there is none
    must_exist: bool = False  # refuse where there is nothing to replace


def insertion_of(value: bytes, **parts: object) -> Insertion:
    """An insertion of bytes that are in one piece."""
    pieces = tuple(value[at : at + MAX_PIECE] for at in range(0, len(value), MAX_PIECE))
    return Insertion(pieces, len(value), **parts)  # type: ignore[arg-type]  # fields by name


@dataclass(frozen=True, slots=True)
class KvValue:
    """A value that was found."""

    pieces: tuple[bytes, ...]
    size: int  # of all pieces
    metadata: bytes
    generation: int  # below 2**63

    @property
    def cost(self) -> int:
        """Bytes that whoever holds it pays for."""
        return self.size + len(self.metadata)


@dataclass(frozen=True, slots=True)
class KvPage:
    """Some of the keys of a store, sorted.  It may be short of the limit and not be the last."""

    keys: tuple[str, ...]
    limit: int  # that was applied
    next_cursor: str = ""  # where the next page begins; empty after the last


class Payer(Protocol):
    """Who is charged for what is held: `edge.http.body.Account` is one."""

    def charge(self, count: int) -> None:
        """Raises LimitExceeded, holding nothing."""
        ...

    def release(self, count: int) -> None: ...


class KvOperation(Generic[T]):
    """Something that was asked of a store.  `settle` and `fail` are the engine's, the rest is not.

    `held` bytes are charged to `payer` until the operation gives them back.
    """

    __slots__ = ("_error", "_value", "_watchers", "abandoned", "held", "is_ready", "payer")
    _value: T

    def __init__(self, payer: Payer | None = None, held: int = 0) -> None:
        self.payer = payer
        self.held = held  # charged already
        self.is_ready = False  # `result` would give the value or raise the failure
        self.abandoned = False
        self._error: HostcallError | None = None
        self._watchers: list[Callable[[], None]] | None = None

    # Whoever asked --------------------------------------------------------------------------

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it is ready."""
        if self._watchers is None:
            self._watchers = [callback]
        else:
            self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Forget a callback that has not been called."""
        if self._watchers and callback in self._watchers:
            self._watchers.remove(callback)

    @property
    def failure(self) -> HostcallError | None:
        """What `result` would raise, once it is ready."""
        return self._error

    def result(self) -> T:
        """Only when ready.  Raises KvFailed, or LimitExceeded when the payer could not pay."""
        if self._error is not None:
            raise self._error
        return self._value

    def abandon(self) -> None:
        """Nobody wants the result.  A write that was accepted happens nevertheless."""
        self.abandoned = True
        self._watchers = None
        self.release()
        if self.is_ready and self._error is None:
            del self._value
            self._error = _ABANDONED

    # The engine -----------------------------------------------------------------------------

    def hold(self, count: int) -> None:
        """Charge the payer for `count` bytes in all, more or less than before.

        Raises LimitExceeded, with what was held before still held.
        """
        if self.abandoned:
            return
        if self.payer is not None and count > self.held:
            self.payer.charge(count - self.held)
        elif self.payer is not None:
            self.payer.release(self.held - count)
        self.held = count

    def release(self) -> None:
        """Give back what is held."""
        if self.payer is not None and self.held:
            self.payer.release(self.held)
        self.held = 0

    def settle(self, value: T) -> KvOperation[T]:
        """It is over, and what is held stays held for the result."""
        if not self.abandoned:
            self._value = value
            self._over()
        return self

    def fail(self, error: HostcallError) -> KvOperation[T]:
        """It is over and came to nothing."""
        if not self.abandoned:
            self.release()
            self._error = error
            self._over()
        return self

    def _over(self) -> None:
        self.is_ready = True
        watchers, self._watchers = self._watchers, None
        for callback in watchers or ():
            callback()


_ABANDONED = Failed("this operation has been given up")


class KvStore(Protocol):
    """One store, open.  Methods never wait and never raise but InvalidArgument, for a bad key."""

    @property
    def value_limit(self) -> int:
        """Bytes of the largest value."""
        ...

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        """The value, or None.  The operation holds its cost until it is taken or abandoned."""
        ...

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        """Store a value; the result is its generation.

        `payer` has been charged for `insertion.size`; that is given back when the operation is
        over or abandoned.
        """
        ...

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        """Whether there was a value; one of another generation than asked for is not deleted."""
        ...

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        """Keys that begin with `prefix`, in order, after those that `cursor` tells of."""
        ...


@dataclass(frozen=True, slots=True)
class KvLimits:
    """In bytes: those of one value, and of one store with keys, metadata and an overhead each.

    `total_bytes` is for all stores of the engine together.
    """

    value_bytes: int
    store_bytes: int
    total_bytes: int = 1 << 62


@dataclass(slots=True)
class KvCounts:
    """What an engine counts, since its start."""

    lookups: int = 0
    inserts: int = 0
    deletes: int = 0
    lists: int = 0
    refused: int = 0  # TOO_MANY_REQUESTS: a queue was full
    errors: int = 0  # INTERNAL_ERROR: storage failed
    commits: int = 0
    expired: int = 0  # values swept


@dataclass(frozen=True, slots=True)
class KvStatistics:
    """Of an engine, now."""

    counts: KvCounts  # a copy
    queued: int = 0  # operations that wait for a thread
    queued_bytes: int = 0  # of values to be written


class KvEngine(Protocol):
    """Whoever keeps stores.  One per process, on one loop."""

    async def start(self) -> None:
        """Raises ConfigError when the storage cannot be used."""
        ...

    async def aclose(self) -> None:
        """End; writes that were accepted are made first."""
        ...

    def open(self, identity: str) -> KvStore:
        """The store of that identity (`identity_of`); it exists as soon as somebody opens it."""
        ...

    def erase(self, identity: str) -> KvOperation[bool]:
        """Give a store up for good: from now on it takes no writes, and what it holds goes.

        That happens a bounded lot at a time, after a restart too.  An identity that was erased is
        never of use again.
        """
        ...

    def usage(self, identity: str) -> KvOperation[int]:
        """Bytes that count against the limit of a store; 0 for one that nobody wrote to."""
        ...

    def statistics(self) -> KvStatistics: ...


def identity_of(service: str, name: str, shared: str) -> str:
    """What tells one store from all others of an engine: a service's own, or a shared one.

    No service's name is empty or has a colon, so that the two kinds cannot meet.
    """
    return f":{shared}" if shared else f"{service}:{name}"

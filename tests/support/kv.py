"""KV engines for tests: both kinds, waiting for operations, and a store that answers when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from edge.clock import Clock
from edge.errors import HostcallError
from edge.stores.kv import (
    Insertion,
    KvCause,
    KvEngine,
    KvFailed,
    KvLimits,
    KvOperation,
    KvPage,
    KvStore,
    KvValue,
    Payer,
)
from edge.stores.kv_memory import MemoryKvEngine
from edge.stores.kv_sqlite import SqliteKvEngine
from tests.support.clock import SteppedClock

T = TypeVar("T")

MIB = 1 << 20
LIMITS = KvLimits(value_bytes=2 * MIB, store_bytes=8 * MIB)
KINDS = ("memory", "sqlite")


@asynccontextmanager
async def opened(
    kind: str, directory: Path, *, limits: KvLimits = LIMITS, clock: Clock | None = None
) -> AsyncIterator[KvEngine]:
    """An engine that has started, closed afterwards."""
    clock = clock or SteppedClock()
    engine: KvEngine
    if kind == "memory":
        engine = MemoryKvEngine(limits, clock)
    else:
        engine = SqliteKvEngine(directory / "kv.sqlite", limits, clock)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


async def done(operation: KvOperation[T]) -> T:
    """The result, as soon as there is one."""
    await until_ready(operation)
    return operation.result()


async def until_ready(operation: KvOperation[T]) -> None:
    """Wait for it, whatever comes of it."""
    if not operation.is_ready:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        operation.watch(lambda: ready.set_result(None))
        await asyncio.wait_for(ready, 60)


async def refusal(operation: KvOperation[T]) -> KvCause:
    """Why it failed."""
    try:
        await done(operation)
    except KvFailed as failure:
        return failure.cause
    raise AssertionError("it has not failed")


async def value_of(store: KvStore, key: str) -> bytes | None:
    """The bytes under a key."""
    found = await done(store.lookup(key))
    if found is None:
        return None
    value = b"".join(found.pieces)
    assert len(value) == found.size
    return value


async def keys_of(store: KvStore, prefix: str = "", limit: int = 1000) -> list[str]:
    """All keys, page by page."""
    keys: list[str] = []
    cursors = [""]
    while True:
        page = await done(store.list(prefix, cursors[-1], limit))
        assert len(page.keys) <= limit
        keys += page.keys
        if not page.next_cursor:
            return keys
        assert page.next_cursor not in cursors, "for ever in a circle"
        cursors.append(page.next_cursor)


class HeldStore:
    """A store whose operations are over when the test says so; a `KvStore`."""

    def __init__(self, inner: KvStore) -> None:
        self.inner = inner
        self.value_limit = inner.value_limit
        self.waiting: list[Callable[[], None]] = []

    def release(self) -> None:
        """Let everything that waits happen, in order."""
        waiting, self.waiting = self.waiting, []
        for finish in waiting:
            finish()

    def fail_all(self, cause: KvCause) -> None:
        """Operations from now on come to nothing."""
        self.inner = FailingStore(cause, self.value_limit)

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        return self._hold(KvOperation[KvValue | None](payer), lambda: self.inner.lookup(key, payer))

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        return self._hold(
            KvOperation[int](payer, insertion.size), lambda: self.inner.insert(key, insertion)
        )

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        return self._hold(KvOperation[bool](), lambda: self.inner.delete(key, generation))

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        return self._hold(
            KvOperation[KvPage](payer), lambda: self.inner.list(prefix, cursor, limit, payer)
        )

    def _hold(self, outer: KvOperation[T], begin: Callable[[], KvOperation[T]]) -> KvOperation[T]:
        def finish() -> None:
            inner = begin()
            if outer.abandoned:
                inner.abandon()
                return
            outer.release()
            outer.held = inner.held
            try:
                outer.settle(inner.result())
            except HostcallError as error:
                outer.fail(error)

        self.waiting.append(finish)
        return outer


class FailingStore:
    """A store of which every operation comes to nothing, at once; a `KvStore`."""

    def __init__(self, cause: KvCause, value_limit: int = MIB) -> None:
        self.value_limit = value_limit
        self._error = KvFailed(cause, "told to fail")

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        return KvOperation[KvValue | None](payer).fail(self._error)

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        return KvOperation[int](payer, insertion.size).fail(self._error)

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        return KvOperation[bool]().fail(self._error)

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        return KvOperation[KvPage](payer).fail(self._error)

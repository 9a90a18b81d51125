"""Values of KV stores for the control API: waiting for the engine, its failures, what may be held.

The engine is the supervisor's own, on the file that the workers share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from edge.admin.around import Around
from edge.catalogue.records import Store
from edge.errors import ApiRefused, HostcallError, InvalidArgument, LimitExceeded, Refusal
from edge.stores.kv import (
    Insertion,
    KvCause,
    KvFailed,
    KvOperation,
    KvPage,
    KvStore,
    KvValue,
    identity_of,
    insertion_of,
)
from edge.stores.kv_settled import settled

T = TypeVar("T")

# Values on their way to clients, of all calls together; at least four of the largest.
MAX_HELD: Final = 64 * 1024 * 1024
# Cutting a value of this size into pieces takes a tenth of a millisecond.
_ON_LOOP: Final = 1024 * 1024

_REFUSALS: Final = {
    KvCause.BAD_REQUEST: Refusal.INVALID,
    KvCause.PRECONDITION_FAILED: Refusal.PRECONDITION_FAILED,
    KvCause.PAYLOAD_TOO_LARGE: Refusal.QUOTA,
    KvCause.INTERNAL_ERROR: Refusal.STORAGE,
    KvCause.TOO_MANY_REQUESTS: Refusal.BUSY,
}


class Held:
    """Bytes of values that are being sent; a `Payer` of the engine."""

    def __init__(self, most: int) -> None:
        self._left = most

    def charge(self, count: int) -> None:
        """Raises LimitExceeded, which callers see as BUSY."""
        if count > self._left:
            raise LimitExceeded("too many values are on their way to clients; try again")
        self._left -= count

    def release(self, count: int) -> None:
        self._left += count


class Value:
    """A value that was found, sent piece by piece.  Close it: what it holds is counted."""

    def __init__(self, operation: KvOperation[KvValue | None], value: KvValue) -> None:
        self.metadata = value.metadata
        self.generation = value.generation
        self.size = value.size
        self._operation = operation
        self._pieces = iter(value.pieces)

    def __aiter__(self) -> Value:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        self.close()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """As a generator is closed."""
        self.close()

    def close(self) -> None:
        """Give back what is held."""
        self._pieces = iter(())
        self._operation.release()


class Values:
    """What endpoints ask of KV stores.  Everything raises ApiRefused."""

    def __init__(self, around: Around) -> None:
        self._engine = around.kv
        self._held = Held(max(MAX_HELD, 4 * around.settings.storage.kv_value_bytes))

    async def get(self, store: Store, key: str) -> Value:
        """Raises NOT_FOUND too.  Whoever gets a value closes it."""
        operation = _begun(lambda: self._open(store).lookup(key, self._held))
        try:
            value = await _settled(operation)
        except BaseException:
            operation.abandon()
            raise
        if value is None:
            operation.release()
            raise no_key(store, key)
        return Value(operation, value)

    async def put(self, store: Store, key: str, value: bytes, **parts: object) -> int:
        """Store a value under the options of an `Insertion`; its generation."""
        if len(value) > _ON_LOOP:
            insertion = await asyncio.to_thread(insertion_of, value, **parts)
        else:
            insertion = insertion_of(value, **parts)
        return await self.insert(store, key, insertion)

    async def insert(self, store: Store, key: str, insertion: Insertion) -> int:
        """The same for an insertion that is there."""
        return await _settled(_begun(lambda: self._open(store).insert(key, insertion)))

    async def delete(self, store: Store, key: str, generation: int | None = None) -> bool:
        """Whether there was a value."""
        return await _settled(_begun(lambda: self._open(store).delete(key, generation)))

    async def keys(self, store: Store, prefix: str, cursor: str, limit: int) -> KvPage:
        """Some keys in order, of those that begin with `prefix`."""
        return await _settled(_begun(lambda: self._open(store).list(prefix, cursor, limit)))

    async def usage(self, store: Store) -> int:
        """Bytes that count against its limit."""
        return await _settled(self._engine.usage(identity_of("", "", store.id)))

    def _open(self, store: Store) -> KvStore:
        return self._engine.open(identity_of("", "", store.id))


def no_key(store: Store, key: str) -> ApiRefused:
    """What is said of a key without a value."""
    return ApiRefused(Refusal.NOT_FOUND, f"KV store {store.name!r} has nothing under {key!r}")


def _begun(begin: Callable[[], KvOperation[T]]) -> KvOperation[T]:
    try:
        return begin()
    except InvalidArgument as error:
        raise ApiRefused(Refusal.INVALID, str(error)) from None


async def _settled(operation: KvOperation[T]) -> T:
    try:
        return await settled(operation)
    except HostcallError as error:
        raise _refused(error) from None


def _refused(error: HostcallError) -> ApiRefused:
    if isinstance(error, LimitExceeded):
        return ApiRefused(Refusal.BUSY, str(error))
    if not isinstance(error, KvFailed):
        raise error
    refusal = _REFUSALS[error.cause]
    if error.setting == "storage.kv_value_bytes":
        refusal = Refusal.TOO_LARGE
    return ApiRefused(refusal, str(error))

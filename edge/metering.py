"""Counts what guests do outside their sandboxes: wrappers around what they are given.

Features know no metrics; a platform puts one of these between a feature and its guests.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from edge.model.backend import Backend
from edge.stores.kv import (
    Insertion,
    KvCause,
    KvFailed,
    KvOperation,
    KvPage,
    KvStore,
    KvValue,
    Payer,
)
from edge.telemetry.layout import DYNAMIC_BACKENDS, OTHER_BACKENDS, KvOp, KvResult
from edge.telemetry.service_block import ServiceBlock
from edge.upstream.fetch import Cause
from edge.upstream.pending import OnDone

_OURS = (KvCause.INTERNAL_ERROR, KvCause.TOO_MANY_REQUESTS)


def backend_counter(block: ServiceBlock, slots: Mapping[str, int]) -> OnDone:
    """Counts what becomes of requests to backends.  `slots`: where each backend is counted."""

    def done(backend: Backend, cause: Cause | None, status: int, seconds: float) -> None:
        slot = slots.get(backend.name, DYNAMIC_BACKENDS if backend.dynamic else OTHER_BACKENDS)
        if cause is None:
            block.backend_answered(slot, status, int(seconds * 1e9))
        else:
            block.backend_failed(slot, cause.value)

    return done


class CountedKvStore:
    """A `KvStore` whose operations are counted as they end."""

    __slots__ = ("_block", "_store", "value_limit")

    def __init__(self, store: KvStore, block: ServiceBlock) -> None:
        self._store = store
        self._block = block
        self.value_limit = store.value_limit

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        operation = self._store.lookup(key, payer)
        self._follow(KvOp.LOOKUP, operation)
        return operation

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        operation = self._store.insert(key, insertion, payer)
        self._follow(KvOp.INSERT, operation)
        return operation

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        operation = self._store.delete(key, generation)
        self._follow(KvOp.DELETE, operation)
        return operation

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        operation = self._store.list(prefix, cursor, limit, payer)
        self._follow(KvOp.LIST, operation)
        return operation

    def _follow(self, kind: KvOp, operation: KvOperation[Any]) -> None:
        if operation.is_ready:
            self._count(kind, operation)
        else:
            operation.watch(partial(self._count, kind, operation))

    def _count(self, kind: KvOp, operation: KvOperation[Any]) -> None:
        failure = operation.failure
        if failure is not None:
            ours = isinstance(failure, KvFailed) and failure.cause in _OURS
            self._block.kv(kind, KvResult.ERROR if ours else KvResult.REFUSED)
        elif kind in (KvOp.LOOKUP, KvOp.DELETE) and not operation.result():
            self._block.kv(kind, KvResult.REFUSED)  # there was nothing
        else:
            self._block.kv(kind, KvResult.OK)

"""KV stores in memory: for the local server and for tests.  They are gone with the process.

Every operation is over when it is handed out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from itertools import islice

from edge.clock import Clock
from edge.errors import HostcallError
from edge.stores.kv import (
    Insertion,
    InsertMode,
    KvCounts,
    KvLimits,
    KvOperation,
    KvPage,
    KvStatistics,
    KvValue,
    Payer,
)
from edge.stores.kv_rules import (
    MAX_SCAN,
    all_full,
    check_deletion,
    check_insertion,
    check_key,
    check_metadata,
    cost_of,
    end_of,
    milliseconds,
    next_generation,
    page_of,
    read_range,
    regrouped,
    store_full,
    store_gone,
)

# Values over that one insertion clears away to make room for itself.
_SWEEP = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    value: KvValue
    expires: int | None  # milliseconds since 1970

    def lives(self, now: int) -> bool:
        return self.expires is None or self.expires > now


@dataclass(slots=True)
class _All:
    """What the stores of an engine have together."""

    held: int = 0  # what their entries cost


class MemoryKvEngine:
    """Stores of one process."""

    def __init__(self, limits: KvLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._stores: dict[str, MemoryKvStore] = {}
        self._counts = KvCounts()
        self._all = _All()

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        self._stores.clear()

    def open(self, identity: str) -> MemoryKvStore:
        store = self._stores.get(identity)
        if store is None:
            store = MemoryKvStore(self._limits, self._clock, self._counts, self._all)
            self._stores[identity] = store
        return store

    def erase(self, identity: str) -> KvOperation[bool]:
        return KvOperation[bool]().settle(self.open(identity).erase())

    def usage(self, identity: str) -> KvOperation[int]:
        return KvOperation[int]().settle(self.open(identity).held)

    def statistics(self) -> KvStatistics:
        return KvStatistics(replace(self._counts))


@dataclass(slots=True)
class MemoryKvStore:
    """One store."""

    limits: KvLimits
    clock: Clock
    counts: KvCounts
    all: _All
    held: int = 0  # what its entries cost
    gone: bool = False
    _generation: int = 0  # the newest
    _entries: dict[bytes, _Entry] = field(default_factory=dict)
    _order: list[bytes] = field(default_factory=list)  # the keys, sorted

    @property
    def value_limit(self) -> int:
        return self.limits.value_bytes

    def lookup(self, key: str, payer: Payer | None = None) -> KvOperation[KvValue | None]:
        raw = check_key(key)
        self.counts.lookups += 1
        operation = KvOperation[KvValue | None](payer)
        entry = self._entries.get(raw)
        if entry is None or not entry.lives(self._now()):
            return operation.settle(None)
        try:
            operation.hold(entry.value.cost)
        except HostcallError as error:
            return operation.fail(error)
        return operation.settle(entry.value)

    def insert(
        self, key: str, insertion: Insertion, payer: Payer | None = None
    ) -> KvOperation[int]:
        raw = check_key(key)
        self.counts.inserts += 1
        operation = KvOperation[int](payer, insertion.size)
        try:
            generation = self._insert(raw, insertion)
        except HostcallError as error:
            return operation.fail(error)
        operation.release()
        return operation.settle(generation)

    def _insert(self, key: bytes, insertion: Insertion) -> int:
        check_metadata(insertion.metadata)
        if self.gone:
            raise store_gone()
        now = self._now()
        old = self._entries.get(key)
        live = old if old is not None and old.lives(now) else None
        size = check_insertion(
            insertion,
            (live.value.generation, live.value.size) if live else None,
            self.limits.value_bytes,
        )
        more = cost_of(len(key), len(insertion.metadata), size) - _cost(key, old)
        if more > 0 and self.held + more > self.limits.store_bytes:
            self._sweep(now, but=key)
            if self.held + more > self.limits.store_bytes:
                raise store_full(self.limits.store_bytes)
        if more > 0 and self.all.held + more > self.limits.total_bytes:
            self._sweep(now, but=key)
            if self.all.held + more > self.limits.total_bytes:
                raise all_full(self.limits.total_bytes)
        pieces = insertion.pieces
        if live and insertion.mode is InsertMode.APPEND:
            pieces = live.value.pieces + pieces
        elif live and insertion.mode is InsertMode.PREPEND:
            pieces += live.value.pieces
        self._generation = next_generation(self._generation, self.clock.wall())
        value = KvValue(tuple(regrouped(pieces)), size, insertion.metadata, self._generation)
        if old is None:
            insort(self._order, key)
        self._entries[key] = _Entry(value, end_of(insertion.ttl, now))
        self._grow(more)
        return self._generation

    def delete(self, key: str, generation: int | None = None) -> KvOperation[bool]:
        raw = check_key(key)
        self.counts.deletes += 1
        entry = self._entries.get(raw)
        if entry is None:
            return KvOperation[bool]().settle(False)
        lives = entry.lives(self._now())
        if lives:
            try:
                check_deletion(entry.value.generation, generation)
            except HostcallError as error:
                return KvOperation[bool]().fail(error)
        self._remove(raw)
        return KvOperation[bool]().settle(lives)

    def erase(self) -> bool:
        """Whether it held anything."""
        held, self.gone = self.held > 0, True
        self._entries.clear()
        self._order.clear()
        self._grow(-self.held)
        return held

    def list(
        self, prefix: str, cursor: str, limit: int, payer: Payer | None = None
    ) -> KvOperation[KvPage]:
        self.counts.lists += 1
        operation = KvOperation[KvPage](payer)
        try:
            first, beyond, limit = read_range(prefix, cursor, limit)
            start, end = bisect_left(self._order, first), bisect_left(self._order, beyond)
            keys = self._order[start : min(end, start + MAX_SCAN + 1)]
            page = page_of(((key, self._entries[key].expires) for key in keys), self._now(), limit)
            operation.hold(sum(map(len, page.keys)))
        except HostcallError as error:
            return operation.fail(error)
        return operation.settle(page)

    def _sweep(self, now: int, *, but: bytes) -> None:
        over = (key for key, entry in self._entries.items() if not entry.lives(now) and key != but)
        for key in list(islice(over, _SWEEP)):
            self._remove(key)
            self.counts.expired += 1

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        del self._order[bisect_left(self._order, key)]
        self._grow(-_cost(key, entry))

    def _grow(self, more: int) -> None:
        self.held += more
        self.all.held += more

    def _now(self) -> int:
        return milliseconds(self.clock.wall())


def _cost(key: bytes, entry: _Entry | None) -> int:
    if entry is None:
        return 0
    return cost_of(len(key), len(entry.value.metadata), entry.value.size)

"""Rate counters and penalty boxes: what they promise, and the steps that all engines share.

Entries of one service are nobody else's: a neighbour's counter of the same name is another one.
What an engine adds is where entries are kept, and which go when there is no more room.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Protocol

from edge.errors import InvalidArgument
from edge.stores import rate_windows

RATE_WINDOWS = (1, 10, 60)  # seconds
COUNT_WINDOWS = (10, 20, 30, 40, 50, 60)  # seconds
MAX_PENALTY = 3600  # seconds
SECRET_BYTES = 32
KEY_BYTES = 16
TAG_BYTES = 8
# Counters go by the second, and one entry of full length takes about so much of a tree whose
# pages are half full: 61 buckets of 4 bytes, key, index entry.
ENTRY_BYTES = 704

_KIND = Struct("<cI")
_COUNTER, _BOX = b"c", b"b"


@dataclass(frozen=True, slots=True)
class RateStatistics:
    """All services and all workers together."""

    entries: int  # counters and penalties, those that have expired and are not yet removed included
    capacity: int
    expired: int  # removed since the start because nothing could be read off them any more
    evicted: int  # removed although something could


class Rates(Protocol):
    """One per worker.  `service` is the namespace; names and entries are any text."""

    def check(
        self,
        service: str,
        counter: str,
        entry: str,
        *,
        delta: int,
        window: int,
        limit: int,
        box: str,
        seconds: int,
    ) -> bool:
        """Count `delta`; penalise the entry when its rate is then over `limit` per second.

        True when the entry is now in the penalty box, by this call or an earlier one.
        """
        ...

    def increment(self, service: str, counter: str, entry: str, delta: int) -> None:
        """Count `delta`."""
        ...

    def rate(self, service: str, counter: str, entry: str, window: int) -> int:
        """Per second over the last `window` seconds (RATE_WINDOWS), rounded up."""
        ...

    def count(self, service: str, counter: str, entry: str, window: int) -> int:
        """Over the last `window` seconds (COUNT_WINDOWS)."""
        ...

    def penalize(self, service: str, box: str, entry: str, seconds: int) -> None:
        """Put the entry into a penalty box for 1 to MAX_PENALTY seconds."""
        ...

    def is_penalized(self, service: str, box: str, entry: str) -> bool:
        """Whether the entry is in the box now."""
        ...

    def statistics(self) -> RateStatistics: ...


class Table(Protocol):
    """Entries, while nobody else can change them."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, /) -> object:
        """Replace the value of a key that is there."""
        ...


class RateEngine:
    """The steps of every call over a table that an engine opens."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        """`secret`: nobody who does not know it can make two entries collide."""
        self._clock = clock
        self._secret = secret
        self._spaces: dict[str, tuple[bytes, bytes]] = {}  # service -> key for hashing, tag

    def _begin(self) -> AbstractContextManager[Table]:
        raise NotImplementedError

    def _insert(self, table: Table, tag: bytes, key: bytes, value: bytes, second: int) -> None:
        """Add a key that is not there, after others went if there is no room."""
        raise NotImplementedError

    def check(
        self,
        service: str,
        counter: str,
        entry: str,
        *,
        delta: int,
        window: int,
        limit: int,
        box: str,
        seconds: int,
    ) -> bool:
        _check_window(window, RATE_WINDOWS)
        _check_penalty(seconds)
        space, tag = self._space(service)
        counted, boxed = _key(space, _COUNTER, counter, entry), _key(space, _BOX, box, entry)
        with self._begin() as table:
            now = self._clock()  # not before we have the lock: time passes while we wait for it
            value = self._add(table, tag, counted, now, delta)
            penalty = table.get(boxed)
            if rate_windows.counted(value, now, window) > limit * window:
                self._penalize(table, tag, boxed, penalty, now, seconds)
                return True
            return rate_windows.is_penalty(penalty, now)

    def increment(self, service: str, counter: str, entry: str, delta: int) -> None:
        space, tag = self._space(service)
        key = _key(space, _COUNTER, counter, entry)
        with self._begin() as table:
            self._add(table, tag, key, self._clock(), delta)

    def rate(self, service: str, counter: str, entry: str, window: int) -> int:
        _check_window(window, RATE_WINDOWS)
        # Rounded up, `rate > limit` says just what `check` does.
        return -(-self._counted(service, counter, entry, window) // window)

    def count(self, service: str, counter: str, entry: str, window: int) -> int:
        _check_window(window, COUNT_WINDOWS)
        return self._counted(service, counter, entry, window)

    def penalize(self, service: str, box: str, entry: str, seconds: int) -> None:
        _check_penalty(seconds)
        space, tag = self._space(service)
        key = _key(space, _BOX, box, entry)
        with self._begin() as table:
            self._penalize(table, tag, key, table.get(key), self._clock(), seconds)

    def is_penalized(self, service: str, box: str, entry: str) -> bool:
        key = _key(self._space(service)[0], _BOX, box, entry)
        with self._begin() as table:
            return rate_windows.is_penalty(table.get(key), self._clock())

    def _counted(self, service: str, counter: str, entry: str, window: int) -> int:
        key = _key(self._space(service)[0], _COUNTER, counter, entry)
        with self._begin() as table:
            return rate_windows.counted(table.get(key), self._clock(), window)

    def _add(self, table: Table, tag: bytes, key: bytes, now: float, delta: int) -> bytes:
        before = table.get(key)
        second = int(now)
        value = rate_windows.add(before, second, delta)
        if before is None:
            self._insert(table, tag, key, value, second)
        else:
            table.put(key, value)
        return value

    def _penalize(
        self, table: Table, tag: bytes, key: bytes, before: bytes | None, now: float, seconds: int
    ) -> None:
        value = rate_windows.penalty(before, now, seconds)
        if before is None:
            self._insert(table, tag, key, value, int(now))
        else:
            table.put(key, value)

    def _space(self, service: str) -> tuple[bytes, bytes]:
        space = self._spaces.get(service)
        if space is None:
            if len(self._spaces) >= 1024:  # names of services come and go with the configuration
                self._spaces.clear()
            digest = blake2b(service.encode(), key=self._secret, digest_size=64).digest()
            space = self._spaces[service] = digest[:32], digest[-TAG_BYTES:]
        return space


def _key(space: bytes, kind: bytes, name: str, entry: str) -> bytes:
    raw = name.encode()
    data = _KIND.pack(kind, len(raw)) + raw + entry.encode()
    return blake2b(data, key=space, digest_size=KEY_BYTES).digest()


def _check_window(window: int, allowed: tuple[int, ...]) -> None:
    if window not in allowed:
        raise InvalidArgument(f"a window of {window} seconds, where {allowed} are possible")


def _check_penalty(seconds: int) -> None:
    if not 1 <= seconds <= MAX_PENALTY:
        raise InvalidArgument(f"a penalty of {seconds} seconds; 1 to {MAX_PENALTY} are possible")

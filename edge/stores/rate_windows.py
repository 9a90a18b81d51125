"""What is stored of a rate counter or a penalty, as bytes, and what is read off it.  Pure.

A counter is a row of one-second buckets, newest first: `expires u32, count u32 ...`.  A penalty is
`expires u32, until f64`.  `expires` is the second from which the entry tells nothing any more.  All
times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from struct import Struct

LONGEST = 60  # seconds: the longest window
BUCKETS = LONGEST + 1  # the one that a window's start cuts in two is needed as well
MOST = 0xFFFF_FFFF  # a bucket stays at this instead of starting again

_EXPIRES = Struct("<I")
_FIRST = Struct("<II")
_COUNTS = tuple(Struct(f"<{count}I") for count in range(BUCKETS + 1))
_PENALTY = Struct("<Id")


def expiry(value: bytes) -> int:
    """The second from which `value` tells nothing any more."""
    second: int = _EXPIRES.unpack_from(value)[0]
    return second


def add(value: bytes | None, second: int, delta: int) -> bytes:
    """`value` with `delta` more in the bucket of `second`, which may be a little in the past."""
    if value is None:
        return _FIRST.pack(second + BUCKETS, min(delta, MOST))
    expires, newest = _FIRST.unpack_from(value)
    passed = second + BUCKETS - expires
    if passed <= 0:
        return _FIRST.pack(expires, min(newest + delta, MOST)) + value[8:]
    if passed >= BUCKETS:
        return _FIRST.pack(second + BUCKETS, min(delta, MOST))
    kept = value[4 : 4 + 4 * (BUCKETS - passed)]
    return _FIRST.pack(second + BUCKETS, min(delta, MOST)) + bytes(4 * (passed - 1)) + kept


def counted(value: bytes | None, now: float, window: int) -> int:
    """How much was added during the `window` seconds that end `now`.

    Exact, but for the one bucket in which the window begins: of that the part that lies inside is
    taken as if its additions had come evenly, rounded down.  So the error, either way, is less than
    or equal to what was added within that one second.
    """
    if value is None:
        return 0
    second = int(now)
    passed = second + BUCKETS - expiry(value)
    if passed < 0:  # written by a process whose reading of the clock was the later one
        passed, now = 0, float(second)
    inside = window - passed  # stored buckets that lie wholly in the window
    if inside < 0:
        return 0
    stored = (len(value) - 4) // 4
    counts: tuple[int, ...] = _COUNTS[min(stored, inside + 1)].unpack_from(value, 4)
    if stored <= inside:
        return sum(counts)
    cut = counts[inside]
    return sum(counts) - cut + int(cut * (1.0 - (now - second)))


def penalty(value: bytes | None, now: float, seconds: int) -> bytes:
    """A penalty of `seconds` from `now`; an earlier one that lasts longer stays."""
    until = now + seconds
    if value is not None:
        until = max(until, _PENALTY.unpack(value)[1])
    return _PENALTY.pack(math.ceil(until), until)


def is_penalty(value: bytes | None, now: float) -> bool:
    """Whether a penalty still lasts."""
    if value is None:
        return False
    until: float = _PENALTY.unpack(value)[1]
    return now < until

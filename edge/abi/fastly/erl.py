"""`fastly_erl`: rate counters and penalty boxes, shared by all workers of this machine."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from edge.abi.codec import U32, Choice, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Unsupported
from edge.stores.rates import Rates

abi = HostModule("fastly_erl", FASTLY)

_MOST = 0xFFFF_FFFF


class Window(IntEnum):
    """Seconds over which a rate is taken."""

    SECOND = 1
    TEN_SECONDS = 10
    MINUTE = 60


class Duration(IntEnum):
    """Seconds over which additions are counted."""

    TEN = 10
    TWENTY = 20
    THIRTY = 30
    FORTY = 40
    FIFTY = 50
    SIXTY = 60


RateWindow = Annotated[Window, Choice(Window)]
CountWindow = Annotated[Duration, Choice(Duration)]


@abi.hostcall
def check_rate(
    box: Sandbox,
    counter: Str,
    entry: Str,
    delta: U32,
    window: RateWindow,
    limit: U32,
    penalty_box: Str,
    ttl: U32,
) -> U32:
    """Add `delta`, then whether the entry is in the penalty box.

    It is put there for `ttl` seconds (1 to 3600, others are INVAL) when its rate over `window`
    seconds (1, 10, 60) is now above `limit` per second.
    """
    return _rates(box).check(
        box.service.name,
        counter,
        entry,
        delta=delta,
        window=window,
        limit=limit,
        box=penalty_box,
        seconds=ttl,
    )


@abi.hostcall
def ratecounter_increment(box: Sandbox, counter: Str, entry: Str, delta: U32) -> None:
    """Add `delta` to an entry of a rate counter."""
    _rates(box).increment(box.service.name, counter, entry, delta)


@abi.hostcall
def ratecounter_lookup_rate(box: Sandbox, counter: Str, entry: Str, window: RateWindow) -> U32:
    """Additions per second over the last 1, 10 or 60 seconds, rounded up."""
    return min(_rates(box).rate(box.service.name, counter, entry, window), _MOST)


@abi.hostcall
def ratecounter_lookup_count(box: Sandbox, counter: Str, entry: Str, duration: CountWindow) -> U32:
    """Additions over the last 10, 20, 30, 40, 50 or 60 seconds."""
    return min(_rates(box).count(box.service.name, counter, entry, duration), _MOST)


@abi.hostcall
def penaltybox_add(box: Sandbox, penalty_box: Str, entry: Str, ttl: U32) -> None:
    """Put an entry into a penalty box for 1 to 3600 seconds; a longer penalty it has stays."""
    _rates(box).penalize(box.service.name, penalty_box, entry, ttl)


@abi.hostcall
def penaltybox_has(box: Sandbox, penalty_box: Str, entry: Str) -> U32:
    """Whether an entry is in a penalty box."""
    return _rates(box).is_penalized(box.service.name, penalty_box, entry)


def _rates(box: Sandbox) -> Rates:
    rates = box.capabilities.rates
    if rates is None:
        raise Unsupported("no rates are counted here")
    return rates

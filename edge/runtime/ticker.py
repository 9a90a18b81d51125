"""When the epoch ticks: fast while guests share the thread, lazily otherwise, and never when idle.

A tick is what ends a slice.  Each is a thread that glibc starts, so ticking costs 2 % of a core
even when nothing runs, and at 1 ms a tenth of the throughput of a hello world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from edge.runtime import capi

TICK_NS: Final = 1_000_000
# While no guest needs a second slice, a tick only has to catch the first that does.
LAZY_TICK_NS: Final = 4_000_000
IDLE_SECONDS: Final = 0.1  # without a slice for this long there is nothing to tick for


class Ticker:
    """The ticks of one engine.  Whoever gives a slice sees that it is `armed` and sets `used`."""

    def __init__(
        self, engine: int, loop: asyncio.AbstractEventLoop, shared: Callable[[], bool]
    ) -> None:
        """`shared` tells whether guests wait for their next slice or hostcall.

        Raises OSError when the kernel has no timer for us.
        """
        self._timer = capi.EpochTimer(engine)
        self._loop = loop
        self._shared = shared
        self._look: asyncio.TimerHandle | None = None
        self._period_ns = 0
        self.armed = False
        self.used = False  # since it was last looked at

    def arm(self) -> None:
        """Tick from now on, until nothing has run for a while."""
        self.armed = True
        self._every(TICK_NS if self._shared() else LAZY_TICK_NS)
        self._look = self._loop.call_later(IDLE_SECONDS, self._relax)

    def hurry(self) -> None:
        """A guest has outlived its first slice: the thread is shared from now on."""
        if self._period_ns != TICK_NS:
            self._every(TICK_NS)

    def close(self) -> None:
        """Must come before the engine can be freed: a tick into a freed engine is a crash."""
        if self._look is not None:
            self._look.cancel()
        self._timer.close()

    def _relax(self) -> None:
        if self.used:  # guests that only wait need no ticks
            self.used = False
            if self._period_ns == TICK_NS and not self._shared():
                self._every(LAZY_TICK_NS)
            self._look = self._loop.call_later(IDLE_SECONDS, self._relax)
        else:
            self.armed = False
            self._every(0)

    def _every(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._timer.set(period_ns)

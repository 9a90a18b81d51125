"""Requests that go on although their guest has ended: they were sent for their effect.

The SDKs promise that a pending request may be dropped.  There is no sandbox left whose limits would
end them, so there are few, and none lasts long.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from edge.upstream.fetch import Pending, UpstreamFailed

MOST: Final = 64  # of one service and worker; those beyond are given up
SECONDS: Final = 30.0  # whatever the backend's own timeouts are


class Unattended:
    """Those of one service."""

    __slots__ = ("__weakref__", "_loop", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timers: dict[Pending, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def take(self, pending: Pending) -> None:
        """See that it comes to its end, and throw away what comes back."""
        if pending.is_ready or len(self._timers) >= MOST:
            pending.abandon()
            return
        self._timers[pending] = self._loop.call_later(SECONDS, self._give_up, pending)
        pending.watch(partial(self._over, pending))

    def _over(self, pending: Pending) -> None:
        timer = self._timers.pop(pending, None)
        if timer is not None:
            timer.cancel()
        with suppress(UpstreamFailed):  # it has been counted
            pending.result().body.discard()

    def _give_up(self, pending: Pending) -> None:
        del self._timers[pending]
        pending.abandon()

"""`fastly_async_io`: waiting for whichever of several things is ready first.

Event-driven: nothing polls.  A ready item is found without suspending the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge.abi.codec import U32, Handles
from edge.abi.fastly.ready import Item, is_ready, waitable
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import InvalidArgument

abi = HostModule("fastly_async_io", FASTLY)

TIMED_OUT = 0xFFFF_FFFF


@abi.hostcall
async def select(box: Sandbox, handles: Handles, timeout_ms: U32) -> U32:
    """Index of the first ready item, waiting for one; 0xFFFFFFFF after the timeout (0: none)."""
    if not handles and not timeout_ms:
        raise InvalidArgument("select of nothing, for ever")
    table = box.items
    items = [waitable(table[handle]) for handle in handles]
    index = _first_ready(items)
    if index is not None:
        return index
    return await _wait_any(items, timeout_ms)


@abi.hostcall
def is_ready_(box: Sandbox, handle: U32) -> U32:
    """1 when waiting for the item would not wait."""
    return int(is_ready(waitable(box.items[handle])))


def _first_ready(items: Sequence[Item]) -> int | None:
    for index, item in enumerate(items):
        if is_ready(item):
            return index
    return None


async def _wait_any(items: Sequence[Item], timeout_ms: int) -> int:
    loop = asyncio.get_running_loop()
    timed_out = False
    changed: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not changed.done():
            changed.set_result(None)

    def expire() -> None:
        nonlocal timed_out
        timed_out = True
        wake()

    # A hostile guest may name one body ten thousand times: watch it once.
    distinct = list({id(item): item for item in items}.values())
    timer = loop.call_later(timeout_ms / 1000, expire) if timeout_ms else None
    try:
        while True:
            for item in distinct:
                item.watch(wake)
            await changed
            for item in distinct:
                item.unwatch(wake)
            index = _first_ready(items)
            if index is not None:
                return index
            if timed_out:
                return TIMED_OUT
            changed = loop.create_future()
    finally:
        if timer is not None:
            timer.cancel()
        for item in distinct:
            item.unwatch(wake)

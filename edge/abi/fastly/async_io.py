"""`fastly_async_io`: waiting for whichever of several things is ready first.

Event-driven: nothing polls.  A ready item is found without suspending the guest.
"""

from __future__ import annotations

from edge.abi.codec import U32, Handles
from edge.abi.fastly.ready import is_ready, waitable
from edge.abi.fastly.status import FASTLY
from edge.abi.fastly.waiting import first_ready, wait_any
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
    index = first_ready(items)
    if index is None:
        index = await wait_any(items, timeout_ms)
    return TIMED_OUT if index is None else index


@abi.hostcall
def is_ready_(box: Sandbox, handle: U32) -> U32:
    """1 when waiting for the item would not wait."""
    return int(is_ready(waitable(box.items[handle])))

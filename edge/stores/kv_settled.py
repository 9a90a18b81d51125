"""Waiting for an operation on a KV store, for coroutines of our own: guests have theirs."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from edge.stores.kv import KvOperation

T = TypeVar("T")


async def settled(operation: KvOperation[T]) -> T:
    """The result, once there is one.  Raises what the operation failed with."""
    if not operation.is_ready:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell() -> None:
            if not done.done():
                done.set_result(None)

        operation.watch(tell)
        await done
    return operation.result()

"""Changes under way when the server stops."""

from __future__ import annotations

import asyncio

import pytest

from edge.errors import ApiRefused, Refusal
from edge.rollout.errands import Errands
from tests.support.loop import in_loop


@in_loop
async def test_a_change_that_waits_for_a_disk_that_hangs_does_not_hold_up_a_stop() -> None:
    errands = Errands()
    owner = asyncio.create_task(errands.run())
    await asyncio.sleep(0)
    never = asyncio.get_running_loop().create_future()

    async def remember() -> None:
        try:
            await asyncio.shield(never)
        except asyncio.CancelledError:  # what is being written is waited for
            await asyncio.wait({never})

    asking = asyncio.create_task(errands.do(remember))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await errands.stop(0.01)
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)
        with pytest.raises(ApiRefused) as caught:
            await asking
    assert caught.value.refusal is Refusal.STOPPING
    never.cancel()

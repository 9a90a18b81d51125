"""Turns: bounded, fair to each name, and none is lost with those who leave."""

from __future__ import annotations

import asyncio

from edge.runtime.turns import Turns
from tests.support.loop import in_loop, turns


class Queue:
    """Tasks that take a turn each, and end it when told."""

    def __init__(self, most: int) -> None:
        self.turns = Turns(most)
        self.began: list[str] = []
        self.over: dict[str, asyncio.Event] = {}

    def ask(self, name: str, number: int = 0) -> asyncio.Task[None]:
        return asyncio.create_task(self._take(name, f"{name}{number}"))

    async def _take(self, name: str, label: str) -> None:
        over = self.over[label] = asyncio.Event()
        async with self.turns.of(name):
            self.began.append(label)
            await over.wait()

    async def finish(self, label: str) -> None:
        self.over[label].set()
        await turns(10)


@in_loop
async def test_a_name_that_queues_much_waits_for_its_own() -> None:
    at = Queue(1)
    tasks = [at.ask("hog", number) for number in range(5)]
    await turns(5)
    tasks += [at.ask("shop"), at.ask("blog")]
    await turns(5)
    assert at.turns.locked()
    for label in ("hog0", "hog1", "shop0", "blog0", "hog2", "hog3", "hog4"):
        assert at.began[-1] == label
        await at.finish(label)
    await asyncio.gather(*tasks)
    assert not at.turns.locked()


@in_loop
async def test_so_many_at_once_and_no_more() -> None:
    at = Queue(2)
    tasks = [at.ask("a", number) for number in range(3)]
    await turns(5)
    assert at.began == ["a0", "a1"]
    for label in ("a1", "a0", "a2"):
        await at.finish(label)
    await asyncio.gather(*tasks)


@in_loop
async def test_turns_of_those_who_leave_go_to_others() -> None:
    at = Queue(1)
    first, second, third = at.ask("a"), at.ask("b"), at.ask("c")
    await turns(5)
    second.cancel()  # while it waits
    at.over["a0"].set()
    third_began = at.began
    await turns(10)
    assert third_began == ["a0", "c0"]
    fourth, fifth = at.ask("d"), at.ask("e")
    await turns(5)
    at.over["c0"].set()
    while not third.done():
        await turns(1)
    fourth.cancel()  # when its turn has just come, or is there
    await turns(10)
    assert at.began[-1] == "e0"
    await at.finish("e0")
    await asyncio.gather(first, second, third, fourth, fifth, return_exceptions=True)
    assert not at.turns.locked()

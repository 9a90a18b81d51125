"""A promise of a further request: its states, and what it tells of its guest."""

from __future__ import annotations

from edge.abi.further import Further, State
from tests.support.further import FakeGiver
from tests.support.loop import in_loop
from tests.support.sandboxes import make_sandbox


def promised() -> tuple[FakeGiver, Further]:
    giver = FakeGiver(make_sandbox().box)
    return giver, giver.ask(1)


def test_a_promise_that_nobody_gives_is_settled_at_once() -> None:
    promise = Further(None)
    assert promise.is_settled
    promise.drop()
    assert promise.state is State.GONE


def test_watching_tells_whoever_has_requests_and_settling_tells_the_watchers_once() -> None:
    giver, promise = promised()
    calls: list[str] = []

    def first() -> None:
        calls.append("first")

    def second() -> None:
        calls.append("second")

    promise.watch(first)
    promise.watch(second)
    promise.unwatch(first)
    assert giver.told == ["watched"], "one of two still waits"
    promise.unwatch(second)
    promise.unwatch(second)
    assert giver.told == ["watched", "unwatched"]
    promise.watch(first)
    promise.give()
    promise.refuse()
    assert calls == ["first"]
    assert promise.state is State.REFUSED, "taken back before it was taken"


def test_what_was_given_and_not_taken_is_told_when_the_guest_lets_go() -> None:
    giver, promise = promised()
    promise.give()
    promise.drop()
    promise.drop()
    promise.give()
    assert giver.told == ["dropped"]
    assert promise.state is State.GONE


@in_loop
async def test_a_guest_rests_until_it_is_given_a_request() -> None:
    giver, promise = promised()
    promise.give()
    assert await promise.wait()
    promise.drop()
    assert giver.told == ["rest"], "taken: nothing is left to be let go of"


@in_loop
async def test_a_guest_that_is_refused_wakes() -> None:
    giver, promise = promised()
    promise.refuse()
    assert not await promise.wait()
    assert giver.told == ["rest", "wake"]

"""Declaring hostcalls, and the generated functions between them and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Never

import pytest

from edge.abi.codec import U32, Str
from edge.abi.fastly.status import FASTLY, Status
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import GuestExit, Sandbox
from edge.abi.trampoline import Pause
from edge.errors import Failed, LimitExceeded, Missing
from tests.support.fake_guest import FakeGuest, Left
from tests.support.loop import in_loop, turns
from tests.support.sandboxes import make_sandbox

abi = HostModule("m", FASTLY)


@abi.hostcall
def add(box: Sandbox, a: U32, b: U32) -> U32:
    """Adds."""
    return (a + b) & 0xFFFF_FFFF


@abi.hostcall
def fail_(box: Sandbox, how: U32) -> None:
    if how == 1:
        raise Missing("nothing")
    if how == 2:
        raise LimitExceeded("too much", limit="limits.handles")
    if how == 3:
        raise ZeroDivisionError
    if how == 4:
        raise GuestExit(7)


@abi.hostcall
def leave(box: Sandbox, code: U32) -> Never:
    raise GuestExit(code)


@abi.hostcall
async def wait(box: Sandbox, key: Str) -> U32:
    waiting: Any = box.extras.get(key)
    if isinstance(waiting, int):
        return waiting
    try:
        result: int = await waiting
        return result
    finally:
        box.extras["cleaned up"] = True


@abi.hostcall
async def pause(box: Sandbox) -> None:
    for _ in range(3):
        box.extras["steps"] = box.extras.get("steps", 0) + 1
        await Pause()


@abi.may_suspend
def perhaps(box: Sandbox, now: U32) -> U32 | Coroutine[Any, None, int]:
    return 11 if now else _later(box)


async def _later(box: Sandbox) -> int:
    await Pause()
    return 22


abi.unsupported("never", "iIi", "nobody built it")
env = HostModule("env", FASTLY)
env.alias("old_add", abi.hostcalls["add"])
env.alias("old_perhaps", abi.hostcalls["perhaps"])


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest([abi, env], make_sandbox().box)


def test_signatures_come_from_annotations() -> None:
    assert {name: call.signature for name, call in abi.hostcalls.items()} == {
        "add": "iii",
        "fail": "i",
        "leave": "i",
        "wait": "iii",
        "pause": "",
        "perhaps": "ii",
        "never": "iIi",
    }
    assert [name for name, call in abi.hostcalls.items() if call.suspends] == [
        "wait",
        "pause",
        "perhaps",
    ]
    assert abi.hostcalls["leave"].returns == ""
    assert abi.hostcalls["add"].doc == "Adds."


def test_a_declaration_that_cannot_be_right_is_refused() -> None:
    module = HostModule("x", FASTLY)

    def plain(box: Sandbox, number: int) -> None: ...

    def good(box: Sandbox, number: U32) -> None: ...

    with pytest.raises(TypeError, match=r"x\.plain"):
        module.hostcall(plain)
    module.hostcall(good)
    with pytest.raises(ValueError, match="twice"):
        module.hostcall(good)


def test_results_and_statuses(guest: FakeGuest) -> None:
    out = guest.room(4)
    assert guest.call("add", 2, 3, out) == Status.OK
    assert guest.u32_at(out) == 5
    assert guest.call("env.old_add", -1, 1, out) == Status.OK
    assert guest.u32_at(out) == 0
    assert guest.call("fail", 0) == Status.OK
    assert guest.call("fail", 1) == Status.NONE
    assert guest.call("never", 1, 2, 3) == Status.UNSUPPORTED
    assert guest.box.calls == 5


def test_a_limit_that_was_hit_is_remembered_for_the_operator(guest: FakeGuest) -> None:
    for _ in range(2):
        assert guest.call("fail", 2) == Status.LIMITEXCEEDED
    assert guest.box.limits_hit == {"limits.handles": 2}


def test_our_own_bugs_are_faults_and_endings_are_endings(guest: FakeGuest) -> None:
    with pytest.raises(ZeroDivisionError):
        guest.call("fail", 3)
    for name, code in (("fail", 4), ("leave", 7)):
        with pytest.raises(Left) as left:
            guest.call(name, code)
        assert left.value.code == 7


def test_an_asynchronous_call_that_need_not_wait_does_not_suspend(guest: FakeGuest) -> None:
    guest.box.extras["k"] = 42
    out = guest.room(4)
    assert guest.start("wait", *guest.put(b"k"), out) == Status.OK
    assert guest.u32_at(out) == 42


@in_loop
async def test_a_call_that_waits_gives_its_result_later() -> None:
    guest = FakeGuest(abi, make_sandbox().box)
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    guest.box.extras["k"] = future
    out = guest.room(4)
    assert guest.start("wait", *guest.put(b"k"), out) is None
    finishing = asyncio.ensure_future(guest.finish())
    await turns()
    assert not finishing.done()
    assert guest.u32_at(out) == 0
    future.set_result(99)
    assert await finishing == Status.OK
    assert guest.u32_at(out) == 99


@pytest.mark.parametrize(
    ("error", "status"), [(Failed("x"), Status.ERROR), (Missing("x"), Status.NONE)]
)
def test_a_call_that_waits_can_fail(error: Exception, status: Status) -> None:
    async def run() -> None:
        guest = FakeGuest(abi, make_sandbox().box)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        guest.box.extras["k"] = future
        assert guest.start("wait", *guest.put(b"k"), 64) is None
        future.set_exception(error)
        assert await guest.finish() == status

    asyncio.run(run())


@in_loop
async def test_a_fault_after_a_wait_is_a_fault() -> None:
    guest = FakeGuest(abi, make_sandbox().box)
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    guest.box.extras["k"] = future
    assert guest.start("wait", *guest.put(b"k"), 64) is None
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await guest.finish()


@in_loop
async def test_a_killed_guest_lets_its_hostcall_clean_up() -> None:
    guest = FakeGuest(abi, make_sandbox().box)
    guest.box.extras["k"] = asyncio.get_running_loop().create_future()
    assert guest.start("wait", *guest.put(b"k"), 64) is None
    guest.cancel()
    assert guest.box.extras["cleaned up"] is True


@in_loop
async def test_a_pause_gives_the_thread_back_each_time() -> None:
    guest = FakeGuest(abi, make_sandbox().box)
    assert guest.start("pause") is None
    assert guest.box.extras["steps"] == 1
    assert await guest.finish() == Status.OK
    assert guest.box.extras["steps"] == 3


@pytest.mark.parametrize("name", ["perhaps", "env.old_perhaps"])
def test_a_plain_function_may_answer_at_once_or_later(name: str) -> None:
    async def run() -> None:
        guest = FakeGuest([abi, env], make_sandbox().box)
        out = guest.room(4)
        assert guest.start(name, 1, out) == Status.OK
        assert guest.u32_at(out) == 11
        assert guest.start(name, 0, out) is None
        assert await guest.finish() == Status.OK
        assert guest.u32_at(out) == 22

    asyncio.run(run())


def test_arguments_are_checked_before_a_coroutine_is_made(guest: FakeGuest) -> None:
    assert guest.start("wait", guest.size, 1, 64) == Status.INVAL
    assert guest.start("wait", *guest.put(b"k"), guest.size - 3) == Status.INVAL

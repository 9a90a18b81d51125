"""Requests off the public port: what is sent, and what is made of any answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.admin.control import InvokeAnswer, InvokeRequest
from edge.catalogue import versions
from edge.errors import ApiRefused
from edge.http.upstream_head import BadResponse
from edge.rollout import invoke as under_test
from edge.rollout.invoke import MAX_BODY, Invoker, converse, encode_request
from edge.rollout.lines import LineBook
from edge.supervisor.fleet import Fleet
from edge.supervisor.process import Phase
from edge.supervisor.watching import WatchPorts
from edge.supervisor.world import World
from edge.watch import Invoke
from tests.support.loop import in_loop, turns
from tests.support.rollout import ALICE, FakeFleet, Yard, yard

ID = "0" * 32


class Ports:
    """In place of workers: answers with the name and number that it is asked for."""

    def __init__(self, fleet: FakeFleet) -> None:
        self.fleet = fleet
        self.missing = 0  # how often to say that the version is not here
        self.asked: list[tuple[str, int]] = []
        self.kept: list[socket.socket] = []

    def invoke(self, slot: int, order: Invoke, connection: socket.socket) -> bool:
        self.asked.append((order.service, order.number))
        mark = b""
        served = {(v.service.name, v.number) for v in self.fleet.world.snapshot.versions}
        if self.missing or (order.service, order.number) not in served:
            self.missing -= bool(self.missing)
            mark = b"x-edge-outcome: not_loaded\r\n"
        text = f"{order.service} {order.number}".encode()
        head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (mark, len(text))
        kept = connection.dup()  # as a worker has it
        kept.send(head + text)
        self.kept.append(kept)
        return True


class Bench:
    """An invoker over a real catalogue and fake workers, and its clock."""

    def __init__(self, at: Yard) -> None:
        self.at = at
        self.now = 100.0
        self.under_way = 0
        self.ports = Ports(at.fleet)
        at.fleet.workers = (SimpleNamespace(phase=Phase.READY, slot=0),)
        self.invoker = Invoker(
            at.catalogue,
            cast("Fleet", at.fleet),
            at.publisher,
            at.errands,
            cast("WatchPorts", self.ports),
            at.cells,
            LineBook(lambda follow: None),
            lambda: self.now,
        )

    async def invoke(self, service_id: str, number: int) -> str:
        self.under_way += 1
        try:
            answer = await self.invoker.invoke(ALICE, service_id, number, request())
            return answer.body.decode()
        finally:
            self.under_way -= 1
            while self.ports.kept and not self.under_way:
                self.ports.kept.pop().close()


@pytest.fixture(autouse=True)
def no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sends any here."""
    monkeypatch.setattr(under_test, "RECORD_SECONDS", 0.0)


@in_loop
async def test_a_version_that_is_not_loaded_is_loaded_for_it_and_unloaded_when_it_is_idle(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one", "two", "three")
        await at.changes.activate(ALICE, shop, 1)
        await at.changes.stage(ALICE, shop, 2)
        assert await bench.invoke(shop, 1) == "shop 1"
        assert at.served() == ["shop@1 active", "shop@2 staged"]
        assert await bench.invoke(shop, 3) == "shop 3"
        assert at.served() == ["shop@1 active", "shop@2 staged", "shop@3 staged"]
        assert at.record(shop).staged == 2
        bench.now += 50
        assert await bench.invoke(shop, 3) == "shop 3"
        bench.now += 50
        await bench.invoker.sweep()
        assert len(at.served()) == 3  # used 50 seconds ago
        bench.now += 11
        await bench.invoker.sweep()
        assert at.served() == ["shop@1 active", "shop@2 staged"]


@in_loop
async def test_invocations_at_once_while_versions_are_activated_get_their_own_and_leave_nothing(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop, blog = at.service("shop", *"abcdef"), at.service("blog", *"abc")
        await at.changes.activate(ALICE, shop, 1)

        async def deploy() -> None:
            for number in (2, 1, 2, 1):
                await at.changes.activate(ALICE, shop, number)

        wanted = [(shop, 3), (shop, 3), (shop, 4), (blog, 1), (blog, 2), (shop, 5), (blog, 1)] * 3
        deploying = asyncio.create_task(deploy())
        found = await asyncio.gather(*(bench.invoke(*one) for one in wanted))
        await deploying
        names = {shop: "shop", blog: "blog"}
        assert found == [f"{names[service]} {number}" for service, number in wanted]
        assert await bench.invoke(shop, 3) == "shop 3"
        bench.now += 100
        await bench.invoker.sweep()
        assert at.served() == ["shop@1 active"]


@in_loop
async def test_a_version_that_is_refused_hinders_no_invocation_of_another(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one", "two")
        assert await bench.invoke(shop, 1) == "shop 1"
        at.fleet.world = at.fleet.world.with_refused({f"{shop}@1": "lost", "shop@1": "lost"})
        with pytest.raises(ApiRefused, match="lost"):
            await bench.invoke(shop, 1)
        assert await bench.invoke(shop, 2) == "shop 2"


@in_loop
async def test_what_was_refused_while_an_invocation_waited_to_publish_stays_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one", "two")
        await at.changes.activate(ALICE, shop, 1)
        publish = at.fleet.publish

        async def later(make: Callable[[World], World], **options: Any) -> World:
            at.fleet.world = at.fleet.world.with_refused({"shop": "lost"})
            return await publish(make, **options)

        monkeypatch.setattr(at.fleet, "publish", later)
        assert await bench.invoke(shop, 2) == "shop 2"
        refused = {v.number: v.refused for v in at.fleet.world.snapshot.versions}
        assert refused == {1: "lost", 2: ""}
        bench.now += 100
        await bench.invoker.sweep()
        assert at.served() == ["shop@1 active"]
        assert [v.refused for v in at.fleet.world.snapshot.versions] == ["lost"]


@in_loop
async def test_a_version_that_is_asked_for_while_it_is_unloaded_stays(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one")
        await bench.invoke(shop, 1)
        bench.now += 100
        async with at.errands.turn(shop):
            sweeping = asyncio.create_task(bench.invoker.sweep())
            await turns()
            assert await bench.invoke(shop, 1) == "shop 1"
        await sweeping
        assert at.served() == ["shop@1 staged"]


@in_loop
async def test_a_version_that_was_staged_in_earnest_meanwhile_stays(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one")
        await bench.invoke(shop, 1)
        await at.changes.stage(ALICE, shop, 1)
        bench.now += 100
        await bench.invoker.sweep()
        assert at.served() == ["shop@1 staged"]


@in_loop
async def test_a_change_of_the_service_unloads_it_and_the_next_invocation_loads_it_again(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one", "two")
        assert await bench.invoke(shop, 2) == "shop 2"
        await at.changes.activate(ALICE, shop, 1)
        assert at.served() == ["shop@1 active"]
        assert await bench.invoke(shop, 2) == "shop 2"
        bench.ports.missing = 1  # a worker that has just been told to unload it
        assert await bench.invoke(shop, 2) == "shop 2"
        assert len(bench.ports.asked) == 4
        bench.ports.missing = 99
        with pytest.raises(ApiRefused, match="no worker has this version"):
            await bench.invoke(shop, 2)


@in_loop
async def test_only_so_many_versions_are_loaded_for_invocations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "MAX_LOADED", 1)
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one", "two", "bad one")
        with pytest.raises(ApiRefused, match="bad one"):
            await bench.invoke(shop, 3)  # and takes no place
        await bench.invoke(shop, 1)
        with pytest.raises(ApiRefused, match="loaded for invocations"):
            await bench.invoke(shop, 2)


def request(
    method: str = "GET",
    target: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
) -> InvokeRequest:
    return InvokeRequest(method, target, headers, body)


def answered(answer: bytes, *, to_head: bool = False) -> InvokeAnswer:
    """What is made of an answer after which the worker closes."""

    async def run() -> InvokeAnswer:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        async def worker() -> None:
            with theirs:
                await asyncio.get_running_loop().sock_recv(theirs, 65536)
                try:
                    await asyncio.get_running_loop().sock_sendall(theirs, answer)
                except ConnectionError:
                    return  # enough was read

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(worker())
            return await converse(ours, encode_request(request(), ID), to_head=to_head)

    return asyncio.run(run())


def test_a_request_has_our_framing_and_our_id_whatever_its_author_gave() -> None:
    given = [
        *(("Host", "a.test"), ("Content-Length", "3"), ("Transfer-Encoding", "chunked")),
        *(("X-Request-Id", "mine"), ("Connection", "keep-alive"), ("Accept", "*/*")),
    ]
    assert encode_request(request("POST", "/p?q", given, b"body"), ID) == (
        b"POST /p?q HTTP/1.1\r\nhost: a.test\r\naccept: */*\r\nx-request-id: " + ID.encode() +
        b"\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
    )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        request("G T"),
        request(target="http://a/"),
        request(target="/a b"),
        request(target="/\r\nx: y"),
        request(headers=[("a b", "c")]),
        request(headers=[("a", "b\r\nc: d")]),
        request(headers=[("host", "a\nb")]),
    ],
)
def test_what_http_does_not_allow_is_refused(bad: InvokeRequest) -> None:
    with pytest.raises(ApiRefused):
        encode_request(bad, ID)


def test_answers_of_every_framing_are_read() -> None:
    for head, body in (
        (b"content-length: 2\r\n", b"ok"),
        (b"transfer-encoding: chunked\r\n", b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
        (b"", b"ok"),
    ):
        answer = answered(b"HTTP/1.1 200 OK\r\na: b\r\n" + head + b"\r\n" + body)
        assert (answer.status, answer.body, answer.truncated) == (200, b"ok", False)
        assert ("a", "b") in answer.headers
        assert answer.outcome == "ok"


def test_interim_answers_are_passed_over_and_head_has_no_body() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    answer = answered(hints + final, to_head=True)
    assert (answer.status, answer.body, answer.truncated) == (200, b"", False)


def test_an_answer_that_breaks_off_or_is_too_large_says_so() -> None:
    short = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")
    assert (short.body, short.truncated, short.outcome) == (b"ok", True, "incomplete")
    bad = answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz")
    assert (bad.truncated, bad.outcome) == (True, "incomplete")
    size = MAX_BODY + 1
    large = answered(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    assert (len(large.body), large.truncated) == (MAX_BODY, True)


def test_many_small_chunks_are_read_to_their_end() -> None:
    chunks = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    answer = answered(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
    assert (answer.body, answer.truncated) == (b"x" * 5000, False)


def test_the_page_of_an_outcome_is_known_by_its_mark() -> None:
    answer = answered(b"HTTP/1.1 500 E\r\nx-edge-outcome: trap\r\ncontent-length: 0\r\n\r\n")
    assert (answer.status, answer.outcome) == (500, "trap")


def test_no_answer_and_one_that_is_not_http_are_errors() -> None:
    with pytest.raises(ExceptionGroup) as nothing:
        answered(b"")
    assert nothing.group_contains(EOFError)
    with pytest.raises(ExceptionGroup) as nonsense:
        answered(b"nonsense\r\n\r\n")
    assert nonsense.group_contains(BadResponse)


@in_loop
async def test_a_draft_that_changes_is_invoked_as_it_is_then(tmp_path: Path) -> None:
    async with yard(tmp_path) as at:
        bench = Bench(at)
        shop = at.service("shop", "one")

        def timed() -> list[bool]:
            return [v.service.server_timing for v in at.fleet.world.versions_of(shop)]

        await bench.invoke(shop, 1)
        events = list(at.fleet.events)
        await bench.invoke(shop, 1)
        assert (timed(), at.fleet.events) == ([False], events)
        at.catalogue.write_now(
            ALICE, lambda tx: versions.set_settings(tx, shop, 1, {"server_timing": True})
        )
        await bench.invoke(shop, 1)
        assert timed() == [True]

"""Health checks: their window, their rhythm, and what stops them.  Time is stepped by hand."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from edge.http.body import Account, Body, Ledger
from edge.model.backend import Backend, HealthCheck, MockHealth
from edge.upstream.client import Client
from edge.upstream.fetch import (
    Cause,
    Health,
    Pending,
    UpstreamFailed,
    UpstreamRequest,
    UpstreamResponse,
)
from edge.upstream.health import HealthMonitor, Window
from tests.support.backends import backend, dialer, on_uvloop, peer
from tests.support.serving import until

CHECK = HealthCheck(path="/healthz", interval=10.0, timeout=2.0)


class Timer:
    """One call to come."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class SteppedLoop:
    """`call_later` whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay, self._count, timer))
        return timer

    @property
    def waiting(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
        self.now = end


class FakePending:
    """A request that a test answers."""

    def __init__(self, request: UpstreamRequest) -> None:
        self.request = request
        self.outcome: UpstreamResponse | UpstreamFailed | None = None
        self.abandoned = False
        self._callback: Callable[[], None] | None = None

    @property
    def is_ready(self) -> bool:
        return self.outcome is not None

    def watch(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def unwatch(self, callback: Callable[[], None]) -> None:
        self._callback = None

    def result(self) -> UpstreamResponse:
        assert self.outcome is not None
        if isinstance(self.outcome, UpstreamFailed):
            raise self.outcome
        return self.outcome

    def abandon(self) -> None:
        self.abandoned = True

    def end(self, outcome: int | UpstreamFailed) -> None:
        """A status or a failure."""
        if isinstance(outcome, int):
            self.outcome = UpstreamResponse(outcome, [], Body())
        else:
            self.outcome = outcome
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class FakeUpstream:
    """Remembers what was sent; `at_once` answers before `send` returns."""

    def __init__(self) -> None:
        self.sent: list[FakePending] = []
        self.at_once: int | UpstreamFailed | None = None

    def send(self, request: UpstreamRequest) -> FakePending:
        pending = FakePending(request)
        self.sent.append(pending)
        if self.at_once is not None:
            pending.end(self.at_once)
        return pending

    def leave(self, pending: Pending) -> None:
        raise AssertionError("a check waits for its answer")

    def health(self, backend: Backend) -> Health:
        return Health.UNKNOWN


REFUSED = UpstreamFailed(Cause.CONNECTION_REFUSED, "nobody listens")


def checked(check: HealthCheck = CHECK, url: str = "http://127.0.0.1:80") -> Backend:
    return backend(url, health_check=check)


class Scene:
    """A monitor with everything around it under the test's control."""

    def __init__(self) -> None:
        self.loop = SteppedLoop()
        self.upstream = FakeUpstream()
        self.monitor = HealthMonitor(lambda service: self.upstream, self.loop, share=lambda: 0.5)

    def health(self, of: Backend) -> Health:
        return self.monitor.health("shop", of)

    def check(self, outcome: int | UpstreamFailed) -> None:
        """Let one check happen, and end like this."""
        self.loop.advance(CHECK.interval)
        self.upstream.sent[-1].end(outcome)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def results(check: HealthCheck, outcomes: str) -> str:
    """The health after each of `outcomes`: H or U, the first letter before any."""
    window = Window(check)
    found = [window.health]
    for outcome in outcomes:
        window.add(outcome == "+")
        found.append(window.health)
    return "".join("H" if each is Health.HEALTHY else "U" for each in found)


@pytest.mark.parametrize(
    ("settings", "outcomes", "healths"),
    [
        ({"window": 5, "threshold": 3, "initial": 3}, "---+++-", "HHHUUUHH"),
        ({"window": 5, "threshold": 3, "initial": 0}, "+++", "UUUH"),
        ({"window": 5, "threshold": 3, "initial": 2}, "+", "UH"),
        ({"window": 1, "threshold": 1, "initial": 1}, "-+-+", "HUHUH"),
        ({"window": 2, "threshold": 2, "initial": 64}, "-++", "HUUH"),
        ({"window": 2, "threshold": 5, "initial": 2}, "-++", "HUUH"),
    ],
)
def test_so_many_of_the_last_checks_must_be_good(
    settings: dict[str, Any], outcomes: str, healths: str
) -> None:
    assert results(HealthCheck(**settings), outcomes) == healths


def test_a_check_asks_as_it_was_told(scene: Scene) -> None:
    check = replace(CHECK, method="GET", host="health.example")
    scene.monitor.watch({"shop": [checked(check)]})
    scene.loop.advance(4.9)
    assert not scene.upstream.sent
    scene.loop.advance(0.2)
    request = scene.upstream.sent[0].request
    assert (request.method, request.uri) == (b"GET", b"/healthz")
    assert request.backend.override_host == "health.example"


def test_the_host_is_that_of_other_requests_unless_the_check_has_one(scene: Scene) -> None:
    made = replace(checked(), override_host="origin.example")
    scene.monitor.watch({"shop": [made]})
    scene.loop.advance(5)
    assert scene.upstream.sent[0].request.backend.override_host == "origin.example"


def test_one_check_is_in_flight_at_a_time_and_the_next_comes_after_the_interval(
    scene: Scene,
) -> None:
    scene.monitor.watch({"shop": [checked()]})
    scene.loop.advance(5)
    scene.loop.advance(1.9)
    assert len(scene.upstream.sent) == 1
    scene.upstream.sent[0].end(200)
    scene.loop.advance(9.9)
    assert len(scene.upstream.sent) == 1
    scene.loop.advance(0.2)
    assert len(scene.upstream.sent) == 2


@pytest.mark.parametrize("outcome", [500, 201, REFUSED])
def test_failures_make_it_unhealthy_and_successes_well_again_each_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, outcome: int | UpstreamFailed
) -> None:
    made = checked()
    caplog.set_level(logging.INFO, "edge.upstream")
    scene.monitor.watch({"shop": [made]})
    assert scene.health(made) is Health.HEALTHY
    for _ in range(6):
        scene.check(outcome)
    assert scene.health(made) is Health.UNHEALTHY
    for _ in range(6):
        scene.check(200)
    assert scene.health(made) is Health.HEALTHY
    assert [record.getMessage() for record in caplog.records] == [
        "backend is unhealthy",
        "backend is healthy",
    ]
    first = caplog.records[0].__dict__
    assert (first["service"], first["backend"]) == ("shop", "origin")
    (found,) = scene.monitor.statistics()
    assert (found.checks, found.failures) == (12, 6)


def test_a_check_without_an_answer_in_time_has_failed_and_is_given_up(scene: Scene) -> None:
    made = checked(replace(CHECK, window=1, threshold=1, initial=1))
    scene.monitor.watch({"shop": [made]})
    scene.loop.advance(5 + 2)
    assert scene.upstream.sent[0].abandoned
    assert scene.health(made) is Health.UNHEALTHY
    scene.upstream.sent[0].end(200)  # too late to matter
    assert scene.health(made) is Health.UNHEALTHY
    scene.check(200)
    assert scene.health(made) is Health.HEALTHY


def test_an_answer_before_send_returns_counts_like_any_other(scene: Scene) -> None:
    made = checked(replace(CHECK, window=1, threshold=1, initial=1))
    scene.upstream.at_once = REFUSED
    scene.monitor.watch({"shop": [made]})
    scene.loop.advance(5)
    assert scene.health(made) is Health.UNHEALTHY
    assert scene.loop.waiting == 1


def test_nothing_is_timed_when_no_backend_has_a_check(scene: Scene) -> None:
    told = replace(checked(), health=MockHealth.HEALTHY)
    scene.monitor.watch({"shop": [backend(), told]})
    assert scene.loop.waiting == 0
    assert scene.health(told) is Health.UNKNOWN


def test_a_new_set_replaces_the_old_and_keeps_what_is_the_same(scene: Scene) -> None:
    stays = replace(checked(), name="stays")
    changes = replace(checked(), name="changes")
    goes = replace(checked(), name="goes")
    scene.monitor.watch({"shop": [stays, changes, goes]})
    scene.loop.advance(5)
    for pending in scene.upstream.sent:
        assert not pending.abandoned
    changed = replace(changes, health_check=replace(CHECK, path="/other"))
    scene.monitor.watch({"shop": [replace(stays), changed], "other": [stays]})
    by_name = {pending.request.backend.name: pending for pending in scene.upstream.sent}
    assert not by_name["stays"].abandoned
    assert by_name["changes"].abandoned
    assert by_name["goes"].abandoned
    assert len(scene.monitor.statistics()) == 3
    assert scene.health(goes) is Health.UNKNOWN
    assert scene.health(changes) is Health.UNKNOWN, "it is another backend by now"
    assert scene.health(changed) is Health.HEALTHY


def test_two_versions_of_a_service_may_tell_different_things_of_one_backend(scene: Scene) -> None:
    active = checked()
    canary = replace(active, health_check=replace(CHECK, path="/canary", initial=1, window=1,
                                                  threshold=1))  # fmt: skip
    scene.monitor.watch({"shop": [active, canary, replace(active)]})
    assert len(scene.monitor.statistics()) == 2
    scene.loop.advance(5)
    (pending,) = [sent for sent in scene.upstream.sent if b"/canary" in sent.request.uri]
    pending.end(500)
    assert scene.health(canary) is Health.UNHEALTHY
    assert scene.health(active) is Health.HEALTHY
    scene.monitor.watch({"shop": [canary]})
    assert scene.health(canary) is Health.UNHEALTHY, "what is known of it is kept"
    assert scene.health(active) is Health.UNKNOWN
    scene.monitor.watch({})
    assert scene.loop.waiting == 0


def test_closing_stops_every_timer_and_gives_up_what_is_in_flight(scene: Scene) -> None:
    scene.monitor.watch({"shop": [checked(), replace(checked(), name="other")]})
    scene.loop.advance(5)
    scene.monitor.close()
    assert scene.loop.waiting == 0
    assert all(pending.abandoned for pending in scene.upstream.sent)
    scene.upstream.sent[0].end(200)
    assert scene.loop.waiting == 0


@on_uvloop
async def test_over_real_sockets_a_backend_falls_ill_recovers_and_is_spared_meanwhile() -> None:
    status = 500
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked.append(head)
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

    async def answer_until_eof(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await answer(reader, writer)

    async with peer(answer_until_eof) as port, dialer() as network:
        client = Client(network)
        loop = asyncio.get_running_loop()
        monitor = HealthMonitor(lambda service: client.for_service(service, checks=True), loop)
        client.health_source = monitor
        check = HealthCheck(
            path="/healthz", interval=0.05, timeout=1, window=1, threshold=1, initial=1
        )
        made = checked(check, f"http://127.0.0.1:{port}")
        monitor.watch({"shop": [made]})
        shop = client.for_service("shop")
        await until(lambda: shop.health(made) is Health.UNHEALTHY)
        assert asked[0].startswith(b"HEAD /healthz HTTP/1.1\r\n")
        request = UpstreamRequest(made, b"GET", b"/", [], Body(), Account(Ledger(), 65536))
        pending = shop.send(request)
        with pytest.raises(UpstreamFailed) as caught:
            pending.result()
        assert caught.value.cause is Cause.DESTINATION_UNAVAILABLE
        assert not any(head.startswith(b"GET") for head in asked)
        status = 200
        await until(lambda: shop.health(made) is Health.HEALTHY)
        assert client.statistics().connections_opened == 1, "checks keep their connection"
        monitor.close()
        await client.aclose()

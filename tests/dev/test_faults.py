"""Backends that are ill on purpose: what is sent, what fails, what abandoned requests do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from edge.http.body import Account, Body, Ledger
from edge.local.faults import Fault, FaultyUpstream
from edge.model.backend import Backend, Origin
from edge.upstream.fetch import (
    Cause,
    Health,
    Pending,
    UpstreamFailed,
    UpstreamRequest,
    UpstreamResponse,
)
from tests.support.loop import in_loop

ORIGIN = Origin(False, "origin.test", 80)


class FakePending:
    """Ready when told to be."""

    def __init__(self) -> None:
        self.is_ready = False
        self.abandoned = False
        self.watchers: list[Callable[[], None]] = []

    def watch(self, callback: Callable[[], None]) -> None:
        self.watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self.watchers.remove(callback)

    def result(self) -> UpstreamResponse:
        return UpstreamResponse(200, [], Body())

    def abandon(self) -> None:
        self.abandoned = True

    def become_ready(self) -> None:
        self.is_ready = True
        for callback in self.watchers:
            callback()


class FakeUpstream:
    """Keeps what it is asked to send."""

    def __init__(self) -> None:
        self.sent: list[UpstreamRequest] = []
        self.pending = FakePending()
        self.asked = asyncio.Event()

    def send(self, request: UpstreamRequest) -> FakePending:
        self.asked.set()
        self.sent.append(request)
        return self.pending

    def leave(self, pending: Pending) -> None:
        self.left = pending

    def health(self, backend: Backend) -> Health:
        return Health.HEALTHY


def request(name: str = "origin", *, dynamic: bool = False) -> UpstreamRequest:
    backend = Backend(name, ORIGIN, dynamic=dynamic)
    return UpstreamRequest(backend, b"GET", b"/", [], Body(live=True), Account(Ledger(), 1 << 20))


def faulty(
    upstream: FakeUpstream, fault: Fault, dice: random.Random | None = None
) -> FaultyUpstream:
    return FaultyUpstream(upstream, {"origin": fault}, dice or random.Random(1))


@in_loop
async def test_a_request_of_a_slow_backend_is_sent_later_and_its_watchers_hear_of_it() -> None:
    upstream, called = FakeUpstream(), asyncio.Event()
    pending = faulty(upstream, Fault(latency=0.02)).send(request())
    pending.watch(called.set)
    assert not pending.is_ready
    assert upstream.sent == []
    await upstream.asked.wait()
    assert not called.is_set()
    upstream.pending.become_ready()
    assert called.is_set()
    assert pending.result().status == 200


@in_loop
async def test_an_injected_failure_has_its_cause_and_names_the_setting() -> None:
    upstream, called = FakeUpstream(), asyncio.Event()
    asked = request()
    fault = Fault(latency=0.01, error_rate=1.0, cause=Cause.DNS_ERROR)
    pending = faulty(upstream, fault).send(asked)
    pending.watch(called.set)
    await called.wait()
    with pytest.raises(UpstreamFailed, match=r"backends\.origin\.inject") as caught:
        pending.result()
    assert caught.value.cause is Cause.DNS_ERROR
    assert upstream.sent == []
    asked.body.write(b"nobody reads it")  # a guest that streams on is not stopped by a full body
    assert asked.body.held == 0


@in_loop
async def test_a_fault_without_latency_is_there_at_once() -> None:
    assert faulty(FakeUpstream(), Fault(error_rate=1.0)).send(request()).is_ready


@in_loop
async def test_so_many_requests_fail_as_the_rate_says() -> None:
    upstream = FakeUpstream()
    sender = faulty(upstream, Fault(error_rate=0.25))
    for _ in range(1000):
        sender.send(request())
    assert 700 < len(upstream.sent) < 800


@in_loop
async def test_other_backends_and_those_that_guests_make_are_as_they_were() -> None:
    upstream = FakeUpstream()
    sender = faulty(upstream, Fault(error_rate=1.0))
    assert sender.send(request("other")) is upstream.pending
    assert sender.send(request(dynamic=True)) is upstream.pending
    assert sender.health(Backend("origin", ORIGIN)) is Health.HEALTHY


@in_loop
async def test_an_abandoned_request_is_never_sent() -> None:
    upstream = FakeUpstream()
    sender = faulty(upstream, Fault(latency=0.01))
    pending, asked = sender.send(request()), asyncio.Event()
    pending.watch(asked.set)
    pending.unwatch(asked.set)
    pending.abandon()
    later = sender.send(request())  # its timer comes after the one that was cancelled
    await upstream.asked.wait()
    assert len(upstream.sent) == 1
    later.abandon()
    assert upstream.pending.abandoned
    assert not asked.is_set()

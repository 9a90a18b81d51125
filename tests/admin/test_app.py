"""The control API's answers, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from edge.admin.app import AdminApp
from edge.admin.calls import Exchange
from edge.admin.metrics import MAX_WAITING
from edge.admin.status import ServiceState, ServiceStatus, Status, WorkerStatus
from edge.http.message import Headers

READY = Status(
    version="1.2.3",
    ready=True,
    draining=False,
    generation=4,
    workers=(WorkerStatus(0, 11, "ready", 4), WorkerStatus(1, 12, "ready", 4)),
    services=(ServiceStatus("shop", 2, "ab", ServiceState.REFUSED, "no such import a.b"),),
)


class FakeRequest:
    """What the open pages use of an exchange."""

    def __init__(
        self,
        path: bytes,
        method: bytes = b"GET",
        accept: bytes | None = None,
        host: bytes = b"127.0.0.1",
    ) -> None:
        self.method = method
        self.path = path
        self.host = host
        self._accept = accept
        self.answer: tuple[int, str, bytes] | None = None
        self.headers: dict[bytes, bytes] = {}

    def request_header(self, name: bytes) -> bytes | None:
        return self._accept if name == b"accept" else None

    def reply(
        self, status: int, content_type: str, body: bytes, headers: Headers | None = None
    ) -> None:
        assert self.answer is None, "answered twice"
        self.answer = (status, content_type, body)
        self.headers = dict(headers or ())


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def ask(
    loop: asyncio.AbstractEventLoop,
    request: FakeRequest,
    *,
    status: Status = READY,
    render: Callable[[str], tuple[bytes, str]] = lambda accept: (b"m " + accept.encode(), "text/x"),
    metrics_only: bool = False,
) -> tuple[int, str, bytes]:
    app = AdminApp(lambda: status, render, loop)
    if metrics_only:
        app.handle_metrics(request)
    else:
        app.handle(cast("Exchange", request))
    app._metrics._thread.shutdown()
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert request.answer is not None
    return request.answer


def test_a_server_whose_loop_turns_is_alive(loop: asyncio.AbstractEventLoop) -> None:
    assert ask(loop, FakeRequest(b"/livez"), status=replace(READY, ready=False))[0] == 200


def test_readiness_follows_the_workers_and_the_drain(loop: asyncio.AbstractEventLoop) -> None:
    assert ask(loop, FakeRequest(b"/readyz"))[0] == 200
    behind = replace(READY, ready=False, generation=5)
    code, _, text = ask(loop, FakeRequest(b"/readyz"), status=behind)
    assert (code, text) == (503, b"waiting for workers: 2 of 2 are not ready\n")
    draining = replace(READY, ready=False, draining=True)
    assert ask(loop, FakeRequest(b"/readyz"), status=draining)[::2] == (503, b"draining\n")


def test_the_status_is_json_with_states_as_words(loop: asyncio.AbstractEventLoop) -> None:
    request = FakeRequest(b"/v1/status")
    code, kind, body = ask(loop, request)
    assert (code, kind) == (200, "application/json")
    found = json.loads(body)
    assert found["services"][0]["state"] == "refused"
    assert found["workers"][1]["pid"] == 12
    assert request.headers[b"cache-control"] == b"no-store"


def test_metrics_are_rendered_in_the_form_that_was_asked_for(
    loop: asyncio.AbstractEventLoop,
) -> None:
    request = FakeRequest(b"/metrics", accept=b"application/openmetrics-text")
    assert ask(loop, request) == (200, "text/x", b"m application/openmetrics-text")


def test_a_fault_in_rendering_is_500_without_its_inside(loop: asyncio.AbstractEventLoop) -> None:
    def broken(_: str) -> tuple[bytes, str]:
        raise RuntimeError("inside")

    code, _, body = ask(loop, FakeRequest(b"/metrics"), render=broken)
    assert code == 500
    assert b"inside" not in body


def test_scrapes_that_pile_up_are_turned_away(loop: asyncio.AbstractEventLoop) -> None:
    app = AdminApp(lambda: READY, lambda _: (b"", "text/x"), loop)
    requests = [FakeRequest(b"/metrics") for _ in range(MAX_WAITING + 1)]
    for request in requests:
        app.handle_metrics(request)
    assert requests[-1].answer is not None
    assert requests[-1].answer[0] == 503
    app.close()


def test_unknown_paths_and_methods_are_refused_in_words(loop: asyncio.AbstractEventLoop) -> None:
    code, _, body = ask(loop, FakeRequest(b"/metric"))
    assert code == 404
    assert b"/metrics" in body
    request = FakeRequest(b"/livez", b"POST")
    assert ask(loop, request)[0] == 405
    assert request.headers[b"allow"] == b"GET, HEAD"


def test_the_address_for_scrapers_knows_nothing_else(loop: asyncio.AbstractEventLoop) -> None:
    assert ask(loop, FakeRequest(b"/metrics"), metrics_only=True)[0] == 200
    assert ask(loop, FakeRequest(b"/readyz"), metrics_only=True)[0] == 200
    assert ask(loop, FakeRequest(b"/v1/status"), metrics_only=True)[0] == 404

"""JavaScript services that make responses: hello, echo, streams, early hints, timers, background.

The traces are those that the public SDK is known to leave: a call more or less means that a service
works by accident, or pays for something that nobody asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edge.testing import Edge, Ending, Request, ServiceUnderTest
from tests.support.guests import build
from tests.support.traces import after, fastly, refusals

pytestmark = pytest.mark.toolchain

HELLO = [
    "http_req.body_downstream_get",
    "http_req.method_get",
    "http_req.uri_get",
    "http_resp.new",
    "http_body.new",
    "http_resp.status_set",
    "http_resp.status_get",
    "http_body.write",
    "http_resp.header_insert",
    "http_resp.send_downstream",
]


@pytest.fixture(scope="module")
def running() -> Iterator[Edge]:
    with Edge() as edge:
        yield edge


@pytest.fixture(scope="module")
def hello(running: Edge) -> ServiceUnderTest:
    return running.service(build("js/hello"))


def test_hello_takes_ten_calls(hello: ServiceUnderTest) -> None:
    response = hello.get("/")
    assert (response.status, response.text) == (200, "hello from wasm\n")
    assert response.header("content-type") == "text/plain"
    assert response.header("x-edge-outcome") is None, "the response is the guest's"
    seen = response.wait()
    assert fastly(seen) == HELLO
    assert refusals(seen) == {}
    assert seen.outcome.ending is Ending.OK
    assert seen.hostcalls == len(seen.calls) > len(HELLO), "the runtime under it asks for the time"
    assert seen.cpu_ns > 0
    assert seen.wall_ns > 0
    assert seen.memory >= 65_536
    assert seen.subrequests == 0
    assert (seen.status, seen.bytes_out) == (200, len(response.body))


def test_each_request_has_a_sandbox_and_an_account_of_its_own(hello: ServiceUnderTest) -> None:
    first, second = (hello.get(f"/{number}").wait() for number in range(2))
    assert first.request_id != second.request_id
    assert (first.target, second.target) == ("/0", "/1")
    assert fastly(first) == fastly(second)
    assert first.memory == second.memory, "nothing of the first is left in the second"


def test_an_echoed_body_never_comes_into_the_guest(running: Edge) -> None:
    response = running.service(build("js/echo")).post("/", b"\0there and back" * 1000)
    assert response.body == b"\0there and back" * 1000
    seen = response.wait()
    assert fastly(seen) == [
        *HELLO[:3],
        "http_req.header_values_get",
        *(call for call in HELLO[3:] if call != "http_body.write"),
    ]
    assert seen.bytes_in == seen.bytes_out == len(response.body)


def test_a_transformed_body_is_streamed_piece_by_piece(running: Edge) -> None:
    service = running.service(build("js/rewrite"))
    response = service.post("/", iter([b"one ", b"two"]))
    assert response.body == b"ONE TWO"
    calls = after(response.wait(), "http_resp.send_downstream")
    assert set(calls) == {"async_io.select", "http_body.read", "http_body.write", "http_body.close"}
    assert calls[:3] == ["async_io.select", "http_body.read", "http_body.write"]
    assert calls[-2:] == ["http_body.read", "http_body.close"], "the end is read, then told"
    assert calls.count("http_body.read") == calls.count("http_body.write") + 1


@pytest.fixture(scope="module")
def hints(running: Edge) -> ServiceUnderTest:
    return running.service(build("js/hints"), backends={"origin": lambda request: request.target})


def test_early_hints_are_on_the_wire_before_the_response(hints: ServiceUnderTest) -> None:
    response = hints.get("/hints")
    assert response.hints == [
        (103, [("link", "</style.css>; rel=preload; as=style")]),
        (103, [("link", "</one.js>; rel=preload"), ("link", "</two.js>; rel=preload")]),
    ]
    assert (response.status, response.text) == (200, "after the hints")
    seen = response.wait()
    assert fastly(seen).count("http_resp.send_downstream") == 3
    assert fastly(seen).count("http_resp.header_append") == 1, "the second link of the second hint"
    assert refusals(seen) == {}


def test_timers_wait_in_the_host_and_not_in_a_loop(hints: ServiceUnderTest) -> None:
    response = hints.get("/timers")
    assert response.json() == {"fired": [10, 20, 30], "ticks": 3}
    seen = response.wait()
    waits = [call for call in seen.calls if call.name.endswith(("poll_oneoff", "select"))]
    assert 3 <= len(waits) <= 30, "about one for each time that something is due"
    assert 0 < seen.cpu_ns < seen.wall_ns
    assert seen.wall_ns >= 30e6, "the last one is due after 30 ms"


def test_work_after_the_response_belongs_to_its_request(running: Edge) -> None:
    answered = threading.Event()
    told: list[bytes] = []

    def origin(request: Request) -> str:
        assert answered.wait(30), "the client has no answer yet"
        told.append(request.body)
        return "thanks"

    service = running.service(build("js/hints"), backends={"origin": origin})
    response = service.get("/later")
    assert response.text == "answered"
    assert service.finished == (), "the guest still waits for its backend"
    answered.set()
    service.wait_for_background(response)
    assert told == [b"late"]
    seen = response.wait()
    assert seen.subrequests == 1
    assert "http_req.send_async" in after(seen, "http_resp.send_downstream")
    assert seen.outcome.ending is Ending.OK

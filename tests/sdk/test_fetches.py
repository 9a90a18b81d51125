"""JavaScript services that ask backends: what is called and counted, and what goes wrong."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from edge.testing import Cause, Edge, Ending, Fault, Reply, Request, ServiceUnderTest
from tests.support.guests import build
from tests.support.traces import after, fastly, refusals

pytestmark = pytest.mark.toolchain


def origin(request: Request) -> Reply:
    """Says what it was asked; `/gzip` packed."""
    fields = {"content-type": "text/plain", "x-from": "origin"}
    if request.target == "/gzip":
        return Reply(200, gzip.compress(b"unpacked"), {**fields, "content-encoding": "gzip"})
    return Reply(203, f"{request.method} {request.target} {request.body.decode()}", fields)


@pytest.fixture(scope="module")
def running() -> Iterator[Edge]:
    with Edge() as edge:
        yield edge


@pytest.fixture(scope="module")
def service(running: Edge) -> ServiceUnderTest:
    return running.service(
        build("js/fetch"), backends={"origin": origin}, limits={"subrequests": 5}
    )


def test_a_passed_request_is_sent_waited_for_and_its_body_handed_on(
    service: ServiceUnderTest,
) -> None:
    response = service.get("/some/where?x=1", headers={"x-mine": "yes"})
    assert (response.status, response.text) == (203, "GET /some/where?x=1 ")
    assert response.header("x-from") == "origin"
    seen = response.wait()
    calls = [call for call in fastly(seen) if ".header_" not in call]
    assert calls == [
        "http_req.body_downstream_get",
        "http_req.method_get",
        "http_req.uri_get",
        "http_req.new",
        "http_body.new",
        "http_req.uri_set",
        "http_req.send_async",
        "async_io.select",
        "http_req.pending_req_wait_v2",
        "http_resp.status_get",
        "http_resp.send_downstream",
    ]
    asked = service.backends["origin"].requests[-1]
    assert asked.header("x-mine") == "yes"
    assert fastly(seen).count("http_req.header_insert") >= len({"host", "x-mine"})
    assert refusals(seen) == {}
    assert seen.subrequests == 1
    assert seen.outcome.ending is Ending.OK


def test_a_request_that_no_cache_may_answer_says_so_before_it_is_sent(
    service: ServiceUnderTest,
) -> None:
    response = service.get("/uncached")
    assert response.text == "GET /a "
    calls = fastly(response.wait())
    override = calls.index("http_req.cache_override_v2_set")
    assert calls.index("http_req.new") < override < calls.index("http_req.send_async")


def test_three_fetches_are_sent_before_any_is_waited_for(service: ServiceUnderTest) -> None:
    response = service.get("/three")
    assert response.text == "GET /a +GET /b +GET /c "
    seen = response.wait()
    assert seen.subrequests == 3
    calls = fastly(seen)
    sent = [place for place, call in enumerate(calls) if call == "http_req.send_async"]
    assert len(sent) == 3
    assert sent[-1] < calls.index("async_io.select") < calls.index("http_req.pending_req_wait_v2")
    assert calls.count("http_req.pending_req_wait_v2") == 3


def test_an_upload_is_under_way_before_its_body_is_read(service: ServiceUnderTest) -> None:
    response = service.post("/upload", iter([b"one ", b"two"]))
    assert response.text == "POST /echo ONE TWO"
    calls = after(response.wait(), "http_req.send_async_streaming")
    body = calls[: calls.index("http_body.close") + 1]
    assert body[:3] == ["async_io.select", "http_body.read", "http_body.write"]
    assert "http_req.pending_req_wait_v2" not in body


def test_an_answer_that_is_rewritten_streams_through_the_guest(service: ServiceUnderTest) -> None:
    response = service.get("/shout")
    assert (response.status, response.text) == (203, "GET /LINES ")
    calls = after(response.wait(), "http_resp.send_downstream")
    assert calls[:3] == ["async_io.select", "http_body.read", "http_body.write"]
    assert calls[-1] == "http_body.close"


def test_the_host_unpacks_where_the_guest_asks_for_it(service: ServiceUnderTest) -> None:
    response = service.get("/gzip")
    assert (response.text, response.header("content-encoding")) == ("unpacked", None)
    calls = fastly(response.wait())
    assert calls.index("http_req.auto_decompress_response_set") < calls.index("http_req.send_async")


def test_the_limit_of_subrequests_is_told_counted_and_survived(service: ServiceUnderTest) -> None:
    response = service.get("/many?n=6")
    assert response.json()["done"] == 5
    seen = response.wait()
    assert seen.subrequests == 5
    assert refusals(seen) == {"http_req.send_async": 13}  # LIMITEXCEEDED
    assert seen.outcome.ending is Ending.OK, "the guest dealt with it"


# Backends that are ill -------------------------------------------------------------------------


def test_a_backend_that_raises_answers_500_and_fails_the_test_that_started_it() -> None:
    def broken(request: Request) -> str:
        raise ValueError(f"no idea what {request.target} is")

    edge = Edge()
    response = edge.service(build("js/fetch"), backends={"origin": broken}).get("/a")
    assert response.status == 500, "to the guest it is an answer as any other"
    assert response.wait().outcome.ending is Ending.OK
    with pytest.raises(ValueError, match="no idea what /a is"):
        edge.close()


def test_a_backend_that_refuses_is_an_error_of_fetch(running: Edge) -> None:
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        response = running.service(build("js/fetch"), backends={"origin": url}).get("/a")
    assert response.status == 502
    assert re.search("(?i)refused", response.text), response.text
    seen = response.wait()
    assert refusals(seen) == {"http_req.pending_req_wait_v2": 1}  # ERROR
    assert (seen.outcome.ending, seen.status) == (Ending.OK, 502)
    assert response.header("x-edge-outcome") is None, "the page is the guest's own"


def test_a_backend_that_says_nothing_is_a_timeout(running: Edge) -> None:
    over = threading.Event()

    def silent(request: Request) -> str:
        over.wait(30)
        return "too late"

    service = running.service(
        build("js/fetch"),
        backends={"origin": silent},
        backend_options={"origin": {"first_byte_timeout": 0.1}},
    )
    try:
        response = service.get("/a")
    finally:
        over.set()
    assert response.status == 502
    assert re.search("(?i)timeout|timed out", response.text), response.text
    seen = response.wait()
    assert refusals(seen) == {"http_req.pending_req_wait_v2": 1}
    assert seen.wall_ns >= 0.1e9


def test_a_backend_that_falls_silent_cuts_the_response_it_began(running: Edge) -> None:
    over = threading.Event()

    def stalls(request: Request) -> Reply:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            over.wait(30)

        return Reply(200, pieces())

    service = running.service(
        build("js/fetch"),
        backends={"origin": stalls},
        backend_options={"origin": {"between_bytes_timeout": 0.1}},
    )
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.request("GET", "/a")
        response = connection.getresponse()
        assert (response.status, response.read1(100)) == (200, b"first")
        with pytest.raises((OSError, http.client.HTTPException)):
            response.read()
    finally:
        over.set()
        connection.close()
    service.wait_for_background()
    (seen,) = service.finished
    assert (seen.status, seen.bytes_out) == (200, len(b"first"))


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.DNS_ERROR, "dns"),
        (Cause.CONNECTION_TIMEOUT, "timeout|timed out"),
        (Cause.TLS_CERTIFICATE_ERROR, "tls|certificate"),
        (Cause.HTTP_INCOMPLETE_RESPONSE, "incomplete"),
    ],
)
def test_each_cause_reaches_javascript_in_words(
    service: ServiceUnderTest, cause: Cause, words: str
) -> None:
    service.inject(origin=Fault(error_rate=1.0, cause=cause))
    try:
        response = service.get("/a")
    finally:
        service.inject()
    assert response.status == 502
    assert re.search(f"(?i){words}", response.text), response.text
    assert service.get("/a").status == 203, "it is well again"


# Backends that the guest makes -------------------------------------------------------------------


def test_a_backend_that_the_guest_makes_is_asked(running: Edge) -> None:
    backend = running.backend(origin)
    service = running.service(build("js/dynamic"), backends={"origin": backend})
    address = backend.url.removeprefix("http://")
    response = service.get(f"/new?to={quote(address)}")
    assert response.text == "GET /a "
    calls = fastly(response.wait())
    assert calls.index("http_req.register_dynamic_backend") < calls.index("http_req.send_async")
    assert backend.requests[-1].header("host") == "made.test"
    facts = service.get(f"/facts?to={quote(address)}").json()
    assert (facts["dynamic"], facts["exists"]) == (True, [True, True, False])
    bare = service.get(f"/url?to={quote(backend.url + '/bare')}")
    assert bare.text == "GET /bare "


def test_one_name_for_two_backends_is_refused(running: Edge) -> None:
    service = running.service(build("js/dynamic"), backends={"origin": origin})
    response = service.get("/twice?to=one.test")
    assert response.status == 502
    assert refusals(response.wait())["http_req.register_dynamic_backend"] == 1  # ERROR

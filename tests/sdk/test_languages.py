"""Services in C, AssemblyScript and Rust, and a Hono application: the same platform for each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge.testing import Edge, Ending, Reply, Request
from tests.support.guests import build
from tests.support.traces import fastly, refusals

pytestmark = pytest.mark.toolchain


def origin(request: Request) -> Reply:
    """Tells what it was asked."""
    text = f"{request.method} {request.target} {request.header('x-mine')} "
    return Reply(203, text.encode() + request.body, {"x-from": "origin"})


@pytest.fixture(scope="module")
def running() -> Iterator[Edge]:
    with Edge() as edge:
        yield edge


STORES: dict[str, Any] = {
    "kv_stores": {"cart": {"item": ("the item", "about it")}},
    "config_stores": {"flags": {"banner": "blue"}},
    "secret_stores": {"keys": {"api": "s3cret"}},
}


@pytest.mark.parametrize("guest", ["c/pass", "as/pass", "rust/platform", "js/fetch", "js/hono"])
def test_a_proxy_in_any_language_is_one_subrequest(running: Edge, guest: str) -> None:
    service = running.service(build(guest), backends={"origin": origin}, **STORES)
    response = service.post("/origin/x?y=%2f", b"a body", headers={"x-mine": "1"})
    assert response.status == 203
    assert response.text == "POST /origin/x?y=%2f 1 a body"
    assert response.header("x-from") == "origin"
    seen = response.wait()
    assert (seen.outcome.ending, seen.subrequests) == (Ending.OK, 1)
    assert seen.bytes_in == len(b"a body")
    assert seen.hostcalls == len(seen.calls)


def test_a_proxy_in_c_takes_three_calls(running: Edge) -> None:
    service = running.service(build("c/pass"), backends={"origin": origin})
    seen = service.get("/").wait()
    assert [call.name for call in seen.calls] == [
        "fastly_http_req.body_downstream_get",
        "fastly_http_req.send",
        "fastly_http_resp.send_downstream",
    ]


def test_a_failure_that_c_does_not_handle_is_the_hosts_500(running: Edge) -> None:
    def gone(request: Request) -> Reply:
        return Reply(200, b"short", {"content-length": "x"})

    service = running.service(build("c/pass"), backends={"origin": gone})
    response = service.get("/")
    assert response.status == 500
    seen = response.wait()
    assert seen.outcome.ending is Ending.GUEST_ERROR
    assert "2" in seen.outcome.value + seen.outcome.detail, "what the program exited with"
    assert response.header("x-edge-outcome") == "guest_error"
    assert refusals(seen) == {"http_req.send": 7}  # HTTPINVALID


def test_c_joins_three_answers_that_were_waited_for_together(running: Edge) -> None:
    together = threading.Barrier(3, timeout=30)

    def meet(request: Request) -> str:
        together.wait()  # nobody is answered before all three have come
        return request.target

    response = running.service(build("c/fanout"), backends={"origin": meet}).get("/")
    assert sorted(response.text.replace("/", " /").split()) == ["/a", "/b", "/c"]
    seen = response.wait()
    assert fastly(seen) == [
        *["http_req.new", "http_req.uri_set", "http_body.new", "http_req.send_async"] * 3,
        "http_body.new",
        *["http_req.pending_req_select", "http_body.append"] * 3,
        "http_resp.new",
        "http_resp.send_downstream",
    ]
    assert seen.subrequests == 3


def test_c_hands_a_value_to_the_client_without_reading_it(running: Edge) -> None:
    service = running.service(build("c/kvget"), **STORES)
    response = service.get("/")
    assert (response.text, response.header("x-metadata")) == ("the item", "about it")
    assert fastly(response.wait()) == [
        "kv_store.open",
        "kv_store.lookup",
        "kv_store.lookup_wait_v2",
        "http_resp.new",
        "http_resp.header_insert",
        "http_resp.send_downstream",
    ]
    empty = running.service(build("c/kvget"), kv_stores={"cart": {}}).get("/")
    assert empty.status == 404
    assert "http_resp.status_set" in fastly(empty.wait())


def test_a_store_that_is_not_there_is_the_exit_code_of_c(running: Edge) -> None:
    response = running.service(build("c/kvget")).get("/")
    assert response.status == 500
    seen = response.wait()
    assert seen.outcome.ending is Ending.GUEST_ERROR
    assert refusals(seen) == {"kv_store.open": 2}  # INVAL


def test_assemblyscript_says_hello_fans_out_and_reads_a_dictionary(running: Edge) -> None:
    hello = running.service(build("as/hello")).get("/p?q")
    assert hello.text == "assemblyscript: GET http://edge.test/p?q\n"
    assert fastly(hello.wait())[-1] == "http_resp.send_downstream"
    service = running.service(
        build("as/pass"), backends={"origin": lambda request: request.target}, **STORES
    )
    three = service.get("/three")
    assert sorted(three.text[7:].replace("/", " /").split()) == ["/a", "/b", "/c"]
    calls = fastly(three.wait())
    assert calls.count("http_req.send_async") == calls.count("http_body.append") == 3
    assert "http_body.read" not in calls[calls.index("http_req.send_async") :]
    banner = service.get("/banner")
    assert banner.text == "blue"
    assert [call for call in fastly(banner.wait()) if "dictionary" in call] == [
        "dictionary.open",
        "dictionary.get",
    ]


def test_rust_reads_every_store_and_streams(running: Edge) -> None:
    backends = {"origin": lambda request: Reply(200, [b"alpha\n", b"beta\n"])}
    service = running.service(build("rust/platform"), backends=backends, **STORES)
    found = service.get("/kv/item")
    assert (found.text, found.header("x-metadata")) == ("the item", "about it")
    calls = [call for call in fastly(found.wait()) if call.startswith("kv_store.")]
    assert calls == ["kv_store.open", "kv_store.lookup", "kv_store.lookup_wait_v2"]
    assert service.request("PUT", "/kv/new", body=b"made").status == 201
    assert service.kv("cart", "new") == b"made"
    assert service.get("/config?banner").text == "blue"
    assert service.get("/secret?api").text == "s3cret"
    lines = service.get("/stream")
    assert lines.text == "0 alpha\n1 beta\n"
    calls = fastly(lines.wait())
    begun = calls.index("http_resp.send_downstream")
    assert calls.index("http_body.write", begun) > begun, "its head is out before its first line"


def test_an_upload_of_rust_streams_between_its_own_words(running: Edge) -> None:
    service = running.service(
        build("rust/platform"), backends={"origin": lambda request: request.body}, **STORES
    )
    response = service.post("/upload", iter([b"one", b"two" * 1000]))
    assert response.body == b"<one" + b"two" * 1000 + b">"
    calls = fastly(response.wait())
    assert calls.index("http_req.send_async_streaming") < calls.index("http_body.write")


def test_a_hono_application_routes_parses_and_survives_its_errors(running: Edge) -> None:
    service = running.service(build("js/hono"), backends={"origin": origin})
    hello = service.get("/")
    assert (hello.text, hello.header("x-served-by")) == ("hello from hono\n", "hono")
    user = service.get("/users/7%20a?tag=x&tag=y")
    assert user.json() == {"id": "7 a", "tags": ["x", "y"]}
    assert service.post("/sum", '{"numbers": [1, 2, 3]}').json() == {"sum": 6}
    assert service.get("/nowhere").status == 404
    broken = service.get("/broken")
    assert (broken.status, broken.text) == (500, "broken on purpose\n")
    service.wait_for_background()
    assert {seen.outcome.ending for seen in service.finished} == {Ending.OK}
    assert all(seen.subrequests == 0 and seen.cpu_ns > 0 for seen in service.finished)

"""Services in Rust, Go, C and AssemblyScript and what they reach: backends, stores, streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.support.origins import (
    Exchange,
    Origin,
    echo,
    free_port,
    held,
    in_two,
    mirror,
    origin,
    says,
)
from tests.support.sdk import Service, Town, received, town

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

STORES = (
    "kv_stores: [cart]",
    "config_stores: {flags: {banner: blue, long: " + "y" * 500 + "}}",
    "secret_stores: {keys: {api: s3cret}}",
)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Origin]:
    with origin() as running:
        yield running


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, upstream: Origin) -> Iterator[Town]:
    backends = (
        "backends:",
        f'  origin: {{url: "{upstream.url}"}}',
        f'  refusing: {{url: "http://127.0.0.1:{free_port()}"}}',
    )
    services = [
        Service("rust", "rust/platform", (*STORES, *backends)),
        Service("go", "go/platform", (*STORES, *backends)),
        Service("assembly", "as/pass", (*STORES, *backends)),
        Service("pass", "c/pass", backends),
        Service("fanout", "c/fanout", backends),
        # What `seed` puts into the shared store, `kvget` reads: it can only read.
        Service("kvget", "c/kvget", ("kv_stores: {cart: shared}",)),
        Service("seed", "go/platform", ("kv_stores: {cart: shared}",)),
    ]
    with town(tmp_path_factory.mktemp("languages"), services) as running:
        yield running


@pytest.mark.parametrize("service", ["rust", "go", "assembly", "pass"])
def test_a_proxy_in_any_language_hands_on_method_target_fields_and_body(
    city: Town, upstream: Origin, service: str
) -> None:
    upstream.on("/any/where", mirror)
    path = "/any/where?x=%2f"
    answer = city.ask(service, path, method="POST", body=b"to the backend", x_mine="1")
    told = answer.json()
    assert answer.status == 200
    assert (told["method"], told["target"], told["body"]) == ("POST", path, "to the backend")
    assert dict(told["fields"])["x-mine"] == "1"


@pytest.mark.parametrize("service", ["rust", "go", "pass"])
def test_a_proxy_in_any_language_streams(city: Town, upstream: Origin, service: str) -> None:
    gate = upstream.gate()
    upstream.on("/parts", in_two(b"first\n", gate, b"second\n"))
    connection = city.connect()
    try:
        connection.request("GET", "/parts", headers={"host": f"{service}.test"})
        response = connection.getresponse()
        assert response.read1(100) == b"first\n"
        gate.set()
        assert received(response).body == b"second\n"
    finally:
        connection.close()


@pytest.mark.parametrize("service", ["rust", "go", "pass", "assembly"])
def test_status_and_fields_of_the_backend_are_kept(
    city: Town, upstream: Origin, service: str
) -> None:
    upstream.on("/gone", says(b"gone", 410, x_why="eaten"))
    answer = city.ask(service, "/gone")
    assert (answer.status, answer.text, answer.header("x-why")) == (410, "gone", "eaten")


def test_a_backend_that_refuses_is_told_apart_in_rust(city: Town) -> None:
    answer = city.ask("rust", "/x", x_backend="refusing")
    assert answer.status == 502
    assert answer.text.startswith("refusing: ")
    assert "refused" in answer.text.lower()


def test_a_backend_that_refuses_is_told_apart_in_go(city: Town) -> None:
    answer = city.ask("go", "/x?backend=refusing")
    assert (answer.status, answer.text) == (502, "status 1, detail 7\n"), "connection_refused"


def test_an_answer_in_c_is_all_or_nothing(city: Town, upstream: Origin) -> None:
    """Three hostcalls, no error handling: what fails is the host's 500, not a hang."""
    upstream.on("/cut", lambda exchange: exchange.cut())
    assert city.ask("pass", "/cut").status == 500
    assert city.ask("pass", "/whole").status == 200


def test_rust_selects_the_request_that_is_done_first(city: Town, upstream: Origin) -> None:
    """`slow` is answered only when the guest has told that it has `fast`."""
    told = upstream.gate()

    def came(exchange: Exchange) -> None:
        exchange.reply(b"".join(exchange.read()))
        told.set()

    upstream.on("/slow", held(told, b"slow"))
    upstream.on("/fast", says(b"fast"))
    upstream.on("/came", came)
    assert city.ask("rust", "/select").text == "fast slow"
    assert [seen.body for seen in upstream.wait_for("/came", 2)] == [b"fast", b"slow"]


def test_rust_streams_an_upload_between_its_own_words(city: Town, upstream: Origin) -> None:
    upstream.on("/echo", echo)
    answer = city.ask("rust", "/upload", method="POST", body=iter([b"one", b"two" * 1000]))
    assert answer.body == b"<one" + b"two" * 1000 + b">"


def test_rust_streams_to_the_client_while_it_reads(city: Town, upstream: Origin) -> None:
    gate = upstream.gate()
    upstream.on("/lines", in_two(b"alpha\n", gate, b"beta\ngamma\n"))
    connection = city.connect()
    try:
        connection.request("GET", "/stream", headers={"host": "rust.test"})
        response = connection.getresponse()
        assert response.getheader("x-streamed") == "1"
        assert response.read1(100) == b"0 alpha\n"
        gate.set()
        assert received(response).body == b"1 beta\n2 gamma\n"
    finally:
        connection.close()


def test_rust_says_to_a_cache_that_is_not_there_what_it_likes(city: Town, upstream: Origin) -> None:
    upstream.on("/cached", says(b"fresh"))
    assert [city.ask("rust", "/cached").text for _ in range(2)] == ["fresh", "fresh"]
    assert city.ask("rust", "/products").text == "[false, false, false]"


def test_rust_keeps_and_finds_values(city: Town) -> None:
    def put(key: str, body: bytes, **fields: str) -> int:
        return city.ask("rust", f"/kv/{key}", method="PUT", body=body, **fields).status

    assert city.ask("rust", "/kv/a").status == 404
    assert put("a", b"one", x_metadata="about it") == 201
    first = city.ask("rust", "/kv/a")
    assert (first.text, first.header("x-metadata")) == ("one", "about it")
    assert put("a", b"z", x_mode="add") == 412
    assert put("a", b"!", x_mode="append") == 201
    second = city.ask("rust", "/kv/a")
    assert second.text == "one!"
    assert second.header("x-generation") != first.header("x-generation")
    assert put("ab", b"x") == 201
    assert put("b", b"x") == 201
    assert city.ask("rust", "/kv/a?list").text == "a ab"
    assert city.ask("rust", "/kv/a", method="DELETE").status == 204
    assert city.ask("rust", "/kv/a").status == 404


def test_go_keeps_and_finds_values(city: Town) -> None:
    assert city.ask("go", "/kv/a").status == 404
    put = city.ask("go", "/kv/a?metadata=m%20n", method="PUT", body=b"from go")
    assert (put.status, put.text) == (201, "error 1\n"), "kv_error 1 is ok"
    found = city.ask("go", "/kv/a")
    assert (found.text, found.header("x-metadata")) == ("from go", "m n")
    assert int(found.header("x-generation") or 0) > 0
    assert city.ask("go", "/kv/a", method="DELETE").text == "error 1\n"
    assert city.ask("go", "/kv/a").status == 404


@pytest.mark.parametrize(
    ("service", "config", "secret"),
    [("rust", "/config?", "/secret?"), ("go", "/config/", "/secret/")],
)
def test_config_and_secrets_in_rust_and_go(
    city: Town, service: str, config: str, secret: str
) -> None:
    assert city.ask(service, f"{config}banner").text == "blue"
    assert city.ask(service, f"{config}long").text == "y" * 500
    assert city.ask(service, f"{config}nothing").status == 404
    assert city.ask(service, f"{secret}api").text == "s3cret"
    assert city.ask(service, f"{secret}nothing").status == 404


def test_assemblyscript_reads_a_dictionary_and_fans_out(city: Town, upstream: Origin) -> None:
    assert city.ask("assembly", "/banner").text == "blue"
    for path in ("/a", "/b", "/c"):
        upstream.on(path, says(path.encode()))
    text = city.ask("assembly", "/three").text
    assert text.startswith("three: ")
    assert sorted(text[7:].replace("/", " /").split()) == ["/a", "/b", "/c"]


def test_c_fans_out_and_joins_what_comes(city: Town, upstream: Origin) -> None:
    together = threading.Barrier(3, timeout=30)

    def meet(exchange: Exchange) -> None:
        together.wait()  # nobody is answered before all three have come
        exchange.reply(exchange.seen.target.encode())

    for path in ("/a", "/b", "/c"):
        upstream.on(path, meet)
    text = city.ask("fanout").text
    assert sorted(text.replace("/", " /").split()) == ["/a", "/b", "/c"]


def test_c_gets_a_value_and_its_metadata(city: Town) -> None:
    assert city.ask("kvget").status == 404
    assert city.ask("seed", "/kv/item?metadata=meta", method="PUT", body=b"the item").status == 201
    found = city.ask("kvget")
    assert (found.status, found.body, found.header("x-metadata")) == (200, b"the item", "meta")


def test_nothing_above_was_a_fault_of_ours(city: Town) -> None:
    assert city.server.metric("edge_faults_total") == 0

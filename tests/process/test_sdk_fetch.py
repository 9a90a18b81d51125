"""JavaScript services that ask backends, served for real: what the backend saw, what came back."""

from __future__ import annotations

import gzip
import http.client
import json
import re
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
from tests.support.procfs import MIB, forget_peak, resident, resident_peak
from tests.support.sdk import Service, Town, received, town
from tests.support.streams import stream

pytestmark = [pytest.mark.process, pytest.mark.toolchain]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Origin]:
    with origin() as running:
        yield running


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, upstream: Origin) -> Iterator[Town]:
    ours = free_port()
    backends = (
        "backends:",
        f'  origin: {{url: "{upstream.url}"}}',
        f'  prefixed: {{url: "{upstream.url}/prefix", override_host: example.org}}',
        f'  refusing: {{url: "http://127.0.0.1:{free_port()}"}}',
        '  nameless: {url: "http://nowhere.invalid"}',
        f'  hasty: {{url: "{upstream.url}", first_byte_timeout: 200ms}}',
        f'  fidgety: {{url: "{upstream.url}", between_bytes_timeout: 200ms}}',
        f'  self: {{url: "http://127.0.0.1:{ours}", override_host: fetch.test}}',
    )
    services = [
        Service("fetch", "js/fetch", ("limits: {cpu: 5s, subrequests: 8}", *backends)),
        Service("hints", "js/hints", backends),
        Service("hono", "js/hono", backends),
    ]
    folder = tmp_path_factory.mktemp("fetch")
    with town(folder, services, port=ours) as running:
        yield running


def test_a_request_is_passed_on_and_its_answer_comes_back(city: Town, upstream: Origin) -> None:
    upstream.on("/made", mirror)
    answer = city.ask("fetch", "/made?x=1&y=%2f", method="PUT", body=b"caf\xc3\xa9", x_mine="yes")
    told = answer.json()
    assert answer.status == 200
    assert (told["method"], told["target"], told["body"]) == ("PUT", "/made?x=1&y=%2f", "café")
    fields = dict(told["fields"])
    assert fields["x-mine"] == "yes"
    assert fields["host"] == "fetch.test"
    assert "connection" not in fields or fields["connection"].lower() != "close"


def test_a_status_and_the_fields_of_an_answer_are_kept(city: Town, upstream: Origin) -> None:
    upstream.on("/gone", says(b"nothing here", 410, x_why="eaten"))
    answer = city.ask("fetch", "/gone")
    assert (answer.status, answer.text, answer.header("x-why")) == (410, "nothing here", "eaten")


def test_prefix_and_host_are_those_of_the_backend(city: Town, upstream: Origin) -> None:
    upstream.on("/prefix/where", mirror)
    told = city.ask("fetch", "/where?q", x_backend="prefixed").json()
    assert told["target"] == "/prefix/where?q"
    assert dict(told["fields"])["host"] == "example.org"


def test_the_first_part_of_a_body_arrives_before_the_second_was_sent(
    city: Town, upstream: Origin
) -> None:
    gate = upstream.gate()
    upstream.on("/parts", in_two(b"first part\n", gate, b"second part\n"))
    connection = city.connect()
    try:
        connection.request("GET", "/parts", headers={"host": "fetch.test"})
        response = connection.getresponse()
        assert response.read1(100) == b"first part\n"
        gate.set()
        assert received(response).body == b"second part\n"
    finally:
        connection.close()


def test_a_large_body_flows_through_and_the_worker_stays_small(
    city: Town, upstream: Origin
) -> None:
    upstream.on("/big", echo)
    city.ask("fetch", "/big", method="POST", body=b"warm")
    (pid,) = city.server.worker_pids()
    before = resident(pid)
    forget_peak(pid)
    done = stream(city.server.port, 64 * MIB, host="fetch.test", path="/big")
    assert (done.status, done.received, done.same) == (200, 64 * MIB, True)
    assert resident_peak(pid) - before <= 32 * MIB


def test_three_fetches_are_under_way_at_once(city: Town, upstream: Origin) -> None:
    together = threading.Barrier(3, timeout=30)

    def meet(exchange: Exchange) -> None:
        together.wait()  # nobody is answered before all three have come
        exchange.reply(exchange.seen.target.encode())

    for path in ("/a", "/b", "/c"):
        upstream.on(path, meet)
    try:
        assert city.ask("fetch", "/three").text == "/a+/b+/c"
    finally:
        for path in ("/a", "/b", "/c"):
            upstream.on(path, says(b"plain"))


def test_the_answer_that_comes_first_wins_a_race(city: Town, upstream: Origin) -> None:
    upstream.on("/slow", held(upstream.gate(), b"slow"))
    upstream.on("/fast", says(b"fast"))
    assert city.ask("fetch", "/race").text == "fast"


def test_a_body_that_the_guest_writes_streams_to_the_backend(city: Town, upstream: Origin) -> None:
    upstream.on("/echo", echo)
    answer = city.ask("fetch", "/upload", method="POST", body=iter([b"one ", b"two ", b"three"]))
    assert (answer.status, answer.text) == (200, "ONE TWO THREE")
    (seen,) = upstream.wait_for("/echo")
    assert seen.header("content-length") is None
    assert seen.body == b"ONE TWO THREE"


def test_the_first_piece_of_an_upload_is_there_before_the_second_was_sent(
    city: Town, upstream: Origin
) -> None:
    came = threading.Event()

    def listen(exchange: Exchange) -> None:
        pieces = exchange.read()
        first = next(pieces)
        came.set()
        exchange.reply(first + b"|" + b"".join(pieces))

    def body() -> Iterator[bytes]:
        yield b"early "
        assert came.wait(30), "the backend has seen nothing"
        yield b"late"

    upstream.on("/echo", listen)
    assert city.ask("fetch", "/upload", method="POST", body=body()).text == "EARLY |LATE"


def test_a_body_can_be_rewritten_on_its_way_back(city: Town, upstream: Origin) -> None:
    upstream.on("/lines", says(b"small letters", 203))
    answer = city.ask("fetch", "/shout")
    assert (answer.status, answer.text) == (203, "SMALL LETTERS")


def test_an_override_of_the_cache_does_not_reach_the_backend(city: Town, upstream: Origin) -> None:
    upstream.on("/a", mirror)
    told = city.ask("fetch", "/uncached").json()
    assert told["target"] == "/a"
    assert not {name for name, _ in told["fields"]} & {"cache-control", "surrogate-key"}


def test_gzip_is_unpacked_where_the_guest_asks_for_it_only(city: Town, upstream: Origin) -> None:
    text = b"packed and unpacked " * 1000
    body = gzip.compress(text)
    upstream.on("/gzip", says(body, content_encoding="gzip"))
    upstream.on("/raw", says(body, content_encoding="gzip"))
    unpacked = city.ask("fetch", "/gzip")
    assert (unpacked.body, unpacked.header("content-encoding")) == (text, None)
    raw = city.ask("fetch", "/raw")
    assert (raw.body, raw.header("content-encoding")) == (body, "gzip")


def test_the_guest_learns_where_its_answer_came_from(city: Town, upstream: Origin) -> None:
    upstream.on("/a", says(b"said", 201, content_type="text/x"))
    assert city.ask("fetch", "/facts").json() == {
        "status": 201,
        "type": "text/x",
        "body": "said",
        "backend": "origin",
        "ip": "127.0.0.1",
        "port": upstream.port,
    }
    assert upstream.wait_for("/a")[-1].header("x-mine") == "yes"


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("refusing", r"refused"),
        ("nameless", r"(?i)dns|destination|name"),
        ("hasty", r"(?i)timeout|timed out"),
        ("unheard-of", r"(?i)backend"),
    ],
)
def test_a_fetch_that_fails_says_why(city: Town, upstream: Origin, backend: str, why: str) -> None:
    upstream.on("/never", held(upstream.gate(), b"too late"))
    answer = city.ask("fetch", "/never", x_backend=backend)
    assert answer.status == 502
    assert re.search(why, answer.text), answer.text


def test_a_body_that_stops_ends_the_response_in_the_middle(city: Town, upstream: Origin) -> None:
    upstream.on("/stops", in_two(b"first", upstream.gate(), b"never"))
    connection = city.connect()
    try:
        connection.request("GET", "/stops", headers={"host": "fetch.test", "x-backend": "fidgety"})
        response = connection.getresponse()
        assert response.read1(100) == b"first"
        with pytest.raises(
            (OSError, http.client.HTTPException), match=r"(?i)incomplete|reset|length"
        ):
            response.read()
    finally:
        connection.close()
    assert city.ask("fetch", "/after").status == 200


def test_a_backend_that_goes_away_in_the_middle_costs_this_response_only(
    city: Town, upstream: Origin
) -> None:
    def vanish(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"some")
        exchange.cut()

    upstream.on("/vanish", vanish)
    connection = city.connect()
    try:
        connection.request("GET", "/vanish", headers={"host": "fetch.test"})
        response = connection.getresponse()
        with pytest.raises((OSError, http.client.HTTPException), match=r"(?i)incomplete|reset"):
            response.read()
    finally:
        connection.close()
    assert city.ask("fetch", "/after").status == 200


def test_a_service_that_asks_itself_is_stopped(city: Town) -> None:
    answer = city.ask("fetch", "/loop")
    assert answer.status == 508
    depth = answer.text.count("looped: ")
    assert 1 <= depth <= 10
    assert city.server.metric("edge_request_outcome_total", service="fetch", outcome="loop") == 1


def test_a_request_may_send_so_many_and_no_more(city: Town, upstream: Origin) -> None:
    upstream.on("/a", says(b"one"))
    before = len(upstream.asked("/a"))
    assert city.ask("fetch", "/many?n=8").json() == {"done": 8}
    told = city.ask("fetch", "/many?n=9").json()
    assert told["done"] == 8
    assert "rror" in told["error"]
    assert len(upstream.asked("/a")) - before == 16


def test_connections_to_a_backend_are_used_again(city: Town, upstream: Origin) -> None:
    upstream.on("/again", says(b"ok"))
    assert city.ask("fetch", "/again").text == "ok"
    before = upstream.connections
    for _ in range(5):
        assert city.ask("fetch", "/again").text == "ok"
    assert upstream.connections == before


def test_early_hints_come_before_the_response(city: Town) -> None:
    raw = _raw(city, "/hints")
    heads = re.findall(rb"HTTP/1\.1 (\d+)[^\r]*\r\n(.*?)\r\n\r\n", raw, re.DOTALL)
    assert [status for status, _ in heads] == [b"103", b"103", b"200"]
    links = [re.findall(rb"(?i)link: ([^\r]*)", head) for _, head in heads]
    assert links == [
        [b"</style.css>; rel=preload; as=style"],
        [b"</one.js>; rel=preload", b"</two.js>; rel=preload"],
        [],
    ]
    assert raw.endswith(b"after the hints")


def test_timers_fire_when_they_are_due(city: Town) -> None:
    assert city.ask("hints", "/timers").json() == {"fired": [10, 20, 30], "ticks": 3}


def test_a_timer_fires_while_a_fetch_is_under_way(city: Town, upstream: Origin) -> None:
    gate = upstream.gate()

    def answer(exchange: Exchange) -> None:
        gate.set()
        exchange.reply(b"origin's answer")

    upstream.on("/slow", answer)
    text = city.ask("hints", "/both").text
    assert gate.is_set()
    assert text in ("timer then origin's answer", "origin then origin's answer")


def test_work_goes_on_after_the_response_was_sent(city: Town, upstream: Origin) -> None:
    before = len(upstream.asked("/told"))
    assert city.ask("hints", "/later").text == "answered"
    assert upstream.wait_for("/told", before + 1)[-1].body == b"late"


def test_a_hono_application_routes_parses_and_handles_errors(city: Town, upstream: Origin) -> None:
    upstream.on("/origin/x", mirror)
    hello = city.ask("hono", "/")
    assert (hello.status, hello.text) == (200, "hello from hono\n")
    assert hello.header("x-served-by") == "hono"
    user = city.ask("hono", "/users/7%20a?tag=x&tag=y").json()
    assert user == {"id": "7 a", "tags": ["x", "y"]}
    summed = city.ask(
        "hono", "/sum", method="POST", body=json.dumps({"numbers": [1, 2, 3]}).encode()
    )
    assert summed.json() == {"sum": 6}
    missing = city.ask("hono", "/nowhere")
    assert (missing.status, missing.text) == (404, "no /nowhere\n")
    broken = city.ask("hono", "/broken")
    assert (broken.status, broken.text) == (500, "broken on purpose\n")
    told = city.ask("hono", "/origin/x", method="POST", body=b"through").json()
    assert (told["method"], told["target"], told["body"]) == ("POST", "/origin/x", "through")


def test_nothing_above_was_a_fault_of_ours(city: Town) -> None:
    assert city.server.metric("edge_faults_total") == 0


def _raw(city: Town, path: str) -> bytes:
    connection = city.connect()
    try:
        connection.connect()
        connection.sock.sendall(
            f"GET {path} HTTP/1.1\r\nhost: hints.test\r\nconnection: close\r\n\r\n".encode()
        )
        with connection.sock.makefile("rb") as answer:
            raw: bytes = answer.read()
            return raw
    finally:
        connection.close()

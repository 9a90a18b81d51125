"""What every call goes through: routes, tokens, bodies, streams, and clients that leave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge.admin import calls
from edge.admin.api import NDJSON, Call, Reply, Route
from edge.admin.around import Around
from edge.admin.auth import FAILURES, WINDOW_SECONDS
from edge.admin.v1 import routes as v1_routes
from edge.admin.v1.uploads import PACKAGE_MARGIN
from edge.catalogue.records import Scope
from edge.errors import ApiRefused, Refusal
from edge.server.front import HttpLimits
from edge.settings import MIB
from tests.support.api_server import ApiServer, api_server
from tests.support.clock import SteppedClock

HELLO = b'(module (func (export "_start")))'
LIMIT = 1000


class Probe:
    """Endpoints that do what a test needs to see."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.entered = threading.Event()
        self.finished = threading.Event()
        self.release: asyncio.Event

    async def echo(self, call: Call) -> Reply:
        return Reply(body=await call.body.read(), content_type="text/plain")

    async def ignore(self, call: Call) -> Reply:
        return Reply(body=b"did not read")

    async def fail(self, call: Call) -> Reply:
        raise RuntimeError("inside")

    async def refuse(self, call: Call) -> Reply:
        raise ApiRefused(Refusal.CONFLICT, "in the way")

    async def endless(self, call: Call) -> Reply:
        return Reply(body=self._lines(), content_type=NDJSON)

    async def slow(self, call: Call) -> Reply:
        await call.body.read()
        self.release = asyncio.Event()
        self.entered.set()
        await self.release.wait()
        self.finished.set()
        return Reply(body=b"done")

    async def broken_stream(self, call: Call) -> Reply:
        return Reply(body=self._broken(), content_type=NDJSON)

    async def _lines(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b'{"line": "' + b"x" * 4096 + b'"}\n'
        finally:
            self.closed.set()

    async def _broken(self) -> AsyncIterator[bytes]:
        yield b"{}\n"
        raise RuntimeError("inside")

    def routes(self, around: Around) -> list[Route]:
        return [
            *v1_routes(around),
            Route("POST", "/probe/echo", self.echo, max_body=LIMIT),
            Route("POST", "/probe/ignore", self.ignore, max_body=64 * MIB),
            Route("POST", "/probe/fastly", self.echo, max_body=LIMIT, fastly=True),
            Route("GET", "/probe/fail", self.fail),
            Route("GET", "/probe/refuse", self.refuse, fastly=True),
            Route("GET", "/probe/endless", self.endless),
            Route("GET", "/probe/broken", self.broken_stream),
            Route("POST", "/probe/slow", self.slow),
            Route("GET", "/probe/slow", self.slow),
        ]


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def server(tmp_path: Path, probe: Probe, clock: SteppedClock) -> Iterator[ApiServer]:
    with api_server(tmp_path, make_routes=probe.routes, clock=clock) as running:
        yield running


def raw(server: ApiServer, *lines: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request has been sent as it stands, with the token of `admin`."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = [*lines, "host: 127.0.0.1", f"authorization: Bearer {server.admin}", "", ""]
    sock.sendall("\r\n".join(head).encode() + body)
    return sock


def answer_of(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body of a whole response."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.read()


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other end has closed."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


# Routes ---------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_is_a_problem(server: ApiServer) -> None:
    answer = server.ask("GET", "/v1/nothing")
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.json["request_id"] == answer.headers["x-request-id"]


def test_a_method_that_a_path_does_not_know_is_405_and_says_which_it_knows(
    server: ApiServer,
) -> None:
    answer = server.ask("POST", "/v1/services/hello")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"


def test_head_is_get_without_the_body(server: ApiServer) -> None:
    answer = server.ask("HEAD", "/v1/services")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_refusals_of_fastly_routes_have_the_shape_of_its_api(server: ApiServer) -> None:
    answer = server.ask("GET", "/probe/refuse")
    assert answer.status == 409
    assert answer.json["detail"] == "in the way"
    assert set(answer.json) == {"msg", "detail"}


def test_a_fault_is_500_and_tells_nothing_of_the_inside(server: ApiServer) -> None:
    answer = server.ask("GET", "/probe/fail")
    assert (answer.status, answer.code) == (500, "fault")
    assert b"inside" not in answer.body


def test_another_name_than_ours_is_421(server: ApiServer) -> None:
    assert server.ask("GET", "/v1/whoami", headers={"host": "evil.example"}).status == 421
    assert server.ask("GET", "/livez", headers={"host": "evil.example"}).status == 421
    for host in ("localhost", "127.0.0.1:80", "[::1]:8090", "LOCALHOST:1"):
        assert server.ask("GET", "/v1/whoami", headers={"host": host}).status == 200, host


# Tokens ---------------------------------------------------------------------------------------


def test_without_a_token_nothing_is_told_but_probes_and_the_document(server: ApiServer) -> None:
    answer = server.ask("GET", "/v1/services", token="")
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/livez", "/readyz", "/metrics", "/v1/openapi.json"):
        assert server.ask("GET", path, token="").status == 200, path


def test_a_token_may_be_shown_in_the_field_of_fastly_s_clients(server: ApiServer) -> None:
    answer = server.ask("GET", "/v1/whoami", token="", headers={"fastly-key": server.admin})
    assert answer.json["name"] == "tests"


def test_a_request_without_a_valid_token_is_answered_before_its_body(server: ApiServer) -> None:
    with raw(
        server,
        "PUT /v1/services/hello HTTP/1.1",
        "content-length: 100000",
        "authorization: Bearer nonsense",
    ) as sock:
        assert sock.recv(12) == b"HTTP/1.1 401"


def test_scopes_are_kept(server: ApiServer) -> None:
    reader, deployer = server.token(Scope.READ), server.token(Scope.DEPLOY)
    purger = server.token(Scope.PURGE)
    assert server.ask("GET", "/v1/services", token=reader).status == 200
    assert server.ask("PUT", "/v1/services/a", HELLO, token=reader).code == "forbidden"
    assert server.ask("PUT", "/v1/services/a", HELLO, token=deployer).status == 201
    assert server.ask("GET", "/v1/tokens", token=deployer).code == "forbidden"
    assert server.ask("GET", "/v1/services", token=purger).code == "forbidden"
    assert server.ask("POST", "/v1/purge", {}, token=purger).status == 200
    assert server.ask("POST", "/v1/purge", {}, token=deployer).code == "forbidden"


def test_a_token_of_one_service_reaches_no_other(server: ApiServer) -> None:
    mine = server.ask("PUT", "/v1/services/mine", HELLO).json["id"]
    server.ask("PUT", "/v1/services/other", HELLO)
    token = server.token(Scope.ADMIN, service_id=mine)
    assert server.ask("GET", "/v1/services/mine", token=token).status == 200
    assert server.ask("GET", f"/v1/services/{mine}/versions", token=token).status == 200
    assert server.ask("GET", "/v1/services/other", token=token).code == "forbidden"
    assert server.ask("GET", "/v1/services/nothing", token=token).code == "forbidden"
    assert server.ask("PUT", "/v1/services/new", HELLO, token=token).code == "forbidden"
    assert server.ask("GET", "/v1/tokens", token=token).code == "forbidden"
    assert server.ask("GET", "/v1/status", token=token).code == "forbidden"
    listed = server.ask("GET", "/v1/services", token=token).json["items"]
    assert [item["name"] for item in listed] == ["mine"]


def test_a_revoked_token_is_dropped_at_once(server: ApiServer) -> None:
    made = server.ask("POST", "/v1/tokens", {"name": "ci", "scopes": ["read"]}).json
    assert server.ask("GET", "/v1/whoami", token=made["token"]).status == 200
    assert server.ask("DELETE", f"/v1/tokens/{made['id']}").status == 204
    assert server.ask("GET", "/v1/whoami", token=made["token"]).status == 401


def test_an_expired_token_is_good_for_nothing(server: ApiServer, clock: SteppedClock) -> None:
    token = server.token(Scope.READ, expires_at=clock.wall() + 5)
    assert server.ask("GET", "/v1/whoami", token=token).status == 200
    clock.advance(6)
    assert server.ask("GET", "/v1/whoami", token=token).status == 401


def test_guessing_is_slowed_down_and_valid_tokens_never_are(
    server: ApiServer, clock: SteppedClock
) -> None:
    fresh = server.token(Scope.READ)
    for _ in range(FAILURES):
        assert server.ask("GET", "/v1/whoami", token="edge_wrong").status == 401
    limited = server.ask("GET", "/v1/whoami", token="edge_wrong")
    assert (limited.status, limited.code) == (429, "rate_limited")
    assert 0 < int(limited.headers["retry-after"]) <= WINDOW_SECONDS
    assert server.ask("GET", "/v1/whoami").status == 200
    assert server.ask("GET", "/v1/whoami", token=fresh).status == 200
    clock.advance(WINDOW_SECONDS)
    assert server.ask("GET", "/v1/whoami", token="edge_wrong").status == 401


def test_the_use_of_a_token_is_remembered(server: ApiServer, clock: SteppedClock) -> None:
    token = server.token(Scope.READ)
    server.ask("GET", "/v1/whoami", token=token)
    last = server.ask("GET", "/v1/tokens").json["items"]
    assert all(item["last_used_at"] is not None for item in last)


# Bodies ---------------------------------------------------------------------------------------


def test_a_body_is_asked_for_when_it_is_wanted(server: ApiServer) -> None:
    head = ("POST /probe/echo HTTP/1.1", "content-length: 5", "expect: 100-continue")
    with raw(server, *head) as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_body_that_is_too_large_is_not_asked_for(server: ApiServer) -> None:
    size = LIMIT + 1
    head = ("POST /probe/echo HTTP/1.1", f"content-length: {size}", "expect: 100-continue")
    with raw(server, *head) as sock:
        assert sock.recv(12) == b"HTTP/1.1 413"


def test_a_chunked_body_is_bounded_as_well(server: ApiServer) -> None:
    chunk = b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1))
    head = ("POST /probe/echo HTTP/1.1", "transfer-encoding: chunked")
    with raw(server, *head, body=chunk) as sock:
        status, body = answer_of(sock)
    assert (status, json.loads(body)["code"]) == (413, "too_large")


def test_a_chunk_that_passes_the_bound_at_once_is_too_large(server: ApiServer) -> None:
    """Nothing of it has been read when it is refused."""
    head = ("POST /probe/echo HTTP/1.1", "transfer-encoding: chunked", "expect: 100-continue")
    with raw(server, *head) as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"%x\r\n%b" % (9 * LIMIT, b"x" * 2 * LIMIT))
        status, body = answer_of(sock)
    assert (status, json.loads(body)["code"]) == (413, "too_large")


def test_a_body_above_every_bound_gets_an_answer_in_the_shape_of_its_api(
    server: ApiServer,
) -> None:
    for path in ("/probe/echo", "/probe/fastly"):
        answer = server.ask("POST", path, b"x" * 65 * MIB)
        assert answer.status == 413
        assert ("msg" in answer.json) == (path == "/probe/fastly")
        assert f"{LIMIT} bytes" in answer.json["detail"]


def test_a_body_that_is_not_read_does_not_hinder_the_answer(server: ApiServer) -> None:
    assert server.ask("POST", "/probe/ignore", b"x" * 3 * MIB).body == b"did not read"


def test_bodies_that_are_held_together_are_bounded(server: ApiServer) -> None:
    held = server.calls._held
    held.take(held.most)
    try:
        answer = server.ask("POST", "/probe/echo", b"hello")
    finally:
        held.give(held.most)
    assert (answer.status, answer.code) == (503, "busy")
    assert "retry-after" in answer.headers
    assert server.ask("POST", "/probe/echo", b"hello").body == b"hello"
    assert held.now == 0


def test_an_upload_that_stops_is_ended(tmp_path: Path, probe: Probe) -> None:
    quick = HttpLimits(body_idle=0.05)
    with api_server(tmp_path, make_routes=probe.routes, limits=quick) as server:
        head = ("POST /probe/echo HTTP/1.1", "content-length: 500")
        with raw(server, *head, body=b"only this") as sock:
            status, body = answer_of(sock)
    assert status == 400
    assert b"after 9 bytes" in body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_request"),
        (b"\xff", "bad_request"),
        (b"{", "bad_request"),
        (b"[" * 200_000, "bad_request"),
        (b'{"name": "a", "name": "b", "scopes": ["read"]}', "bad_request"),
        (b'{"name": NaN}', "bad_request"),
        (b'{"name": "\\ud800", "scopes": ["read"]}', "bad_request"),
        (b'{"name": "a", "scopes": ["read"], "expires_in": 1' + b"0" * 5000 + b"}", "bad_request"),
        (b"[]", "invalid"),
        (b'{"name": "a"}', "invalid"),
        (b'{"name": "a", "scopes": ["root"]}', "invalid"),
        (b'{"name": "a", "scopes": []}', "invalid"),
        (b'{"name": "a", "scopes": ["read"], "scope": "read"}', "invalid"),
    ],
)
def test_a_document_that_is_not_understood_is_refused(
    server: ApiServer, body: bytes, code: str
) -> None:
    assert server.ask("POST", "/v1/tokens", body).code == code


# Streams, and clients that leave --------------------------------------------------------------


def test_a_stream_that_nobody_takes_waits_and_ends_when_the_client_leaves(
    server: ApiServer, probe: Probe
) -> None:
    sock = raw(server, "GET /probe/endless HTTP/1.1")
    assert sock.recv(12) == b"HTTP/1.1 200"
    assert not probe.closed.is_set()
    sock.close()
    assert probe.closed.wait(30)


def test_a_stream_that_fails_has_no_good_end(server: ApiServer) -> None:
    with raw(server, "GET /probe/broken HTTP/1.1") as sock, pytest.raises(ConnectionResetError):
        read_all(sock)


def test_head_of_a_stream_ends_it(server: ApiServer, probe: Probe) -> None:
    assert server.ask("HEAD", "/probe/endless").status == 200

    async def over() -> None:
        async with asyncio.timeout(30):
            await asyncio.gather(*server.calls._tasks)

    server.run(over)


def test_a_change_is_carried_through_when_its_client_leaves(
    server: ApiServer, probe: Probe
) -> None:
    sock = raw(server, "POST /probe/slow HTTP/1.1", "content-length: 0")
    assert probe.entered.wait(30)
    gone = threading.Event()
    server.front.on_closed.append(gone.set)
    sock.close()
    assert gone.wait(30)
    server.loop.call_soon_threadsafe(probe.release.set)
    assert probe.finished.wait(30)


def test_a_question_is_dropped_when_its_client_leaves(server: ApiServer, probe: Probe) -> None:
    sock = raw(server, "GET /probe/slow HTTP/1.1")
    assert probe.entered.wait(30)
    sock.close()

    async def over() -> None:
        await asyncio.gather(*server.calls._tasks, return_exceptions=True)

    server.run(over)
    assert not probe.finished.is_set()


def test_calls_at_once_are_bounded(
    server: ApiServer, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS", 1)
    with raw(server, "GET /probe/slow HTTP/1.1"):
        assert probe.entered.wait(30)
        answer = server.ask("GET", "/v1/whoami")
    assert (answer.status, answer.code) == (503, "busy")


def test_what_is_under_way_when_the_server_stops_is_told_so(
    server: ApiServer, probe: Probe
) -> None:
    with raw(server, "GET /probe/slow HTTP/1.1") as sock:
        assert probe.entered.wait(30)
        server.run(server.calls.aclose)
        status, body = answer_of(sock)
    assert (status, json.loads(body)["code"]) == (503, "stopping")


def test_a_stopping_server_answers_what_is_under_way_before_it_closes(
    server: ApiServer, probe: Probe
) -> None:
    with raw(server, "GET /probe/slow HTTP/1.1") as sock:
        assert probe.entered.wait(30)
        server.stop()
        status, body = answer_of(sock)
        assert (status, json.loads(body)["code"]) == (503, "stopping")
        assert sock.recv(1) == b""


def test_half_of_what_is_held_has_room_for_the_largest_package_and_its_program(
    server: ApiServer,
) -> None:
    most = server.settings.admin.package_bytes
    assert server.calls._held.most // 2 >= most + PACKAGE_MARGIN + most

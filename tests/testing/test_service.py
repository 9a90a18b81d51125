"""`edge.testing` with small guests: what a test asks, sees and waits for."""

from __future__ import annotations

import http.client
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.testing import Edge, Ending, Reply, Request
from tests.support.guests import build
from tests.support.runtime import program

SEND = ("http_resp.new", "http_body.new", "http_resp.send_downstream")
# A response with nothing in it: handles at 0 and 4.
RESPOND = """
  (drop (call $http_resp.new (i32.const 0)))
  (drop (call $http_body.new (i32.const 4)))
  (drop (call $http_resp.send_downstream
    (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 0)))
"""


Write = Callable[[str], Path]


@pytest.fixture
def wat(tmp_path: Path) -> Write:
    """Writes a WAT program to a file."""

    names = itertools.count()

    def write(text: str) -> Path:
        path = tmp_path / f"app{next(names)}.wat"
        path.write_text(text)
        return path

    return write


def test_a_service_answers_and_its_request_is_known_afterwards(edge: Edge) -> None:
    service = edge.service(build("wat/hello"))
    response = service.get("/path?query")
    assert (response.status, response.text) == (200, "hello from wasm\n")
    assert response.header("Content-Type") == "text/plain"
    seen = response.wait()
    assert seen.outcome.ending is Ending.OK
    assert (seen.method, seen.host, seen.target) == ("GET", "edge.test", "/path?query")
    assert (seen.status, seen.bytes_out, seen.hostcalls) == (200, 16, 7)
    assert seen.cpu_ns > 0
    assert seen.memory == 65536
    assert service.finished == (seen,)


def test_hostcalls_are_traced_with_the_status_that_the_guest_got(edge: Edge, wat: Write) -> None:
    service = edge.service(
        wat(program("(drop (call $http_body.close (i32.const 77)))" + RESPOND,
                    "http_body.close", *SEND))
    )  # fmt: skip
    seen = service.get().wait()
    assert [(call.name, call.status) for call in seen.calls] == [
        ("fastly_http_body.close", 3),  # BADF
        ("fastly_http_resp.new", 0),
        ("fastly_http_body.new", 0),
        ("fastly_http_resp.send_downstream", 0),
    ]


def test_a_service_without_trace_keeps_no_calls(edge: Edge) -> None:
    seen = edge.service(build("wat/hello"), trace=False).get().wait()
    assert (seen.calls, seen.hostcalls) == ((), 7)


def test_a_long_trace_is_cut_and_says_so(edge: Edge, wat: Write) -> None:
    loop = """
    (local $n i32)
    (loop $again
      (drop (call $compute_runtime.get_vcpu_ms (i32.const 8)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 10500))))
    """
    service = edge.service(wat(program(loop + RESPOND, "compute_runtime.get_vcpu_ms", *SEND)))
    seen = service.get().wait()
    assert len(seen.calls) == 10_000
    assert seen.calls_left_out == 503
    assert seen.hostcalls == 10_503


def test_a_suspended_hostcall_is_traced_when_it_has_its_status(edge: Edge, wat: Write) -> None:
    wait = "(drop (call $async_io.select (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 8)))"
    service = edge.service(wat(program(wait + RESPOND, "async_io.select", *SEND)))
    calls = service.get().wait().calls
    assert (calls[0].name, calls[0].status) == ("fastly_async_io.select", 0)
    assert len(calls) == 4


def test_a_trap_tells_where_it_happened(edge: Edge, wat: Write) -> None:
    extra = "(func $inner unreachable) (func $outer (call $inner))"
    service = edge.service(wat(program("(call $outer)", extra=extra)))
    response = service.get()
    assert response.status == 500
    seen = response.wait()
    assert seen.outcome.ending is Ending.TRAP
    assert "!inner\n" in seen.backtrace
    assert "!outer\n" in seen.backtrace


def test_no_guest_sees_how_requests_are_told_apart(edge: Edge) -> None:
    response = edge.service(build("wat/echo")).post("/", "body", headers={"x-mine": "1"})
    assert response.body == b"body"
    seen: list[Request] = []

    def origin(request: Request) -> str:
        seen.append(request)
        return "ok"

    service = edge.service(build("js/fetch"), backends={"origin": origin})
    assert service.get("/", headers={"X-Mine": "1"}).status < 500
    assert all("testing" not in name for request in seen for name, _ in request.headers)


def test_concurrent_services_of_one_test_do_not_meet(edge: Edge) -> None:
    first, second = edge.service(build("wat/hello")), edge.service(build("wat/echo"))
    assert first.get().text == "hello from wasm\n"
    assert second.post("/", "x" * 100_000).body == b"x" * 100_000
    assert (len(first.finished), len(second.finished)) == (1, 1)


def test_lines_belong_to_the_request_that_wrote_them(edge: Edge, wat: Write) -> None:
    line = """
      (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 3))
      (drop (call $wasi.fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 24)))
    """
    data = '(data (i32.const 32) "hi\\n")'
    service = edge.service(wat(program(line + RESPOND, *SEND, "wasi.fd_write", extra=data)))
    first, second = service.get("/one"), service.get("/two")
    assert first.log() == second.log("stderr") == ["hi"]
    assert second.log("stdout") == []
    ids = [first.wait().request_id, second.wait().request_id]
    assert [line.request_id for line in service.log] == ids


def test_limits_hold_and_are_named(edge: Edge, wat: Write) -> None:
    service = edge.service(wat(program("(loop $l (br $l))")), limits={"cpu": 0.05})
    response = service.get()
    assert response.status == 503
    outcome = response.wait().outcome
    assert outcome.ending is Ending.CPU_LIMIT
    assert outcome.setting == "services.app.limits.cpu"


def test_waiting_for_background_work_waits_for_the_guest(edge: Edge, wat: Write) -> None:
    # It answers, waits for 200 ms, and then writes a line.
    after = """
      (drop (call $async_io.select (i32.const 0) (i32.const 0) (i32.const 200) (i32.const 8)))
      (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 5))
      (drop (call $wasi.fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))
    """
    data = '(data (i32.const 32) "late\\n")'
    imports = (*SEND, "async_io.select", "wasi.fd_write")
    service = edge.service(wat(program(RESPOND + after, *imports, extra=data)))
    response = service.get()
    assert response.status == 200
    assert [line.text for line in service.log] == []
    service.wait_for_background(response)
    assert response.log("stdout") == ["late"]
    service.wait_for_background()
    assert response.wait().wall_ns >= 200e6


def test_a_refused_program_says_why_and_leaves_nothing_open(edge: Edge, wat: Write) -> None:
    with pytest.raises(ConfigError, match="exports no"):
        edge.service(wat("(module)"))
    with pytest.raises(ConfigError, match="No such file"):
        edge.service("absent.wasm")


def test_a_backend_is_a_function_and_keeps_its_requests(edge: Edge) -> None:
    backend = edge.backend(lambda request: Reply(201, [b"a", b"", b"b"], {"x-mine": "yes"}))
    connection = http.client.HTTPConnection(backend.url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/p?q", iter([b"one", b"two"]), {"x-test": "1"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("x-mine"), answer.read()) == (201, "yes", b"ab")
    connection.request("HEAD", "/h")
    assert connection.getresponse().read() == b""
    connection.close()
    first, second = backend.requests
    assert (first.method, first.target, first.body) == ("POST", "/p?q", b"onetwo")
    assert first.header("X-Test") == "1"
    assert second.method == "HEAD"


def test_what_a_backend_raises_is_raised_at_the_end() -> None:
    def broken(request: Request) -> str:
        raise ValueError(request.target)

    edge = Edge()
    backend = edge.backend(broken)
    connection = http.client.HTTPConnection(backend.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/x")
    assert connection.getresponse().status == 500
    connection.close()
    with pytest.raises(ValueError, match="/x"):
        edge.close()


def test_each_request_of_a_reused_sandbox_is_known_by_itself(edge: Edge) -> None:
    service = edge.service(build("js/reuse"))
    responses = [service.get(f"/{count}") for count in range(3)]
    seen = [response.wait() for response in responses]
    assert [response.json()["served"] for response in responses] == [1, 2, 3]
    assert [one.target for one in seen] == ["/0", "/1", "/2"]
    assert all(one.outcome.ending is Ending.OK for one in seen)
    # The last one, which waits for a further request, has no status yet.
    assert all(one.hostcalls - len(one.calls) in (0, 1) for one in seen)
    names = [[call.name for call in one.calls] for one in seen]
    assert [each.count("wasi_snapshot_preview1.args_get") for each in names] == [1, 0, 0]
    assert [each.count("fastly_http_resp.send_downstream") for each in names] == [1, 1, 1]
    service.wait_for_background()

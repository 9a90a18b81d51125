"""Every guest that an SDK or a compiler builds, served by the real server, all of them in one.

What is asked of each is the same: the right service by host and path, and a right answer.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.guests import build
from tests.support.procfs import MIB, forget_peak, resident, resident_peak
from tests.support.sdk import state_directory
from tests.support.server import DEADLINE, Server, server
from tests.support.streams import stream

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

# Four JavaScript services of 11.5 MB, 5 to 9 s each where nothing else runs, the first time only.
COMPILE_SECONDS = 240.0

# service: guest, host, path, more settings
SERVICES = {
    "js-hello": ("js/hello", "js.test", "/", ""),
    "js-echo": ("js/echo", "js.test", "/echo", ""),
    # SpiderMonkey interprets its loop over every byte: 0.25 s of CPU for each megabyte.
    "js-rewrite": ("js/rewrite", "js.test", "/rewrite", "limits: {cpu: 30s}"),
    "js-inspect": ("js/inspect", "*.inspect.test", "/", 'env: {FASTLY_HOSTNAME: "edge-7"}'),
    "c-fastly": ("c/fastly", "c.test", "/", ""),
    "c-cgi": ("c/cgi", "c.test", "/cgi", ""),
    "assemblyscript": ("as/hello", "as.test", "/", ""),
    "go": ("go/cgi", "go.test", "/", ""),
    "zig": ("zig/cgi", "zig.test", "/", ""),
    "wat-hello": ("wat/hello", "wat.test", "/", ""),
    # Two hostcalls that suspend for each 32 KiB.
    "wat-echo": ("wat/echo", "wat.test", "/echo", "limits: {cpu: 10s}"),
}


def _config(state: Path) -> str:
    services = ""
    for name, (guest, host, path, more) in SERVICES.items():
        services += (
            f"  {name}:\n    module: {build(guest)}\n"
            f'    routes: [{{host: "{host}", path: "{path}"}}]\n'
        ) + (f"    {more}\n" if more else "")
    return (
        'server: {listen: "127.0.0.1:0", workers: 1, drain: 5s}\n'
        'admin: {listen: "127.0.0.1:0"}\n'
        f"pool: {{slots: 20}}\nstate_dir: {state}\nservices:\n{services}"
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("town")
    # What was compiled once is found again by the next run, as the guests themselves are.
    with (
        state_directory() as state,
        server(folder, _config(state), seconds=COMPILE_SECONDS) as running,
    ):
        yield running


def ask(
    running: Server,
    host: str,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes, list[tuple[str, str]]]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=DEADLINE)
    try:
        connection.request(method, path, body, {"host": host, **(headers or {})})
        response = connection.getresponse()
        fields = [(name.lower(), value) for name, value in response.getheaders()]
        return response.status, response.read(), fields
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "method", "path", "body", "expected"),
    [
        ("js.test", "GET", "/", None, b"hello from wasm\n"),
        ("js.test", "GET", "/echoes", None, b"hello from wasm\n"),
        ("js.test", "POST", "/echo", b"\0to and fro\xff", b"\0to and fro\xff"),
        ("js.test", "POST", "/rewrite/x", b"Mixed Case 1", b"MIXED CASE 1"),
        ("c.test", "GET", "/a?b=c", None, b"c: GET http://c.test/a?b=c\n"),
        ("c.test", "POST", "/", b"body", b"c: POST http://c.test/\nbody"),
        ("c.test", "POST", "/cgi/x?q=1", b"in", b"method=POST path=/cgi/x query=q=1\nin"),
        ("as.test", "PUT", "/p?q", b"", b"assemblyscript: PUT http://as.test/p?q\n"),
        ("go.test", "POST", "/x", b"in", b'{"body":"in","method":"POST","path":"/x"}\n'),
        ("zig.test", "GET", "/z/1", None, b"zig: GET /z/1\n"),
        ("wat.test", "GET", "/", None, b"hello from wasm\n"),
        ("wat.test", "POST", "/echo", b"there and back", b"there and back"),
    ],
)
def test_each_guest_answers(
    town: Server, host: str, method: str, path: str, body: bytes | None, expected: bytes
) -> None:
    status, found, _ = ask(town, host, path, method=method, body=body)
    assert (status, found) == (200, expected)


@pytest.mark.parametrize("host", ["js.test", "c.test", "as.test", "go.test", "zig.test"])
def test_head_has_the_head_of_a_get_and_no_body(town: Server, host: str) -> None:
    status, body, fields = ask(town, host, method="HEAD")
    _, _, wanted = ask(town, host)
    assert (status, body) == (200, b"")
    assert ("content-type", dict(wanted)["content-type"]) in fields


def test_no_service_gets_what_belongs_to_another(town: Server) -> None:
    assert ask(town, "nobody.test")[0] == 421
    assert ask(town, "inspect.test")[0] == 421, "a wildcard stands for one label at least"
    assert ask(town, "JS.test.:80")[:2] == (200, b"hello from wasm\n")


def _inspected(town: Server, path: str, **headers: str) -> tuple[int, dict[str, Any], Any]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    status, body, answer = ask(
        town, "A.inspect.test:80", path, method="POST", body=b"caf\xc3\xa9", headers=fields
    )
    return status, json.loads(body), answer


def test_a_javascript_service_sees_the_request_as_it_was_sent(town: Server) -> None:
    path = "/p%2fq/r%20s?status=418&y=%20z&y=2"
    status, seen, fields = _inspected(town, path, x_one="1", cookie="a=b; c=d")
    assert status == 418
    assert seen["method"] == "POST"
    assert seen["url"] == f"http://a.inspect.test{path}"
    assert seen["host"] == "a.inspect.test", "the authority that was routed, normalised"
    assert seen["path"] == "/p%2fq/r%20s"
    assert seen["query"] == [["status", "418"], ["y", " z"], ["y", "2"]]
    assert seen["body"] == "café"
    headers = dict(seen["headers"])
    assert headers["x-one"] == "1"
    assert headers["cookie"] == "a=b; c=d"
    assert headers["host"] == "a.inspect.test"
    assert headers["content-length"] == "5"
    assert [value for name, value in fields if name == "set-cookie"] == ["a=1", "b=2"]


def test_a_javascript_service_learns_who_asks_and_who_it_is(town: Server) -> None:
    _, seen, _ = _inspected(town, "/", x_forwarded_for="6.6.6.6", x_request_id="forged")
    assert seen["client"]["address"] == "127.0.0.1"
    assert seen["server"]["address"] == "127.0.0.1"
    assert seen["env"] == {"hostname": "edge-7", "version": "1"}
    headers = dict(seen["headers"])
    assert headers["x-forwarded-for"] == "127.0.0.1", "the client is not a trusted proxy"
    assert headers["x-request-id"] == seen["client"]["requestId"] != "forged"


def test_what_belongs_to_the_host_or_the_hop_never_reaches_a_service(town: Server) -> None:
    with socket.create_connection(("127.0.0.1", town.port), timeout=DEADLINE) as client:
        client.sendall(
            b"GET http://b.inspect.test/x HTTP/1.1\r\nHost: js.test\r\nX-Edge-Outcome: ok\r\n"
            b"Connection: close, X-Private\r\nX-Private: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
            b"Proxy-Authorization: x\r\nX-Kept: 1\r\n\r\n"
        )
        with client.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    seen = json.loads(body)
    assert seen["host"] == "b.inspect.test", "the authority of an absolute target wins over Host"
    names = {name for name, _ in seen["headers"]}
    assert "x-kept" in names
    assert not names & {"x-edge-outcome", "x-private", "te", "keep-alive", "connection"}


@pytest.mark.parametrize(("host", "path"), [("js.test", "/echo"), ("wat.test", "/echo")])
def test_100_megabytes_are_echoed_and_the_worker_stays_small(
    town: Server, host: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(town, host, path, method="POST", body=b"warm")
    (pid,) = town.worker_pids()
    before = resident(pid)
    forget_peak(pid)
    done = stream(town.port, 100 * MIB, host=host, path=path)
    assert (done.status, done.received, done.same) == (200, 100 * MIB, True)
    grown = resident_peak(pid) - before
    with capsys.disabled():
        print(f"\n100 MiB through {host}{path}: the worker grew by {grown / MIB:.1f} MiB at most")
    assert grown <= 32 * MIB


def test_a_javascript_transform_rewrites_every_byte_of_a_stream(town: Server) -> None:
    (pid,) = town.worker_pids()
    before = resident(pid)
    forget_peak(pid)
    size = 8 * MIB
    done = stream(town.port, size, host="js.test", path="/rewrite", expect=bytes.upper)
    assert (done.status, done.received, done.same) == (200, size, True)
    # Its garbage is the guest's own linear memory, which may grow to limits.memory (128 MiB).
    assert resident_peak(pid) - before <= 160 * MIB


def test_every_request_was_recorded_with_its_service(town: Server) -> None:
    for name, (_, host, path, _) in SERVICES.items():
        ask(town, host.replace("*", "r"), path, headers={"x-of": name})
    for name in SERVICES:
        assert town.metric("edge_request_outcome_total", service=name, outcome="ok") >= 1
    assert town.metric("edge_faults_total") == 0

"""Backends under fault, through the whole server: what guest, client and operator are told of each.

After each of them the worker holds what it held before: sockets, connections, sandboxes, bytes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.backends import authority, handshakes, server_context
from tests.support.backends_h1 import Peer
from tests.support.faulty import (
    Faulty,
    Puppet,
    ask,
    failure_line,
    faulty,
    last,
    leaving_nothing,
    puppet_service,
)
from tests.support.origins import free_port
from tests.support.server import Server, config_of, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"content-length: 2\r\n\r\nok"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
HASTY = "first_byte_timeout: 300ms, between_bytes_timeout: 300ms, connect_timeout: 300ms"
PATIENT = "first_byte_timeout: 60s, between_bytes_timeout: 60s, connect_timeout: 10s"


@pytest.fixture(scope="module")
def origin() -> Iterator[Faulty]:
    with faulty() as running:
        running.says("fine", FINE)
        running.holds("stall")
        yield running


@pytest.fixture(scope="module")
def full() -> Iterator[int]:
    """The port of a listener that never accepts, and whose queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            waiting.append(filler)
        yield listener.getsockname()[1]
        for filler in waiting:
            filler.close()


@pytest.fixture(scope="module")
def selective(origin: Faulty) -> Iterator[int]:
    """The port of a TLS server that wants to see a certificate."""
    context = server_context("127.0.0.1", wants_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there it says so within the handshake
    with origin.entered(handshakes(context)) as port:
        yield port


def _context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


@pytest.fixture(scope="module")
def backends(
    origin: Faulty, full: int, selective: int, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The backends of the configuration."""
    pem = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(pem)
    past = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
    expired = authority().issue_cert("127.0.0.1", not_before=past - dt.timedelta(1), not_after=past)
    secured = {
        "secure": server_context("127.0.0.1"),
        "outdated": _context(expired),
        "misnamed": server_context("other.test"),
        "unknown": _context(trustme.CA().issue_cert("127.0.0.1")),
    }
    trust = f'ca_certificate: {{file: "{pem}"}}, keep_alive: 0s, {HASTY}'
    plain = f'url: "http://127.0.0.1:{origin.port}"'
    return (
        {
            "origin": f"{plain}, {HASTY}, keep_alive: 0s",
            "patient": f"{plain}, {PATIENT}, keep_alive: 0s",
            "refusing": f'url: "http://127.0.0.1:{free_port()}", {HASTY}',
            "nameless": f'url: "http://nowhere.invalid", {HASTY}',
            "full": f'url: "http://127.0.0.1:{full}", {HASTY}',
            "silent": f'url: "https://127.0.0.1:{full}", {HASTY}',
            "plain": f'url: "https://127.0.0.1:{origin.listen(greeting=b"220 hello")}", {HASTY}',
            "selective": f'url: "https://127.0.0.1:{selective}", {trust}',
            "mute": f'url: "https://127.0.0.1:{origin.port}", {HASTY}',
        }
        | dict.fromkeys((*(f.name for f in FAULTS), *BROKEN), f"{plain}, {HASTY}, keep_alive: 0s")
        | {
            name: f'url: "https://127.0.0.1:{origin.listen(context)}", {trust}'
            for name, context in secured.items()
        }
    )


@pytest.fixture(scope="module")
def config(backends: dict[str, str]) -> str:
    limits = "{cpu: 2s, wall: 20s}"
    return config_of(puppet_service(backends, limits))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, config: str) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("edge"), config) as running:
        assert ask(running, Puppet().asking("none", "refusing").all("s")).status == 200  # warm
        yield running


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Around each test that uses the common server."""
    if "edge" not in request.fixturenames:
        yield
        return
    origin: Faulty = request.getfixturevalue("origin")
    with leaving_nothing(request.getfixturevalue("edge")):
        yield
        origin.wait_for_end()


# Failures before the head -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """What a backend does, and what is said of it."""

    name: str
    status: int  # of the hostcall
    tag: int  # of its error detail
    client: int  # what the client is answered
    cause: str  # in logs and metrics
    sends: tuple[bytes, ...] = ()
    backend: str = ""  # by default one of the fault's own: what the log says of each is rationed
    resets: bool = False
    where: str = "127.0.0.1"  # in the log line


FAULTS = [
    Fault("refuses", 1, 7, 502, "connection_refused", backend="refusing"),
    Fault("has-no-name", 1, 3, 502, "dns_error", backend="nameless", where="nowhere.invalid"),
    Fault("never-accepts", 1, 9, 504, "connection_timeout", backend="full"),
    Fault("never-accepts-tls", 1, 9, 504, "connection_timeout", backend="silent"),
    Fault("no-handshake", 1, 9, 504, "connection_timeout", backend="mute"),
    Fault("no-tls", 1, 24, 502, "tls_protocol_error", backend="plain"),
    Fault("expired", 1, 11, 502, "tls_certificate_error", backend="outdated"),
    Fault("wrong-name", 1, 11, 502, "tls_certificate_error", backend="misnamed"),
    Fault("stranger", 1, 11, 502, "tls_certificate_error", backend="unknown"),
    Fault("no-certificate", 1, 23, 502, "tls_alert_received", backend="selective"),
    Fault("resets", 9, 8, 502, "connection_terminated", resets=True),
    Fault("closes", 9, 8, 502, "connection_terminated"),
    Fault("resets-in-head", 9, 13, 502, "http_incomplete_response", (b"HTTP/1.1 20",), resets=True),
    Fault("stalls", 1, 16, 504, "http_response_timeout", (b"",)),
    Fault("stalls-in-head", 1, 16, 504, "http_response_timeout", (b"HTTP/1.1 20",)),
    Fault("two-lengths", 7, 19, 502, "http_protocol_error",
          (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",)),
    Fault("no-http", 7, 19, 502, "http_protocol_error", (b"SSH-2.0-x\r\n",)),
    Fault("no-status", 12, 17, 502, "http_response_status_invalid", (b"HTTP/1.1 20 x\r\n\r\n",)),
    Fault("huge-head", 11, 14, 502, "http_response_header_section_too_large",
          (OK + b"x: " + b"y" * 80_000,)),
    Fault("endless-hints", 11, 14, 502, "http_response_header_section_too_large",
          (b"HTTP/1.1 103 x\r\n\r\n" * 6000,)),
]  # fmt: skip


def _play(fault: Fault) -> Callable[[Peer, bytes], object]:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(*fault.sends)
        if fault.resets:
            peer.reset()
        elif fault.sends:
            await peer.gone()

    return script


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_failure_is_told_by_its_cause(edge: Server, origin: Faulty, fault: Fault) -> None:
    origin.on(fault.name, _play(fault))  # type: ignore[arg-type]
    backend = fault.backend or fault.name
    before = edge.metric("edge_backend_failures_total", cause=fault.cause)
    guest = ask(edge, Puppet().asking(fault.name, backend).all("s"))
    sent = last(guest.text, "s")
    assert (sent.status, sent.number) == (fault.status, fault.tag)
    line = failure_line(edge, backend)
    assert line["message"] == f"backend request failed: {fault.cause}"
    line = line["fields"]
    assert fault.where in line["detail"]
    assert (line["service"], len(line["request"])) == ("puppet", 32)

    client = ask(edge, Puppet().asking(fault.name, backend).all("ap"))
    assert (client.status, client.broken) == (fault.client, None)
    assert fault.cause in client.text
    failure_line(edge, backend)
    after = edge.metric("edge_backend_failures_total", cause=fault.cause)
    assert after - before == 2


def test_interim_responses_that_begin_again_and_again_buy_no_time(
    edge: Server, origin: Faulty
) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"H")
        while not peer.reader.at_eof():
            await peer.send(b"TTP/1.1 103 Early Hints\r\n\r\nH")
            await asyncio.sleep(0.1)

    origin.on("teases", script)
    sent = last(ask(edge, Puppet().asking("teases").all("s")).text, "s")
    assert (sent.status, sent.number) == (1, 16)


def test_tls_that_is_as_it_should_be_works(edge: Server, origin: Faulty) -> None:
    assert ask(edge, Puppet().asking("fine", "secure").all("ap")).body == b"ok"


# Bodies -----------------------------------------------------------------------------------------

BROKEN = {
    "resets-in-body": (OK + b"content-length: 9\r\n\r\nabcd", True, "within a response"),
    "closes-in-body": (OK + b"content-length: 9\r\n\r\nabcd", None, "within a response"),
    "closes-in-chunks": (CHUNKED + b"4\r\nabcd\r\n", None, "within a response"),
    "stalls-in-body": (OK + b"content-length: 9\r\n\r\nabcd", False, "no byte of a body for 0.3 s"),
    "stalls-in-chunk": (CHUNKED + b"9\r\nabcd", False, "no byte of a body for 0.3 s"),
    "bad-chunk": (CHUNKED + b"4\r\nabcd\r\n-1\r\n", False, "bad chunk size"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_breaks_off_is_visibly_no_whole_body(
    edge: Server, origin: Faulty, name: str
) -> None:
    data, ends, reason = BROKEN[name]
    if ends is False:
        origin.holds(name, data)
    else:
        origin.says(name, data, reset=bool(ends))
    read = last(ask(edge, Puppet().asking(name, name).all("sr")).text, "r")
    assert read.status == (1 if name == "bad-chunk" else 9)  # ERROR, HTTPINCOMPLETE
    line = failure_line(edge, name)["fields"]
    assert f"127.0.0.1:{origin.port}" in line["detail"]
    assert reason in line["detail"]
    for steps in ("ap", "sP"):  # without the guest, and by way of it
        client = ask(edge, Puppet().asking(name, name).all(steps))
        assert client.status == 200
        assert client.broken is not None
        failure_line(edge, name)


def test_a_body_longer_than_it_says_is_cut_there(edge: Server, origin: Faulty) -> None:
    origin.says("too-long", FINE + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    client = ask(edge, Puppet().asking("too-long").all("ap"))
    assert (client.status, client.body, client.broken) == (200, b"ok", None)


def test_a_body_that_drips_within_its_time_is_whole(edge: Server, origin: Faulty) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(OK + b"content-length: 20\r\n\r\n")
        for _ in range(20):
            await asyncio.sleep(0.03)  # more than the timeout in all
            await peer.send(b"x")

    origin.on("drips", script)
    client = ask(edge, Puppet().asking("drips").all("ap"))
    assert (client.body, client.broken) == (b"x" * 20, None)


@pytest.mark.parametrize("size", [1000, 100_000, 5_000_000])
@pytest.mark.parametrize("reset", [False, True])
def test_an_answer_that_comes_before_the_request_has_been_sent_is_passed_on(
    edge: Server, origin: Faulty, size: int, reset: bool
) -> None:
    origin.says("no", b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno", reset=reset)
    puppet = Puppet().do("c").do("u", "http://origin.test/no").do("b", "patient").all("ap")
    for _ in range(5):
        client = ask(edge, puppet, method="POST", body=b"x" * size)
        assert (client.status, client.body) == (413, b"no")


# Guests and clients that leave ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stall", "half", "half-chunked"])
@pytest.mark.parametrize("steps", ["ap", "sP", "sr"])
def test_the_connection_for_a_client_that_left_is_given_up(
    edge: Server, origin: Faulty, name: str, steps: str
) -> None:
    origin.holds("half", OK + b"content-length: 100\r\n\r\nhalf")
    origin.holds("half-chunked", CHUNKED + b"4\r\nhalf\r\n")
    before = origin.accepted
    fields = {"host": "edge.test", "x-script": Puppet().asking(name, "patient").all(steps).header()}
    clients = [http.client.HTTPConnection("127.0.0.1", edge.port) for _ in range(5)]
    for client in clients:
        client.request("GET", "/", None, fields)
    origin.wait_until(lambda: origin.accepted == before + 5, "not all were asked")
    for client in clients:
        client.close()
    origin.wait_for_end()


def test_an_upload_whose_client_leaves_is_unfinished_for_the_backend(
    edge: Server, origin: Faulty
) -> None:
    came: list[bytes] = []

    async def script(peer: Peer, head: bytes) -> None:
        came.append(await peer.reader.read())

    origin.on("takes", script)
    puppet = Puppet().do("c").do("u", "http://origin.test/takes").do("b", "patient").all("ap")
    head = f"POST / HTTP/1.1\r\nhost: edge.test\r\nx-script: {puppet.header()}\r\n"
    before = origin.accepted
    with socket.create_connection(("127.0.0.1", edge.port)) as client:
        client.sendall(head.encode() + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        origin.wait_until(lambda: origin.accepted > before, "it was not asked")
    origin.wait_for_end()
    assert not came or not came[0].endswith(b"0\r\n\r\n")


ENDS = {"e": 500, "l": 503}  # a bad exit, the CPU limit


@pytest.mark.parametrize("end", ENDS)
def test_what_a_guest_leaves_in_flight_is_given_up(edge: Server, origin: Faulty, end: str) -> None:
    before = origin.accepted
    puppet = Puppet()
    for _ in range(20):
        puppet.asking("stall", "patient").all("a")
    puppet.asking("fine", "patient").all("s")  # the others are under way when this is answered
    assert ask(edge, puppet.all(end)).status == ENDS[end]
    assert origin.accepted > before
    origin.wait_for_end()


def test_a_guest_at_its_wall_limit_gives_its_requests_up(
    tmp_path: Path, origin: Faulty, backends: dict[str, str]
) -> None:
    services = puppet_service(backends, "{cpu: 1s, wall: 300ms}")
    with server(tmp_path, config_of(services)) as running, leaving_nothing(running):
        for steps in ("s", "ay", "aI"):
            answer = ask(running, Puppet().asking("stall", "patient").all(steps))
            assert answer.status == 504
        origin.wait_for_end()


def test_a_streamed_upload_that_its_guest_leaves_is_unfinished(
    edge: Server, origin: Faulty
) -> None:
    came: list[bytes] = []

    async def script(peer: Peer, head: bytes) -> None:
        came.append(await peer.reader.read())

    origin.on("takes", script)
    for steps in ("X", "e"):
        puppet = Puppet().asking("takes", "patient").do("m", "POST").do("A").do("w", "hello")
        ask(edge, puppet.all(steps))
    origin.wait_for_end()
    assert all(not body.endswith(b"0\r\n\r\n") for body in came)

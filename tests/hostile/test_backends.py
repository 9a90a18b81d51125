"""Guests and backends that want more than their share: no leak, no way around the egress policy,
and memory has a bound.  What they write is in `test_backend_bytes.py`.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import TypeVar, cast

import pytest

from edge.dispatch.reports import LINES_PER_SECOND, Reports
from edge.errors import Failed, Incomplete
from edge.http.body import HIGH_WATER, Account, Body, Ledger
from edge.model.backend import Backend, Origin
from edge.upstream.client import Client
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamRequest
from edge.upstream.pool import PoolLimits
from tests.support.backends import backend, dialer, keep_silent, on_uvloop, peer
from tests.support.backends_h1 import Peer, answer, answering, failure, fetching, ok, read_all
from tests.support.faulty import (
    Faulty,
    Puppet,
    ask,
    faulty,
    last,
    leaving_nothing,
    puppet_service,
)
from tests.support.origins import free_port
from tests.support.procfs import MIB, forget_peak, resident, resident_peak
from tests.support.server import DEADLINE, Server, config_of, server
from tests.support.serving import run, until

T = TypeVar("T")


def served(test: T) -> T:
    """Marks a test that starts a server."""
    return cast("T", pytest.mark.process(pytest.mark.toolchain(test)))


OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"content-length: 2\r\n\r\nok"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

# Leaks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
def test_a_body_that_its_guest_announces_as_empty_is_not_held_for_ever(live: bool) -> None:
    async def main() -> None:
        async with fetching(answering(ok())) as f:
            body = Body(f.account, live=live)
            body.write(b"x" * 300_000)
            headers = [(b"content-length", b"0")]
            pending = f.send(b"POST", body, headers=headers, manual_framing=True)
            assert (await answer(pending)).status == 200
            body.write(b"y" * HIGH_WATER)
            assert not body.is_full, "a guest that writes on would wait for nobody"
            await until(lambda: f.ledger.held <= len(b"hello"))

    run(main())


def _holds_nothing(client: Client) -> bool:
    return not client.statistics().connections_open and not len(client.deadlines)


@on_uvloop
async def test_a_dial_that_is_given_up_at_any_moment_leaves_nothing() -> None:
    async with peer(keep_silent) as port, dialer() as network:
        for turns in range(12):
            client = Client(network)
            upstream = client.for_service("s")
            account = Account(Ledger(), 1 << 20)
            where = backend(f"http://127.0.0.1:{port}")
            pending = [
                upstream.send(UpstreamRequest(where, b"GET", b"/", [], Body(), account))
                for _ in range(5)
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for each in pending:
                each.abandon()
            await until(partial(_holds_nothing, client))


def test_names_that_guests_make_up_do_not_fill_the_log_or_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports = Reports(lambda: 1.0)
    failed = UpstreamFailed(Cause.DNS_ERROR, "no such name")
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            made = Backend(f"made-{number}", Origin(False, "a.test", 80), dynamic=True)
            reports.backend_failed("a", "1", "", made, failed)
        assert len(caplog.records) == LINES_PER_SECOND
        named = Backend("origin", Origin(False, "a.test", 80))
        reports.backend_failed("a", "1", "", named, failed)
        assert caplog.records[-1].__dict__["backend"] == "origin"
    assert len(reports._budgets) == 2


def test_one_service_may_not_have_all_of_few_connections() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async def main() -> None:
        async with fetching(script, limits=PoolLimits(open=8)) as f:
            own = [f.send() for _ in range(6)]
            assert (await failure(f.send())).cause is Cause.CONNECTION_LIMIT_REACHED
            f.upstream = f.client.for_service("another")
            others = [f.send() for _ in range(2)]
            await until(lambda: f.accepted == 8)
            for each in (*own, *others):
                each.abandon()

    run(main())


NO_GZIP = {
    "nonsense": (b"\x1f\x8bnonsense", Failed),
    "half of it": (gzip.compress(b"x" * 1000)[:20], Incomplete),
}


@pytest.mark.parametrize("name", NO_GZIP)
def test_a_body_that_is_not_the_gzip_it_says_is_told_of(name: str) -> None:
    data, expected = NO_GZIP[name]
    heard: list[UpstreamFailed] = []

    async def main() -> None:
        async with fetching(answering(ok(data, b"Content-Encoding: gzip"))) as f:
            pending = f.send(auto_decompress=True, on_broken=heard.append)
            with pytest.raises(expected):
                await read_all((await answer(pending)).body)

    run(main())
    assert [each.cause for each in heard] == [Cause.HTTP_PROTOCOL_ERROR]
    assert "backend origin (127.0.0.1:" in str(heard[0])


# The whole server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin() -> Iterator[Faulty]:
    with faulty() as running:
        running.says("fine", FINE)
        yield running


def _config(origin: Faulty, more: str, *, listen: str = "127.0.0.1:0") -> str:
    url = f'url: "http://127.0.0.1:{origin.port}"'
    service = puppet_service(
        {"origin": f"{url}, keep_alive: 0s"}, "{cpu: 5s, wall: 20s, subrequests: 200}"
    )
    return config_of(service, more=more).replace('"127.0.0.1:0"', f'"{listen}"', 1)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, origin: Faulty) -> Iterator[Server]:
    """Guests may make backends for every public address."""
    config = _config(origin, 'egress: {allow: ["*"]}\n')
    with server(tmp_path_factory.mktemp("edge"), config) as running:
        assert ask(running, Puppet().asking("fine").all("s")).status == 200
        yield running


@pytest.fixture(scope="module")
def open_edge(tmp_path_factory: pytest.TempPathFactory, origin: Faulty) -> Iterator[Server]:
    """Guests may make backends for every address at all; listens everywhere."""
    config = _config(
        origin,
        'egress: {allow: ["*"], private_networks: true}\n',
        listen=f"0.0.0.0:{free_port()}",
    )
    with server(tmp_path_factory.mktemp("open"), config) as running:
        yield running


# Egress -----------------------------------------------------------------------------------------

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.0.1.", "127.0.0.2", "0x7f.1", "2130706433", "017700000001",
    "0177.0.0.1", "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1",
]  # fmt: skip
NO_HOSTS = [
    "[fe80::1%25lo]", "[fe80::1%lo]", "%31%32%37.0.0.1", "127\u30020\u30020\u30021",
    "\uff11\uff12\uff17.0.0.1",
    "127.0.0.1%00.example.com", "user@127.0.0.1", "127.0.0.1#.example.com", "127.0.0.1/x",
    "127.0.0.1\r\nx: y", " 127.0.0.1",
]  # fmt: skip


def _made(running: Server, target: str) -> str:
    puppet = Puppet().do("q").do("u", "http://any.test/fine").do("R", "made", target)
    return ask(running, puppet.do("b", "made").all("s")).text


@served
@pytest.mark.parametrize("host", LOOPBACK)
def test_no_spelling_of_a_private_address_leads_there(
    edge: Server, origin: Faulty, host: str
) -> None:
    before = origin.accepted
    sent = last(_made(edge, f"{host}:{origin.port}"), "s")
    assert (sent.status, sent.number) == (1, 6)  # ERROR, destination IP unroutable
    assert origin.accepted == before


@served
@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_makes_no_backend(edge: Server, origin: Faulty, host: str) -> None:
    text = _made(edge, f"{host}:{origin.port}")
    assert last(text, "R").status == 2  # INVAL
    assert last(text, "s").status == 2


@served
def test_our_own_listeners_are_closed_to_guests_whatever_is_allowed(
    open_edge: Server, origin: Faulty
) -> None:
    assert last(_made(open_edge, f"127.0.0.1:{origin.port}"), "s").status == 0  # it is open
    hosts = [host for host in LOOPBACK if not host.startswith(("[64", "[2002", "[::ff", "1"))]
    before = open_edge.metric("edge_request_outcome_total")
    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.2", socket.gethostname(), *hosts):
        sent = last(_made(open_edge, f"{host}:{open_edge.port}"), "s")
        assert (host, sent.status, sent.number) == (host, 1, 6)
    asked = 4 + len(hosts)
    assert open_edge.metric("edge_request_outcome_total") - before == asked, "ours, and no other"
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"):
        sent = last(_made(open_edge, f"{host}:{open_edge.admin_port}"), "s")
        assert (host, sent.status, sent.number) == (host, 1, 6)


@served
def test_a_redirect_is_an_answer_and_nobody_follows_it(edge: Server, origin: Faulty) -> None:
    where = f"http://127.0.0.1:{edge.admin_port}/v1/status".encode()
    origin.says("moved", b"HTTP/1.1 302 x\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % where)
    assert last(ask(edge, Puppet().asking("moved").all("sg")).text, "g").number == 302


# Memory -----------------------------------------------------------------------------------------


@served
def test_responses_that_nobody_reads_hold_little(edge: Server, origin: Faulty) -> None:
    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(CHUNKED)
        while True:  # until nobody takes any more of it
            await peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    origin.on("flood", script)
    (pid,) = edge.worker_pids()
    with leaving_nothing(edge):
        puppet = Puppet()
        for _ in range(32):
            puppet.asking("flood").all("s")
        before = resident(pid)
        forget_peak(pid)
        assert last(ask(edge, puppet.all("g")).text, "g").number == 200
        origin.wait_for_end()
    assert resident_peak(pid) - before <= 48 * MIB


@served
def test_a_gzip_bomb_inflates_no_faster_than_it_is_read(edge: Server, origin: Faulty) -> None:
    size = 200 * MIB
    bomb = gzip.compress(bytes(size), 1)
    origin.says(
        "bomb", OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb), bomb
    )
    (pid,) = edge.worker_pids()
    with leaving_nothing(edge):
        before = resident(pid)
        forget_peak(pid)
        read = Puppet().asking("bomb").all("zsr")
        assert last(ask(edge, read).text, "r").number == size
        unread = Puppet()
        for _ in range(32):
            unread.asking("bomb").all("zs")
        assert last(ask(edge, unread.all("g")).text, "g").number == 200
        origin.wait_for_end()
    assert resident_peak(pid) - before <= 48 * MIB


@served
def test_waiting_for_one_request_ten_thousand_times_stops_nobody(
    edge: Server, origin: Faulty
) -> None:
    gate = origin.gate()

    async def script(peer: Peer, head: bytes) -> None:
        await gate.wait()
        await peer.send(FINE)

    origin.on("late", script)
    with leaving_nothing(edge):
        before = origin.accepted
        puppet = Puppet().asking("late").all("a").do("S", "10000")
        with socket.create_connection(("127.0.0.1", edge.port), timeout=DEADLINE) as client:
            head = f"GET / HTTP/1.1\r\nhost: edge.test\r\nx-script: {puppet.header()}\r\n"
            client.sendall(head.encode() + b"connection: close\r\n\r\n")
            origin.wait_until(lambda: origin.accepted > before, "it was not asked")
            assert ask(edge, Puppet().asking("fine").all("ap")).body == b"ok"
            gate.open()
            found = b""
            while data := client.recv(65536):
                found += data
        assert b"S=0:1 " in found

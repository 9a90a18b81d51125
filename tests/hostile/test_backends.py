"""Hostile backends, and guests that are hostile to backends: nobody's bytes become another's, no
way around the egress policy, and memory has a bound.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import socket
from collections.abc import Iterator

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
    told,
)
from tests.support.origins import free_port
from tests.support.procfs import MIB, forget_peak, resident, resident_peak
from tests.support.server import DEADLINE, Server, config_of, server
from tests.support.serving import run, until

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
            await until(lambda client=client: not client.statistics().connections_open)
            await until(lambda client=client: not len(client.deadlines))


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
        running.says("", FINE)
        yield running


def _config(origin: Faulty, more: str, *, listen: str = "127.0.0.1:0") -> str:
    url = f'url: "http://127.0.0.1:{origin.port}"'
    backends = {"origin": f"{url}, keep_alive: 0s", "kept": url}
    service = puppet_service(backends, "{cpu: 5s, wall: 20s, subrequests: 200}")
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


OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"content-length: 2\r\n\r\nok"

# Egress -----------------------------------------------------------------------------------------

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.0.1.", "127.0.0.2", "0x7f.1", "2130706433", "017700000001",
    "0177.0.0.1", "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1",
]  # fmt: skip
NO_HOSTS = [
    "[fe80::1%25lo]", "[fe80::1%lo]", "%31%32%37.0.0.1", "１２７.0.0.1", "127。0。0。1",
    "127.0.0.1%00.example.com", "user@127.0.0.1", "127.0.0.1#.example.com", "127.0.0.1/x",
    "127.0.0.1\r\nx: y", " 127.0.0.1",
]  # fmt: skip


def _made(running: Server, target: str) -> str:
    puppet = Puppet().do("q").do("u", "http://any.test/fine").do("R", "made", target)
    return ask(running, puppet.do("b", "made").all("s")).text


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("host", LOOPBACK)
def test_no_spelling_of_a_private_address_leads_there(
    edge: Server, origin: Faulty, host: str
) -> None:
    before = origin.accepted
    sent = last(_made(edge, f"{host}:{origin.port}"), "s")
    assert (sent.status, sent.number) == (1, 6)  # ERROR, destination IP unroutable
    assert origin.accepted == before


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_makes_no_backend(edge: Server, origin: Faulty, host: str) -> None:
    text = _made(edge, f"{host}:{origin.port}")
    assert last(text, "R").status == 2  # INVAL
    assert last(text, "s").status == 2


@pytest.mark.process
@pytest.mark.toolchain
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


@pytest.mark.process
@pytest.mark.toolchain
def test_a_redirect_is_an_answer_and_nobody_follows_it(edge: Server, origin: Faulty) -> None:
    where = f"http://127.0.0.1:{edge.admin_port}/v1/status".encode()
    origin.says("moved", b"HTTP/1.1 302 x\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % where)
    assert last(ask(edge, Puppet().asking("moved").all("sg")).text, "g").number == 302


# Requests ---------------------------------------------------------------------------------------

EVIL = "GET /evil HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def seen(origin: Faulty) -> list[bytes]:
    """What a backend has read of each connection to `/seen` after which it was quiet."""
    found: list[bytes] = []

    async def script(peer: Peer, head: bytes) -> None:
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        rest = b""
        try:
            async with asyncio.timeout(0.1):
                while data := await peer.reader.read(65536):
                    rest += data
        except TimeoutError:
            pass  # there is no more
        found.append(head + rest)
        await peer.send(FINE)

    origin.on("seen", script)
    return found


FRAMINGS = {
    "both": ([("h", "content-length", "3"), ("h", "transfer-encoding", "chunked")], 6),
    "longer": ([("h", "content-length", "3")], 3),
    "none": ([("h", "content-length", "0")], 0),
    "signed": ([("h", "content-length", "+3")], 6),
    "listed": ([("h", "content-length", "3, 3")], 6),
    "twice": ([("h", "content-length", "3"), ("h", "content-length", "4")], 6),
    "chunked twice": ([("h", "transfer-encoding", "chunked")] * 2, 6),
    "another coding": ([("h", "transfer-encoding", "xchunked")], 6),
    "not a name of ours": ([("h", "transfer_encoding", "chunked")], 6),
    "connection": ([("h", "content-length", "3"), ("h", "connection", "content-length")], 3),
}


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.parametrize("manual", [True, False])
def test_a_guests_framing_never_leaves_bytes_for_another_request(
    edge: Server, seen: list[bytes], name: str, manual: bool
) -> None:
    fields, size = FRAMINGS[name]
    puppet = Puppet().asking("seen").do("m", "POST")
    if manual:
        puppet.do("f")
    for field in fields:
        puppet.do(*field)
    body = "abcdef" if manual and size == 6 else "abc" + EVIL
    sent = body[:size] if manual else body
    assert last(ask(edge, puppet.do("w", body).all("s")).text, "s").status == 0
    (raw,) = seen
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert re.findall(rb"(?im)^(content-length|transfer-encoding): ?(.*?)\r?$", head) == [
        (b"content-length", str(len(sent)).encode())
    ]
    assert rest == sent.encode()


@pytest.mark.process
@pytest.mark.toolchain
def test_chunks_of_a_guest_are_chunks_whatever_is_in_them(edge: Server, seen: list[bytes]) -> None:
    puppet = Puppet().asking("seen").do("m", "POST").do("f")
    puppet.do("h", "transfer-encoding", "chunked").do("w", "0\r\n\r\n" + EVIL)
    puppet.do("t", "content-length", "9").do("t", "host", "b").do("t", "x-t", "1")
    assert last(ask(edge, puppet.all("s")).text, "s").status == 0
    (raw,) = seen
    size = b"%x" % len("0\r\n\r\n" + EVIL)
    whole = size + b"\r\n0\r\n\r\n" + EVIL.encode() + b"\r\n0\r\nx-t: 1\r\n\r\n"
    assert raw.partition(b"\r\n\r\n")[2] == whole


REFUSED_AT_ONCE = [  # by the call that sets them
    ("h", "x", "a\r\nb: c"), ("h", "x", "a\nb"), ("h", "x", "a\0b"), ("h", "x", "a\r b"),
    ("h", "x\r\n", "a"), ("h", " x", "a"), ("h", "x ", "a"), ("h", "x:", "a"), ("h", "", "a"),
    ("h", "host", "a\r\n"), ("m", ""), ("m", "GET /x HTTP/1.1\r\n"), ("m", "GET\t"), ("m", "G\0T"),
    ("u", "/seen HTTP/1.1\r\nx: y"), ("u", "http://a.test/seen\r\n"), ("u", "http://a.test/a b"),
    ("u", "http://a.test/\0seen"), ("u", "http:///seen"), ("u", ""),
]  # fmt: skip
REFUSED_WHEN_SENT = [
    ("h", "host", "a b"), ("h", "host", ""), ("h", "host", "a/b"), ("h", "host", "a@b"),
    ("u", "http://u:p@a.test/seen"), ("u", "http://a.test\\@b/seen"), ("u", "seen"), ("u", "*"),
    ("u", "ftp://a.test/seen"), ("m", "CONNECT"),
]  # fmt: skip


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("step", REFUSED_AT_ONCE)
def test_nothing_in_a_head_can_end_its_line(
    edge: Server, seen: list[bytes], step: tuple[str, ...]
) -> None:
    text = ask(edge, Puppet().asking("seen").do(*step).all("s")).text
    assert told(text)[3].status == 1
    assert last(text, "s").status == 0  # as if nothing had been said
    (raw,) = seen
    assert raw.split(b"\r\n")[:2] == [b"GET /seen HTTP/1.1", b"host: origin.test"]
    assert raw.count(b"\r\n") == 4


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("step", REFUSED_WHEN_SENT)
def test_what_two_servers_could_read_differently_is_not_sent(
    edge: Server, seen: list[bytes], step: tuple[str, ...]
) -> None:
    sent = last(ask(edge, Puppet().asking("seen").do(*step).all("s")).text, "s")
    assert (sent.status, sent.number) == (8, 21)  # HTTPUSER, request URI invalid
    assert seen == []


@pytest.mark.process
@pytest.mark.toolchain
def test_fields_of_one_hop_and_second_hosts_stop_here(edge: Server, seen: list[bytes]) -> None:
    puppet = Puppet().asking("seen").do("h", "host", "a.test").do("h", "host", "b.test")
    for name in ("upgrade", "expect", "keep-alive", "proxy-connection", "x-hop"):
        puppet.do("h", name, "100-continue")
    puppet.do("h", "connection", "x-hop, host, close")
    assert last(ask(edge, puppet.all("s")).text, "s").status == 0
    (raw,) = seen
    names = [line.partition(b":")[0] for line in raw.split(b"\r\n")[1:-2]]
    assert names == [b"host", b"cdn-loop"]
    assert b"a.test" in raw


# Responses --------------------------------------------------------------------------------------

NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
SPLITTING = {
    "bare CR": OK + b"x: a\rset-cookie: b\r\n\r\n",
    "bare LF": OK + b"x: a\nset-cookie: b\r\n\r\n",
    "NUL": OK + b"x: a\0\r\n\r\n",
    "folded": OK + b"x: a\r\n set-cookie: b\r\n\r\n",
    "lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nokk",
    "list": OK + b"content-length: 2, 2\r\n\r\nok",
    "both": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding": OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "101": b"HTTP/1.1 101 x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + NEXT,
    "too long": OK + b"content-length: 99999999999999999999\r\n\r\n",
}
CUT = {
    "extension with CR": CHUNKED + b"2;a\rb\r\nok\r\n0\r\n\r\n",
    "extension with LF": CHUNKED + b"2;a\nb\r\nok\r\n0\r\n\r\n",
    "negative": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "huge": CHUNKED + b"fffffffffffffffff\r\nok",
    "no CRLF": CHUNKED + b"2\r\nokX0\r\n\r\n",
    "trailer with CR": CHUNKED + b"2\r\nok\r\n0\r\nx: a\rset-cookie: b\r\n\r\n",
}
WHOLE = {
    "length": FINE + NEXT,
    "chunks": CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + NEXT,
    "204": b"HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n" + NEXT,
    "304": b"HTTP/1.1 304 x\r\ncontent-length: 9\r\n\r\n" + NEXT,
    "1.0": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok" + NEXT,
    "reason": b"HTTP/1.1 200 a\x80\tb\r\ncontent-length: 2\r\n\r\nok",
    "ours": OK + b"x-edge-outcome: forged\r\nconnection: x-hop\r\nx-hop: evil\r\n"
    b"content-length: 2\r\n\r\nok",
    "trailers": CHUNKED + b"2\r\nok\r\n0\r\ncontent-length: 99\r\nset-cookie: evil\r\n\r\n",
}


def _raw(running: Server, name: str) -> bytes:
    """All that a client reads, on a connection that it would use again."""
    puppet = Puppet().asking(name, "kept").all("ap")
    head = f"GET / HTTP/1.1\r\nhost: edge.test\r\nx-script: {puppet.header()}\r\n"
    found = b""
    with socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE) as client:
        client.sendall(head.encode() + b"connection: close\r\n\r\n")
        try:
            while data := client.recv(65536):
                found += data
        except ConnectionResetError:
            found += b"(reset)"
    return found


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("name", SPLITTING)
def test_a_head_that_would_split_the_response_is_refused(
    edge: Server, origin: Faulty, name: str
) -> None:
    origin.holds("split", SPLITTING[name])
    raw = _raw(edge, "split")
    assert raw.startswith(b"HTTP/1.1 502 ")
    assert raw.endswith(b"\r\n\r\nThe backend did not answer: http_protocol_error\n")
    assert b"set-cookie" not in raw
    origin.wait_for_end()


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("name", CUT)
def test_a_body_with_broken_chunks_never_looks_whole(
    edge: Server, origin: Faulty, name: str
) -> None:
    origin.holds("cut", CUT[name])
    raw = _raw(edge, "cut")
    assert raw.endswith(b"(reset)")
    assert b"\r\n0\r\n" not in raw
    assert b"set-cookie" not in raw
    origin.wait_for_end()


@pytest.mark.process
@pytest.mark.toolchain
@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_a_response_reach_nobody(edge: Server, origin: Faulty, name: str) -> None:
    origin.holds("whole", WHOLE[name])
    raw = _raw(edge, "whole")
    assert raw.count(b"HTTP/1.1 ") == 1
    assert b"evil" not in raw
    assert b"forged" not in raw
    assert not raw.endswith(b"(reset)")
    puppet = Puppet().asking("fine", "kept").all("sr")  # not on a connection with leftovers
    if name not in ("reason", "ours", "trailers"):
        assert last(ask(edge, puppet).text, "r").number == 2


# Memory -----------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.toolchain
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


@pytest.mark.process
@pytest.mark.toolchain
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


@pytest.mark.process
@pytest.mark.toolchain
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

"""Smuggling and splitting by way of backends: what a guest writes never becomes another request,
and what a backend writes never becomes another response.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.backends_h1 import Peer
from tests.support.faulty import Faulty, Puppet, ask, faulty, last, puppet_service, told
from tests.support.server import DEADLINE, Server, config_of, server

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

OK = b"HTTP/1.1 200 OK\r\n"
FINE = OK + b"content-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def origin() -> Iterator[Faulty]:
    with faulty() as running:
        running.says("fine", FINE)
        yield running


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, origin: Faulty) -> Iterator[Server]:
    url = f'url: "http://127.0.0.1:{origin.port}"'
    services = puppet_service({"origin": f"{url}, keep_alive: 0s", "kept": url})
    with server(tmp_path_factory.mktemp("edge"), config_of(services)) as running:
        yield running


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


@pytest.mark.parametrize("step", REFUSED_WHEN_SENT)
def test_what_two_servers_could_read_differently_is_not_sent(
    edge: Server, seen: list[bytes], step: tuple[str, ...]
) -> None:
    sent = last(ask(edge, Puppet().asking("seen").do(*step).all("s")).text, "s")
    assert (sent.status, sent.number) == (8, 21)  # HTTPUSER, request URI invalid
    assert seen == []


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


def _raw(running: Server, name: str, backend: str = "kept") -> bytes:
    """All that a client reads, on a connection that it would use again."""
    puppet = Puppet().asking(name, backend).all("ap")
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


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_a_response_reach_nobody(edge: Server, origin: Faulty, name: str) -> None:
    origin.holds("whole", WHOLE[name])
    leaves = name not in ("reason", "ours", "trailers")  # something for the next request to find
    raw = _raw(edge, "whole", "kept" if leaves else "origin")
    assert raw.count(b"HTTP/1.1 ") == 1
    assert b"evil" not in raw
    assert b"forged" not in raw
    assert not raw.endswith(b"(reset)")
    puppet = Puppet().asking("fine", "kept").all("sr")  # not on a connection with leftovers
    if leaves:
        assert last(ask(edge, puppet).text, "r").number == 2

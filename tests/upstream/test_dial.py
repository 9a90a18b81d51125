"""Connections over real sockets: which address, in what time, where guests may go, what fails."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from edge.settings import Egress, EgressRule
from edge.upstream import dial
from edge.upstream.dial import in_order
from edge.upstream.fetch import Cause, UpstreamFailed
from tests.support.backends import (
    Listening,
    backend,
    dialer,
    greet,
    in_time,
    keep_silent,
    nothing_left,
    on_uvloop,
    peer,
    refused,
)
from tests.support.serving import until

OPEN = Egress((EgressRule("*"),), private_networks=True)


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A port whose connections are never taken: the kernel's queue for them is full."""
    with socket.socket() as listener, socket.socket() as filler, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for client in (filler, second):
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port


@on_uvloop
async def test_a_plain_connection_carries_bytes_both_ways() -> None:
    async with nothing_left(), peer(greet) as port, dialer() as network:
        protocol = Listening()
        made = await network.dial(backend(f"http://127.0.0.1:{port}"), protocol.make, in_time())
        assert made.protocol is protocol
        assert (made.address, made.port, made.alpn) == (bytes((127, 0, 0, 1)), port, None)
        made.transport.write(b" again")
        await until(lambda: protocol.received == b"hello again")
        made.transport.close()
        assert await protocol.lost is None


@on_uvloop
async def test_sockets_send_at_once_and_ask_after_silent_peers_as_told() -> None:
    async with peer(greet) as port, dialer() as network:
        made = await network.dial(
            backend(
                f"http://127.0.0.1:{port}",
                tcp_keep_alive=30.5,
                tcp_keep_alive_interval=7.0,
                tcp_keep_alive_probes=1000,
            ),
            Listening().make,
            in_time(),
        )
        sock = made.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 31
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 127
        made.transport.abort()


# Which address -----------------------------------------------------------------------------


@on_uvloop
async def test_an_address_that_is_silent_is_raced_by_the_next() -> None:
    def lookup(name: str) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    async with nothing_left(), deaf() as port, peer(greet, host="127.0.0.2", port=port):
        async with dialer(lookup=lookup) as network:
            made = await network.dial(
                backend(f"http://two.example:{port}"), Listening().make, in_time()
            )
        assert made.address == bytes((127, 0, 0, 2))
        assert not [task for task in asyncio.all_tasks() if "_connect" in repr(task)]
        made.transport.abort()


@on_uvloop
async def test_an_address_that_refuses_gives_way_to_the_next_at_once() -> None:
    async with nothing_left(), peer(greet, host="127.0.0.9") as port:
        addresses = [f"127.0.0.{i}" for i in range(3, 10)]
        async with dialer(lookup=lambda name: addresses) as network:
            before = asyncio.get_running_loop().time()
            made = await network.dial(
                backend(f"http://many.example:{port}"), Listening().make, in_time()
            )
            assert made.address == bytes((127, 0, 0, 9))
            assert asyncio.get_running_loop().time() - before < dial.STAGGER
            made.transport.abort()


@on_uvloop
async def test_when_all_refuse_the_failure_says_so_and_nothing_is_left() -> None:
    async with nothing_left():
        failure = await refused(
            url="http://many.example:9", lookup=lambda name: ["ff02::1", "127.0.0.1", "127.0.0.2"]
        )
        assert failure.cause is Cause.CONNECTION_REFUSED
        assert "127.0.0.1 port 9" in str(failure)


@on_uvloop
async def test_a_dial_that_is_given_up_leaves_nothing() -> None:
    addresses = ["127.0.0.1", "127.0.0.1", "127.0.0.1"]
    async with nothing_left(), deaf() as port, dialer(lookup=lambda name: addresses) as network:
        for url in (f"http://three.example:{port}", f"https://127.0.0.1:{port}"):
            dialing = asyncio.ensure_future(
                network.dial(backend(url, verify=False), Listening().make, in_time())
            )
            await asyncio.wait((dialing,), timeout=0.05)
            dialing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialing


def test_families_take_turns_unless_ipv4_is_preferred() -> None:
    found = [ip_address(text) for text in ("::1", "::2", "::3", "1.1.1.1", "1.1.1.2")]
    assert [str(a) for a in in_order(found, ipv4=False)] == [
        "::1",
        "1.1.1.1",
        "::2",
        "1.1.1.2",
        "::3",
    ]
    assert [str(a) for a in in_order(found, ipv4=True)] == [
        "1.1.1.1",
        "1.1.1.2",
        "::1",
        "::2",
        "::3",
    ]
    assert in_order([], ipv4=False) == []
    assert len(in_order([ip_address(i) for i in range(50)], ipv4=False)) == dial.MAX_ATTEMPTS


# What goes wrong ---------------------------------------------------------------------------


@on_uvloop
async def test_a_port_where_nobody_listens_is_connection_refused() -> None:
    failure = await refused(url="http://127.0.0.1:9")
    assert failure.cause is Cause.CONNECTION_REFUSED
    assert "origin" in str(failure)
    assert "127.0.0.1 port 9" in str(failure)


@on_uvloop
async def test_an_address_without_a_way_there_is_unroutable() -> None:
    failure = await refused(url="http://255.255.255.255:80")
    assert failure.cause is Cause.DESTINATION_IP_UNROUTABLE


@on_uvloop
async def test_a_silent_address_is_a_connection_timeout() -> None:
    async with nothing_left(), deaf() as port:
        failure = await refused(url=f"http://127.0.0.1:{port}", seconds=0.05)
        assert failure.cause is Cause.CONNECTION_TIMEOUT
        assert failure.setting == "connect_timeout"
        assert "TCP" in str(failure)


@on_uvloop
async def test_a_silent_name_server_is_a_dns_timeout() -> None:
    release = threading.Event()

    def lookup(name: str) -> list[str]:
        release.wait(10)
        return []

    failure = await refused(url="http://silent.example:80", lookup=lookup, seconds=0.05)
    release.set()
    assert failure.cause is Cause.DNS_TIMEOUT


@on_uvloop
async def test_a_server_that_never_shakes_hands_is_a_connection_timeout() -> None:
    async with nothing_left(), peer(keep_silent) as port:
        failure = await refused(url=f"https://127.0.0.1:{port}", verify=False, seconds=0.1)
        assert failure.cause is Cause.CONNECTION_TIMEOUT
        assert "TLS" in str(failure)


@on_uvloop
async def test_a_deadline_in_the_past_is_a_timeout_at_once() -> None:
    failure = await refused(url="http://127.0.0.1:9", seconds=-1.0)
    assert failure.cause in (Cause.DNS_TIMEOUT, Cause.CONNECTION_TIMEOUT, Cause.CONNECTION_REFUSED)


@on_uvloop
async def test_out_of_descriptors_is_a_limit_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_options(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(dial, "_set_options", no_options)
    failure = await refused(url="http://127.0.0.1:9")
    assert failure.cause is Cause.CONNECTION_LIMIT_REACHED


# Egress ------------------------------------------------------------------------------------


@on_uvloop
async def test_a_guests_backend_is_not_even_looked_up_without_a_rule() -> None:
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return []

    failure = await refused(url="http://a.example:80", dynamic=True, lookup=lookup)
    assert failure.cause is Cause.DESTINATION_IP_UNROUTABLE
    assert failure.setting == "egress.allow"
    assert not asked


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0"]
)
@on_uvloop
async def test_a_guests_backend_at_loopback_is_refused_however_it_is_spelt(spelling: str) -> None:
    async with peer(greet) as port:
        rule = Egress((EgressRule("*"),))
        failure = await refused(rule, url=f"http://{spelling}:{port}", dynamic=True)
        assert failure.setting == "egress.private_networks"


@on_uvloop
async def test_a_name_that_changes_its_address_is_connected_where_it_was_checked() -> None:
    # DNS rebinding: the second answer would be the one that was not checked.
    answers = [["127.0.0.1"], ["127.0.0.9"]]

    async with peer(greet) as port, dialer(OPEN, lookup=lambda name: answers.pop(0)) as network:
        made = await network.dial(
            backend(f"http://turncoat.example:{port}", dynamic=True), Listening().make, in_time()
        )
        assert made.address == bytes((127, 0, 0, 1))
        assert len(answers) == 1, "the name was looked up twice"
        made.transport.abort()


@on_uvloop
async def test_our_own_listener_is_refused_to_guests_and_open_to_the_operator() -> None:
    async with peer(greet) as port, dialer(OPEN, listeners=(("0.0.0.0", port),)) as network:
        url = f"http://localhost:{port}"
        with pytest.raises(UpstreamFailed, match="this server itself"):
            await network.dial(backend(url, dynamic=True), Listening().make, in_time())
        made = await network.dial(backend(f"http://127.0.0.1:{port}"), Listening().make, in_time())
        made.transport.abort()

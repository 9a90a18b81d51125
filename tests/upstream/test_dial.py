"""Connections over real sockets: which address, in what time, which TLS, and what goes wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
import trustme

from edge.model.backend import ClientCertificate, TlsVersion
from edge.model.secret import Secret
from edge.settings import Egress, EgressRule
from edge.upstream import dial
from edge.upstream.dial import in_order
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.resolve import Lookup, system_lookup
from tests.support.backends import (
    Listening,
    authority_pem,
    backend,
    dialer,
    greet,
    handshakes,
    identity,
    keep_silent,
    on_uvloop,
    peer,
    server_context,
)
from tests.support.serving import until

SOON = 5.0
OPEN = Egress((EgressRule("*"),), private_networks=True)


def in_time(seconds: float = SOON) -> float:
    return asyncio.get_running_loop().time() + seconds


def sockets() -> set[str]:
    """The sockets of this process (an event loop opens other descriptors when it likes)."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("socket:")}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No socket and no task that was not there before, when all is closed."""
    before, tasks = sockets(), asyncio.all_tasks()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: sockets() <= before)


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


async def refused(
    egress: Egress | None = None,
    *,
    seconds: float = SOON,
    lookup: Lookup = system_lookup,
    **settings: Any,
) -> UpstreamFailed:
    """The failure of one dial."""
    async with dialer(egress, lookup=lookup) as network:
        protocol = Listening()
        with pytest.raises(UpstreamFailed) as caught:
            await network.dial(backend(**settings), protocol.make, in_time(seconds))
        assert protocol.transport is None, "the protocol saw a connection that was refused"
    return caught.value


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


# TLS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls_with_a_private_authority_carries_bytes_both_ways(loop: str) -> None:
    async def main() -> None:
        context = server_context("a.example")
        async with nothing_left(), peer(greet, context=context) as port, dialer() as network:
            protocol = Listening()
            made = await network.dial(
                backend(
                    f"https://127.0.0.1:{port}",
                    cert_host="a.example",
                    ca_certificate=authority_pem(),
                ),
                protocol.make,
                in_time(),
            )
            assert protocol.alpn == made.alpn == "http/1.1"
            made.transport.write(b" again")
            await until(lambda: protocol.received == b"hello again")
            made.transport.abort()
            await protocol.lost

    on_uvloop(main)() if loop == "uvloop" else asyncio.run(main())


@pytest.mark.parametrize(
    ("offered", "settings", "agreed"),
    [
        (("h2", "http/1.1"), {}, "http/1.1"),
        (("h2", "http/1.1"), {"http2": True}, "h2"),
        (("http/1.1",), {"http2": True}, "http/1.1"),
        (("h2",), {"grpc": True}, "h2"),
        ((), {}, None),
    ],
)
@on_uvloop
async def test_the_protocol_that_both_know_is_agreed_on(
    offered: tuple[str, ...], settings: dict[str, Any], agreed: str | None
) -> None:
    context = server_context("127.0.0.1", alpn=offered)
    async with peer(greet, context=context) as port, dialer() as network:
        protocol = Listening()
        url = f"https://127.0.0.1:{port}"
        made = await network.dial(
            backend(url, ca_certificate=authority_pem(), **settings), protocol.make, in_time()
        )
        assert (made.alpn, protocol.alpn) == (agreed, agreed)
        made.transport.abort()


@on_uvloop
async def test_a_server_that_will_not_speak_http2_cannot_serve_grpc() -> None:
    async with nothing_left(), peer(greet, context=server_context("127.0.0.1", alpn=())) as port:
        failure = await refused(
            url=f"https://127.0.0.1:{port}", ca_certificate=authority_pem(), grpc=True
        )
        assert failure.cause is Cause.TLS_PROTOCOL_ERROR
        assert "HTTP/2" in str(failure)


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, "localhost"),
        ({"cert_host": "b.example"}, "b.example"),
        ({"cert_host": "b.example", "sni_host": "c.example"}, "c.example"),
        ({"use_sni": False}, None),
    ],
)
@on_uvloop
async def test_the_name_sent_is_the_one_that_was_set(
    settings: dict[str, Any], sent: str | None
) -> None:
    context = server_context("localhost", "b.example")
    seen: list[str | None] = []
    context.sni_callback = lambda peer, name, own: seen.append(name)
    async with peer(greet, context=context) as port, dialer() as network:
        made = await network.dial(
            backend(f"https://localhost:{port}", ca_certificate=authority_pem(), **settings),
            Listening().make,
            in_time(),
        )
        assert seen == [sent]
        made.transport.abort()


@on_uvloop
async def test_a_certificate_for_another_name_is_refused_before_a_byte_is_sent() -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append(await reader.read(100))
        except OSError:
            heard.append(b"")

    context = server_context("other.example")
    async with nothing_left(), peer(listen, context=context) as port:
        failure = await refused(
            url=f"https://127.0.0.1:{port}",
            ca_certificate=authority_pem(),
            cert_host="mine.example",
            sni_host="other.example",
        )
    assert failure.cause is Cause.TLS_CERTIFICATE_ERROR
    assert "other.example" in str(failure)
    assert "mine.example" in str(failure)
    assert not any(heard)


@on_uvloop
async def test_an_authority_that_is_not_trusted_is_a_certificate_error() -> None:
    stranger = trustme.CA().cert_pem.bytes().decode()
    async with nothing_left(), peer(greet, context=server_context("127.0.0.1")) as port:
        for trusted in (stranger, None):
            failure = await refused(url=f"https://127.0.0.1:{port}", ca_certificate=trusted)
            assert failure.cause is Cause.TLS_CERTIFICATE_ERROR
            assert "not trusted" in str(failure)


@on_uvloop
async def test_an_expired_certificate_is_a_certificate_error() -> None:
    leaf = trustme.CA()
    expired = leaf.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expired.configure_cert(context)
    async with peer(greet, context=context) as port:
        failure = await refused(
            url=f"https://127.0.0.1:{port}", ca_certificate=leaf.cert_pem.bytes().decode()
        )
    assert failure.cause is Cause.TLS_CERTIFICATE_ERROR
    assert "expired" in str(failure)


@on_uvloop
async def test_without_verification_any_certificate_will_do() -> None:
    context = server_context("other.example")
    async with peer(greet, context=context) as port, dialer() as network:
        made = await network.dial(
            backend(f"https://127.0.0.1:{port}", verify=False), Listening().make, in_time()
        )
        made.transport.abort()


@on_uvloop
async def test_a_certificate_that_is_itself_trusted_needs_no_authority() -> None:
    leaf = identity("127.0.0.1").cert_chain_pems[0].bytes().decode()
    async with peer(greet, context=server_context("127.0.0.1")) as port, dialer() as network:
        made = await network.dial(
            backend(f"https://127.0.0.1:{port}", ca_certificate=leaf), Listening().make, in_time()
        )
        made.transport.abort()


@on_uvloop
async def test_a_client_certificate_is_shown_to_a_server_that_asks() -> None:
    leaf = identity("client.example")
    shown = ClientCertificate(
        leaf.cert_chain_pems[0].bytes().decode(), Secret(leaf.private_key_pem.bytes())
    )
    names: list[object] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        names.append(writer.get_extra_info("peercert")["subjectAltName"])

    context = server_context("127.0.0.1", wants_client=True)
    async with peer(look, context=context) as port, dialer() as network:
        url = f"https://127.0.0.1:{port}"
        made = await network.dial(
            backend(url, ca_certificate=authority_pem(), client_certificate=shown),
            Listening().make,
            in_time(),
        )
        await until(lambda: names)
        assert names == [(("DNS", "client.example"),)]
        made.transport.abort()


@on_uvloop
async def test_a_server_that_misses_a_client_certificate_ends_with_an_alert() -> None:
    context = server_context("127.0.0.1", wants_client=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3 the alert comes after the handshake
    with handshakes(context) as port:
        failure = await refused(url=f"https://127.0.0.1:{port}", ca_certificate=authority_pem())
    assert failure.cause is Cause.TLS_ALERT_RECEIVED
    assert failure.tls_alert == 40  # handshake_failure


@on_uvloop
async def test_versions_that_do_not_meet_end_with_an_alert() -> None:
    context = server_context("127.0.0.1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with handshakes(context) as port:
        failure = await refused(
            url=f"https://127.0.0.1:{port}", verify=False, max_tls=TlsVersion.TLS_1_2
        )
    assert failure.cause is Cause.TLS_ALERT_RECEIVED
    assert failure.tls_alert == 70  # protocol_version


@on_uvloop
async def test_a_server_that_speaks_no_tls_is_a_protocol_error() -> None:
    async with nothing_left(), peer(greet) as port:
        failure = await refused(url=f"https://127.0.0.1:{port}", verify=False)
        assert failure.cause is Cause.TLS_PROTOCOL_ERROR


@on_uvloop
async def test_a_server_that_hangs_up_during_the_handshake_has_terminated_it() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async with nothing_left(), peer(hang_up) as port:
        failure = await refused(url=f"https://127.0.0.1:{port}", verify=False)
        assert failure.cause is Cause.CONNECTION_TERMINATED


@on_uvloop
async def test_what_a_server_says_right_after_the_handshake_is_not_lost() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(b"x" * 1000)
        await reader.read(100)

    async with peer(chatter, context=server_context("127.0.0.1")) as port, dialer() as network:
        protocol = Listening()
        made = await network.dial(
            backend(f"https://127.0.0.1:{port}", verify=False), protocol.make, in_time()
        )
        await until(lambda: len(protocol.received) == 100_000)
        made.transport.abort()


@on_uvloop
async def test_bad_tls_settings_fail_before_anything_is_connected() -> None:
    failure = await refused(url="https://127.0.0.1:9", ciphers="none")
    assert failure.cause is Cause.TLS_CONFIGURATION_ERROR

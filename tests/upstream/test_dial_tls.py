"""TLS over real sockets: trust, names, protocols, client certificates, and how handshakes fail."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme

from edge.model.backend import ClientCertificate, TlsVersion
from edge.model.secret import Secret
from edge.settings import Egress, EgressRule
from edge.upstream.fetch import Cause
from tests.support.backends import (
    Listening,
    authority_pem,
    backend,
    dialer,
    greet,
    handshakes,
    identity,
    in_time,
    nothing_left,
    on_uvloop,
    peer,
    refused,
    server_context,
)
from tests.support.serving import until


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
    async with handshakes(context) as port:
        failure = await refused(url=f"https://127.0.0.1:{port}", ca_certificate=authority_pem())
    assert failure.cause is Cause.TLS_ALERT_RECEIVED
    assert failure.tls_alert == 40  # handshake_failure


@on_uvloop
async def test_versions_that_do_not_meet_end_with_an_alert() -> None:
    context = server_context("127.0.0.1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with handshakes(context) as port:
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


@pytest.mark.parametrize("dynamic", [False, True])
@on_uvloop
async def test_a_server_of_tls_1_3_cannot_choose_another_group_than_p_256(dynamic: bool) -> None:
    context = server_context("127.0.0.1")
    context.set_ecdh_curve("secp384r1")
    egress = Egress(allow=(EgressRule(host="*"),), private_networks=True)
    async with handshakes(context) as port:
        settings: dict[str, Any] = {
            "url": f"https://127.0.0.1:{port}", "verify": False, "dynamic": dynamic,
        }  # fmt: skip
        failure = await refused(egress, **settings)
        assert failure.cause is Cause.TLS_ALERT_RECEIVED
    async with peer(greet, context=context) as port, dialer(egress) as network:
        protocol = Listening()
        settings["url"] = f"https://127.0.0.1:{port}"
        made = await network.dial(
            backend(**settings, max_tls=TlsVersion.TLS_1_2), protocol.make, in_time()
        )
        made.transport.abort()  # there it is the way out


@on_uvloop
async def test_a_name_that_cannot_be_sent_fails_without_a_connection_and_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure = await refused(url="https://127.0.0.1:9", verify=False, sni_host="a..b")
    assert failure.cause is Cause.TLS_CONFIGURATION_ERROR
    assert not caplog.records

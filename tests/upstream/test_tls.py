"""TLS towards backends: whom a certificate is for, what a context holds, and what is shared."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from edge.model.backend import Backend, ClientCertificate, TlsVersion
from edge.model.secret import Secret
from edge.upstream import tls
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.tls import (
    MAX_GUEST_CONTEXTS,
    MAX_PEM,
    TlsContexts,
    alpn_of,
    check_name,
    server_name,
)
from tests.support.backends import authority_pem, backend, identity, on_uvloop


class Certified:
    """Stands for an `ssl.SSLObject` after a handshake."""

    def __init__(self, *names: tuple[str, str]) -> None:
        self._names = names

    def getpeercert(self) -> dict[str, object]:
        common = ((("commonName", "common.example"),),)
        return {"subject": common, "subjectAltName": self._names} if self._names else {}


def is_accepted(made: Backend, *names: tuple[str, str]) -> bool:
    try:
        check_name(made, Certified(*names))  # type: ignore[arg-type]
    except UpstreamFailed as error:
        assert error.cause is Cause.TLS_CERTIFICATE_ERROR  # noqa: PT017 - any other is a bug
        return False
    return True


@pytest.mark.parametrize(
    ("presented", "wanted", "matches"),
    [
        ("a.example.com", "a.example.com", True),
        ("A.Example.COM", "a.example.com", True),
        ("a.example.com", "a.example.com.", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "A.EXAMPLE.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "aexample.com", False),
        ("*.example.com", ".example.com", False),
        ("*.com", "example.com", False),
        ("*", "example", False),
        ("*", "example.com", False),
        ("a*.example.com", "ab.example.com", False),
        ("*a.example.com", "ba.example.com", False),
        ("a.*.com", "a.example.com", False),
        ("*.*.com", "a.example.com", False),
        ("example.com", "a.example.com", False),
        ("a.example.com\0.evil.example", "a.example.com", False),
        ("", "a.example.com", False),
    ],
)
def test_a_certificate_is_for_the_names_in_it(presented: str, wanted: str, matches: bool) -> None:
    assert is_accepted(backend(f"https://{wanted}:443"), ("DNS", presented)) is matches


@pytest.mark.parametrize(
    ("kind", "presented", "wanted", "matches"),
    [
        ("IP Address", "192.0.2.1", "192.0.2.1", True),
        ("IP Address", "192.0.2.1", "192.0.2.2", False),
        ("IP Address", "2001:DB8:0:0:0:0:0:1", "[2001:db8::1]", True),
        ("IP Address", "<invalid>", "192.0.2.1", False),
        ("DNS", "192.0.2.1", "192.0.2.1", False),
        ("DNS", "*.0.2.1", "192.0.2.1", False),
        ("IP Address", "192.0.2.1", "a.example", False),
        ("email", "a.example", "a.example", False),
        ("URI", "a.example", "a.example", False),
    ],
)
def test_an_address_is_compared_as_an_address(
    kind: str, presented: str, wanted: str, matches: bool
) -> None:
    assert is_accepted(backend(f"https://{wanted}:443"), (kind, presented)) is matches


def test_the_common_name_does_not_count() -> None:
    assert not is_accepted(backend("https://common.example:443"), ("DNS", "other.example"))
    assert not is_accepted(backend("https://common.example:443"))


def test_any_of_the_names_will_do_and_cert_host_replaces_the_urls() -> None:
    made = backend("https://a.example:443", cert_host="b.example")
    assert is_accepted(made, ("DNS", "x.example"), ("DNS", "b.example"))
    assert not is_accepted(made, ("DNS", "a.example"))


def test_a_refusal_says_what_the_certificate_is_for() -> None:
    with pytest.raises(UpstreamFailed, match=r"is for x\.example, not for a\.example"):
        check_name(backend("https://a.example:443"), Certified(("DNS", "x.example")))  # type: ignore[arg-type]


def test_without_verification_no_name_is_asked_for() -> None:
    check_name(backend("https://a.example:443", verify=False), None)


def test_the_name_sent_and_the_name_checked_are_chosen_apart() -> None:
    assert server_name(backend("https://a.example:443")) == "a.example"
    assert server_name(backend("https://a.example.:443")) == "a.example"
    assert server_name(backend("https://a.example:443", cert_host="b.example")) == "b.example"
    both = backend("https://a.example:443", cert_host="b.example", sni_host="c.example")
    assert server_name(both) == "c.example"
    assert tls.certificate_host(both) == "b.example"
    assert server_name(backend("https://a.example:443", use_sni=False)) == ""
    assert server_name(backend("https://192.0.2.1:443")) == ""
    assert server_name(backend("https://[::1]:443")) == ""
    assert server_name(backend("https://192.0.2.1:443", sni_host="a.example")) == "a.example"


def test_protocols_are_offered_as_the_backend_is_set_up() -> None:
    assert alpn_of(backend("https://a.example:443")) == ("http/1.1",)
    assert alpn_of(backend("https://a.example:443", http2=True)) == ("h2", "http/1.1")
    assert alpn_of(backend("https://a.example:443", grpc=True)) == ("h2",)


@on_uvloop
async def test_equal_settings_share_a_context_whatever_the_name() -> None:
    contexts = TlsContexts()
    first = await contexts.context(backend("https://a.example:443", ca_certificate=authority_pem()))
    second = await contexts.context(
        backend("https://b.example:444", ca_certificate=authority_pem(), sni_host="x.example")
    )
    assert first is second
    assert len(contexts) == 1
    contexts.close()


def client_certificate(leaf: trustme.LeafCert) -> ClientCertificate:
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return ClientCertificate(chain.decode(), Secret(leaf.private_key_pem.bytes()))


@on_uvloop
async def test_every_setting_that_decides_makes_a_context_of_its_own() -> None:
    contexts = TlsContexts()
    ca = authority_pem()
    one, two = identity("one.example"), identity("two.example")
    variants: list[dict[str, object]] = [
        {},
        {"verify": False},
        {"ca_certificate": ca},
        {"ca_certificate": trustme.CA().cert_pem.bytes().decode()},
        {"ca_certificate": ca, "dynamic": True},
        {"ca_certificate": ca, "min_tls": TlsVersion.TLS_1_3},
        {"ca_certificate": ca, "max_tls": TlsVersion.TLS_1_3},
        {"ca_certificate": ca, "http2": True},
        {"ca_certificate": ca, "grpc": True},
        {"ca_certificate": ca, "ciphers": "ECDHE+AESGCM"},
        {"ca_certificate": ca, "client_certificate": client_certificate(one)},
        {"ca_certificate": ca, "client_certificate": client_certificate(two)},
    ]
    made = [await contexts.context(backend("https://a.example:443", **v)) for v in variants]
    assert len({id(context) for context in made}) == len(variants)
    assert made[0].cert_store_stats()["x509_ca"] > 10, "no roots of the system"
    assert made[1].verify_mode is ssl.CERT_NONE
    assert made[2].cert_store_stats()["x509_ca"] == 1
    assert made[5].minimum_version is ssl.TLSVersion.TLSv1_3
    contexts.close()


@on_uvloop
async def test_many_who_need_a_context_wait_for_one_to_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Backend] = []
    real = tls.build

    def build(wanted: Backend) -> ssl.SSLContext:
        made.append(wanted)
        return real(wanted)

    monkeypatch.setattr(tls, "build", build)
    contexts = TlsContexts()
    same = backend("https://a.example:443", ca_certificate=authority_pem())
    found = await asyncio.gather(*(contexts.context(same) for _ in range(20)))
    assert len(set(map(id, found))) == 1
    assert len(made) == 1
    contexts.close()


@on_uvloop
async def test_contexts_of_guests_are_bounded_and_leave_the_operators_alone() -> None:
    contexts = TlsContexts()
    written = backend("https://a.example:443", ca_certificate=authority_pem())
    own = await contexts.context(written)
    for i in range(MAX_GUEST_CONTEXTS + 5):
        await contexts.context(
            backend("https://a.example:443", verify=False, ciphers=f"AES128-SHA:x{i}", dynamic=True)
        )
    assert len(contexts) == MAX_GUEST_CONTEXTS + 1
    assert await contexts.context(written) is own
    contexts.close()


@on_uvloop
async def test_the_line_for_making_contexts_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def build(wanted: Backend) -> ssl.SSLContext:
        go.wait(10)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(tls, "build", build)
    contexts = TlsContexts()
    waiting = [
        asyncio.ensure_future(
            contexts.context(backend("https://a.example:443", ciphers=str(i), dynamic=True))
        )
        for i in range(tls.MAX_WAITING + 1 + 3)
    ]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for refused in done:
        error = refused.exception()
        assert isinstance(error, UpstreamFailed)
        assert error.cause is Cause.CONNECTION_LIMIT_REACHED
    # The operator's own do not wait behind those of guests.
    own = asyncio.ensure_future(contexts.context(backend("https://a.example:443")))
    go.set()
    await own
    await asyncio.gather(*waiting, return_exceptions=True)
    contexts.close()


OTHER_KEY = identity("other.example").private_key_pem.bytes()
CHAIN = client_certificate(identity("one.example")).certificate


@pytest.mark.parametrize(
    "settings",
    [
        {"ca_certificate": "no certificate"},
        {"ca_certificate": ""},
        {"ca_certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
        {"ca_certificate": "x" * (MAX_PEM + 1)},
        {"ciphers": "no such cipher"},
        {"ciphers": "A" * 5000},
        {"min_tls": TlsVersion.TLS_1_3, "max_tls": TlsVersion.TLS_1_2},
        {"client_certificate": ClientCertificate("no", Secret(b"sesame"))},
        {"client_certificate": ClientCertificate(CHAIN, Secret(OTHER_KEY))},
        {"client_certificate": ClientCertificate("y" * MAX_PEM, Secret(b"sesame"))},
    ],
)
@on_uvloop
async def test_settings_that_openssl_refuses_are_a_configuration_error(
    settings: dict[str, object],
) -> None:
    contexts = TlsContexts()
    with pytest.raises(UpstreamFailed) as caught:
        await contexts.context(backend("https://a.example:443", **settings))
    assert caught.value.cause is Cause.TLS_CONFIGURATION_ERROR
    assert "sesame" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)
    assert len(contexts) == 0
    contexts.close()


@on_uvloop
async def test_an_encrypted_key_is_refused_without_asking_anybody_for_its_password() -> None:
    from cryptography.hazmat.primitives import serialization

    leaf = identity("one.example")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"sesame"),
    )
    made = ClientCertificate(CHAIN, Secret(encrypted))
    contexts = TlsContexts()
    with pytest.raises(UpstreamFailed) as caught:
        await contexts.context(backend("https://a.example:443", client_certificate=made))
    assert caught.value.cause is Cause.TLS_CONFIGURATION_ERROR
    contexts.close()


@on_uvloop
async def test_no_descriptor_stays_open_for_a_client_certificate() -> None:
    contexts = TlsContexts()
    good = client_certificate(identity("one.example"))
    bad = ClientCertificate(CHAIN, Secret(OTHER_KEY))
    before = len(os.listdir("/proc/self/fd"))
    await contexts.context(backend("https://a.example:443", client_certificate=good, verify=False))
    with pytest.raises(UpstreamFailed):
        await contexts.context(backend("https://a.example:443", client_certificate=bad))
    assert len(os.listdir("/proc/self/fd")) == before
    contexts.close()


@on_uvloop
async def test_a_private_key_is_not_kept_in_the_cache() -> None:
    contexts = TlsContexts()
    made = client_certificate(identity("one.example"))
    await contexts.context(backend("https://a.example:443", client_certificate=made, verify=False))
    for cache in contexts._contexts:
        assert all(len(key) == 32 for key in cache)
    contexts.close()


@pytest.mark.parametrize("old", [TlsVersion.TLS_1_0, TlsVersion.TLS_1_1])
def test_old_versions_can_be_asked_for_by_name(old: TlsVersion) -> None:
    context = tls.build(backend("https://a.example:443", verify=False, min_tls=old))
    assert context.minimum_version.name in ("TLSv1", "TLSv1_1")
    assert context.security_level == 0
    by_default = tls.build(backend("https://a.example:443", verify=False))
    assert by_default.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert by_default.security_level > 0


def of_guest(**settings: object) -> Backend:
    return backend("https://a.example:443", verify=False, dynamic=True, **settings)


@pytest.mark.parametrize(
    "made",
    [
        backend("https://a.example:443", verify=False),
        backend("https://a.example:443", verify=False, min_tls=TlsVersion.TLS_1_0),
        of_guest(),
        of_guest(ciphers="ALL:@SECLEVEL=0"),
        of_guest(ciphers="DHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"),
    ],
)
def test_no_server_may_choose_how_large_the_integers_of_a_key_exchange_are(made: Backend) -> None:
    exchanges = {cipher["kea"] for cipher in tls.build(made).get_ciphers()}
    assert "kx-dhe" not in exchanges
    assert "kx-ecdhe" in exchanges


def test_an_operator_may_ask_for_such_an_exchange_by_name_and_a_guest_may_not() -> None:
    dhe = "DHE-RSA-AES256-GCM-SHA384"
    written = backend("https://a.example:443", verify=False, ciphers=dhe)
    assert dhe in [cipher["name"] for cipher in tls.build(written).get_ciphers()]
    with pytest.raises((ValueError, ssl.SSLError)):
        tls.build(of_guest(ciphers=dhe, max_tls=TlsVersion.TLS_1_2))


def test_a_server_may_ask_for_another_handshake_only_to_see_an_operators_certificate() -> None:
    own = client_certificate(identity("one.example"))
    shown = backend("https://a.example:443", verify=False, client_certificate=own)
    assert not tls.build(shown).options & ssl.OP_NO_RENEGOTIATION
    for made in (of_guest(client_certificate=own), of_guest(), backend("https://a.example:443")):
        assert tls.build(made).options & ssl.OP_NO_RENEGOTIATION


def test_a_guests_key_that_is_slow_to_sign_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = client_certificate(identity("one.example"))
    tls.build(of_guest(client_certificate=own))
    monkeypatch.setattr(tls, "MAX_SIGNING", 0.0)
    with pytest.raises(ValueError, match="too long to sign"):
        tls.build(of_guest(client_certificate=own))
    tls.build(backend("https://a.example:443", verify=False, client_certificate=own))


def test_a_guests_key_is_bounded_in_size() -> None:
    own = client_certificate(identity("one.example"))
    large = ClientCertificate(own.certificate, Secret(b"\n" * tls.MAX_GUEST_KEY + own.key.reveal()))
    with pytest.raises(ValueError, match=r"the key is \d+ bytes"):
        tls.build(of_guest(client_certificate=large))
    tls.build(backend("https://a.example:443", verify=False, client_certificate=large))


def test_signing_is_timed_and_not_skipped(tmp_path: Path) -> None:
    leaf = identity("one.example")
    pem = tmp_path / "identity.pem"
    pem.write_bytes(leaf.cert_chain_pems[0].bytes() + leaf.private_key_pem.bytes())
    assert 0.0 < tls.signing_time(str(pem)) < tls.MAX_SIGNING


@on_uvloop
async def test_contexts_that_connections_of_guests_hold_are_bounded_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "MAX_GUEST_CONTEXTS", 0)  # none is kept for its own sake
    monkeypatch.setattr(tls, "MAX_GUEST_ALIVE", 2)
    contexts = TlsContexts()
    held = [await contexts.context(of_guest(ciphers=f"AES128-SHA:x{i}")) for i in range(2)]
    with pytest.raises(UpstreamFailed, match="2 TLS contexts of guests") as caught:
        await contexts.context(of_guest())
    assert caught.value.cause is Cause.CONNECTION_LIMIT_REACHED
    await contexts.context(backend("https://a.example:443", verify=False))
    held.pop()
    await contexts.context(of_guest())
    contexts.close()


@pytest.mark.parametrize("name", ["a..b", ".a.example", "x" * 64 + ".example", "\u00e9.example"])
def test_what_cannot_be_a_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        server_name(backend("https://a.example:443", sni_host=name))
    assert caught.value.cause is Cause.TLS_CONFIGURATION_ERROR

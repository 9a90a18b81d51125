"""Backends, KV stores and access lists in a document: what is read, and what is refused how."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from edge.errors import ConfigError
from edge.model.acl import AclEntry
from edge.model.backend import HealthCheck, MockHealth, Origin, TlsVersion
from edge.model.backend_reader import read_origin
from edge.model.parse import parse_config, parse_service
from edge.model.plain import from_plain, to_plain
from edge.model.service import Service

BASE = Path("/etc/edge")
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
FILES = {
    BASE / "ca.pem": PEM.encode(),
    BASE / "acl.json": b'{"entries": [{"prefix": "192.0.2.0/24", "action": "BLOCK"}]}',
    BASE / "bad.json": b'{"entries": [[]]}',
    BASE / "deep.json": b"[" * 100_000,
}


def service(keys: str, **env: str) -> Service:
    text = f"services: {{a: {{module: a.wasm, routes: [{{}}], {keys}}}}}"
    config = parse_config(
        text, source="test", base=BASE, env=env, read_file=lambda path: FILES[path]
    )
    return config.services[0]


def problems(keys: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        service(keys, **env)
    return [
        f"{one.path.removeprefix('services.a.')}: {one.message}" for one in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://a.example", Origin(False, "a.example", 80)),
        ("https://A.example/", Origin(True, "a.example", 443)),
        ("http://127.0.0.1:9000/api/v1/", Origin(False, "127.0.0.1", 9000, "/api/v1")),
        ("https://[2001:db8::1]:8443", Origin(True, "2001:db8::1", 8443)),
    ],
)
def test_the_url_of_a_backend_is_taken_apart(text: str, origin: Origin) -> None:
    assert read_origin(text) == origin
    assert read_origin(str(origin)) == origin


@pytest.mark.parametrize(
    "text",
    [
        "", "a.example", "ftp://a.example", "http://", "http://u:p@a.example", "http://a?b",
        "http://a#b", "http://a:0", "http://a:65536", "http://a:x", "http://*.a.example",
        "http://a.example/a b", "http://a.example/\r\nx", "http://[::1", "http://a\tb/",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_backend_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_origin(text)


def test_every_key_of_a_backend_is_read() -> None:
    found = service(
        "backends: {o: {url: 'https://o.example/p', override_host: x.example, connect_timeout: 2s, "
        "first_byte_timeout: 3s, between_bytes_timeout: 4s, verify: false, cert_host: c.example, "
        "sni_host: s.example, ca_certificate: {file: ca.pem}, client_certificate: "
        "{certificate: {file: ca.pem}, key: {env: KEY}}, min_tls: '1.2', max_tls: '1.3', "
        "ciphers: HIGH, http2: true, keep_alive: 0s, max_connections: 5, max_use: 6, "
        "max_lifetime: 7s, prefer_ipv4: true, tcp_keep_alive: 8s, "
        "health_check: {path: /up, interval: 1s}, health: healthy}}",
        KEY="-----BEGIN PRIVATE KEY-----",
    ).backends["o"]
    assert found.url == Origin(True, "o.example", 443, "/p")
    assert (found.override_host, found.cert_host, found.sni_host) == (
        "x.example", "c.example", "s.example",
    )  # fmt: skip
    assert (found.connect_timeout, found.first_byte_timeout, found.between_bytes_timeout) == (
        2,
        3,
        4,
    )
    assert found.ca_certificate == PEM.strip()
    assert found.client_certificate is not None
    assert found.client_certificate.key.reveal() == b"-----BEGIN PRIVATE KEY-----"
    assert (found.min_tls, found.max_tls) == (TlsVersion.TLS_1_2, TlsVersion.TLS_1_3)
    assert (found.max_connections, found.max_use, found.max_lifetime) == (5, 6, 7)
    assert found.health_check == HealthCheck(path="/up", interval=1)
    assert found.health is MockHealth.HEALTHY
    assert not found.verify
    assert not found.dynamic


def test_everything_survives_the_pipe_to_the_workers() -> None:
    found = service(
        "backends: {o: {url: 'https://o.example', client_certificate: {certificate: {file: ca.pem},"
        " key: {file: ca.pem}}, health_check: {}}}, kv_stores: [cart], "
        "acls: {b: [{prefix: 10.0.0.0/8, action: BLOCK}]}"
    )
    assert from_plain(Service, to_plain(found)) == found


def test_a_key_never_appears_in_a_problem_or_a_repr() -> None:
    said = problems(
        "backends: {o: {url: 'https://o', client_certificate: {certificate: {env: K}, key: "
        "{env: K}}}}",
        K="hush-hush",
    )
    assert len(said) == 1
    assert "PEM" in said[0]
    assert "hush" not in said[0]
    good = service(
        "backends: {o: {url: 'https://o', client_certificate: {certificate: {file: ca.pem}, "
        "key: {env: K}}}}",
        K="-----BEGIN hush-hush",
    )
    assert "hush" not in repr(good.backends)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("{}", "backends.o.url: is missing"),
        ("{url: 'http://o', cert_host: x}", "backends.o.cert_host: has no meaning without TLS"),
        ("{url: 'http://o', http2: true}", "backends.o.http2: is agreed on with TLS"),
        ("{url: 'https://o', use_sni: false, sni_host: x}", "backends.o.sni_host: has no meaning"),
        ("{url: 'https://o', min_tls: '1.3', max_tls: '1.2'}", "backends.o.min_tls: 1.3 is above"),
        ("{url: 'http://o', health_check: {window: 2}}", "backends.o.health_check: threshold is"),
        ("{url: 'http://o', health_check: {path: up}}", "backends.o.health_check: path 'up'"),
        ("{url: 'http://o', override_host: 'a b'}", "backends.o.override_host: 'a b' is not"),
        ("{url: 'http://o', connect_timeout: 0s}", "backends.o.connect_timeout: 0s is below"),
        ("{urls: x}", "backends.o.urls: unknown key; did you mean url?"),
    ],
)
def test_a_mistake_in_a_backend_is_named(backend: str, said: str) -> None:
    assert any(one.startswith(said) for one in problems(f"backends: {{o: {backend}}}"))


def test_what_is_deployed_through_an_api_obeys_the_egress_policy_and_reaches_no_file() -> None:
    fields = {"routes": [{}], "backends": {"o": {"url": "http://127.0.0.1"}}}
    assert parse_service("a", fields, module=Path("/a.wasm")).backends["o"].dynamic
    for source in ({"file": "/etc/passwd"}, {"env": "HOME"}):
        fields["backends"] = {"o": {"url": "https://o", "ca_certificate": source}}
        with pytest.raises(ConfigError):
            parse_service("a", fields, module=Path("/a.wasm"))


def test_kv_stores_are_ones_own_or_shared() -> None:
    assert service("kv_stores: [cart, s]").kv_stores == {"cart": "", "s": ""}
    assert service("kv_stores: {cart: all-carts, s: }").kv_stores == {"cart": "all-carts", "s": ""}
    assert problems("kv_stores: [a/\u00e9]")


def test_an_access_list_is_read_from_the_document_or_from_a_file() -> None:
    inline = service(
        "acls: {b: [{prefix: 10.0.0.0/8, action: BLOCK}, {prefix: '::1', action: OK}]}"
    )
    assert inline.acls["b"] == (
        AclEntry(ip_network("10.0.0.0/8"), "BLOCK"), AclEntry(ip_network("::1/128"), "OK"),
    )  # fmt: skip
    from_file = service("acls: {b: {file: acl.json}}")
    assert from_file.acls["b"] == (AclEntry(ip_network("192.0.2.0/24"), "BLOCK"),)


@pytest.mark.parametrize(
    ("acl", "said"),
    [
        ("[{prefix: 10.0.0.1/8, action: BLOCK}]", "did you mean 10.0.0.0/8?"),
        ("[{prefix: 10.0.0.0/8}]", "needs both prefix and action"),
        ("{file: bad.json}", "is not JSON of the form"),
        ("{file: deep.json}", "is not JSON of the form"),
        ("BLOCK", "must be a list"),
    ],
)
def test_a_mistake_in_an_access_list_is_named(acl: str, said: str) -> None:
    (only,) = problems(f"acls: {{b: {acl}}}")
    assert said in only


def test_every_bad_entry_of_an_access_list_is_named() -> None:
    found = problems("acls: {a: [{prefix: 10.0.0.1/8, action: X}, {prefix: x, action: Y}, {}]}")
    assert [one.partition(":")[0] for one in found] == ["acls.a[0]", "acls.a[1]", "acls.a[2]"]


def test_a_backend_that_is_no_mapping_is_one_problem() -> None:
    (found,) = problems("backends: {a: 'http://x'}")
    assert "must be a mapping" in found

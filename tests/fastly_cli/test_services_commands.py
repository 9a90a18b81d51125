"""The official CLI's commands for services, versions and their parts, against a real catalogue.

Nothing is served here: `test_deploying.py` has a whole server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.admin.fastly import routes
from tests.support.api_server import ApiServer, api_server
from tests.support.fastly_cli import FastlyCli, write_project

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

HELLO = b"\0asm\x01\0\0\0"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    state = tmp_path / "state"
    state.mkdir()
    with api_server(state, make_routes=routes) as running:
        yield running


@pytest.fixture
def fastly(server: ApiServer, tmp_path: Path) -> FastlyCli:
    work = tmp_path / "work"
    work.mkdir()
    return FastlyCli(work, f"http://127.0.0.1:{server.port}", server.admin)


def made(fastly: FastlyCli, name: str = "hello") -> str:
    """The id of a new service."""
    return fastly("service", "create", "--name", name).split()[-1]


def with_package(fastly: FastlyCli, service: str, version: int = 1) -> None:
    write_project(fastly.folder, HELLO)
    if not (fastly.folder / "pkg" / "hello.tar.gz").exists():
        fastly("compute", "build", "-i")
    fastly(
        "compute", "update", "-s", service, f"--version={version}", "-p", "pkg/hello.tar.gz"
    )  # fmt: skip


def test_services_are_made_listed_described_searched_renamed_and_deleted(
    fastly: FastlyCli,
) -> None:
    one, two = made(fastly), made(fastly, "other")
    assert len(one) == 22
    listed = {item["ServiceID"]: item for item in fastly.json("service", "list")}
    assert {key: item["Name"] for key, item in listed.items()} == {one: "hello", two: "other"}
    assert listed[one]["Type"] == "wasm"
    assert "hello" in fastly("service", "list", "--sort=updated", "--direction=descend")
    described = fastly.json("service", "describe", "-s", one)
    assert [version["Number"] for version in described["Versions"]] == [1]
    assert described["Comment"] == ""
    assert fastly.json("service", "search", "--name=other")["ServiceID"] == two
    assert "404" in fastly.refused("service", "search", "--name=nobody")
    fastly("service", "update", "-s", one, "--name=renamed", "--comment=why")
    described = fastly.json("service", "describe", "--service-name=renamed")
    assert (described["ServiceID"], described["Comment"]) == (one, "why")
    assert "already" in fastly.refused("service", "create", "--name=other")
    fastly("service", "delete", "-s", two)
    assert [item["ServiceID"] for item in fastly.json("service", "list")] == [one]


def test_services_come_in_pages(fastly: FastlyCli) -> None:
    ids = [made(fastly, f"service-{number}") for number in range(5)]
    listed = fastly.json("service", "list", "--per-page=2")
    assert [item["ServiceID"] for item in listed] == ids


def test_a_service_of_another_kind_is_refused(fastly: FastlyCli) -> None:
    printed = fastly.refused("service", "create", "--name=old", "--type=vcl")
    assert "'wasm'" in printed


def test_versions_are_cloned_commented_locked_activated_staged_and_listed(
    fastly: FastlyCli,
) -> None:
    service = made(fastly)
    with_package(fastly, service)
    of = ("-s", service)
    assert "valid" in fastly("service", "version", "validate", *of, "--version=1")
    fastly("service", "version", "update", *of, "--version=1", "--comment=first")
    fastly("service", "version", "activate", *of, "--version=1")
    assert "version 2" in fastly("service", "version", "clone", *of, "--version=active")
    fastly("service", "version", "stage", *of, "--version=2")
    assert "version 3" in fastly("service", "version", "clone", *of, "--version=staged")
    fastly("service", "version", "lock", *of, "--version=latest")
    found = fastly.json("service", "version", "list", *of)
    assert [
        (one["Number"], one["Active"], one["Locked"], one["Staging"], one["Comment"])
        for one in found
    ] == [
        (1, True, True, False, "first"),
        (2, False, True, True, "first"),
        (3, False, True, False, "first"),
    ]
    fastly("service", "version", "unstage", *of, "--version=staged")
    fastly("service", "version", "deactivate", *of, "--version=active")
    found = fastly.json("service-version", "list", *of)
    assert not any(one["Active"] or one["Staging"] for one in found)


def test_what_is_locked_is_refused_and_cloned_when_asked(fastly: FastlyCli) -> None:
    service = made(fastly)
    with_package(fastly, service)
    of = ("-s", service)
    fastly("service", "version", "activate", *of, "--version=1")
    domain = ("service", "domain", "create", *of, "--version=1", "--name=a.example.com")
    assert "version 1 is locked" in fastly.refused(*domain)
    assert "version 2" in fastly(*domain, "--autoclone")


def test_a_locked_version_is_refused_by_the_server_as_well(server: ApiServer) -> None:
    service = server.ask("POST", "/service", b"name=hello").json["id"]
    server.ask("PUT", f"/service/{service}/version/1/lock")
    for method, path, body in (
        ("POST", "domain", b"name=a.example"),
        ("POST", "backend", b"name=a&address=a.example"),
        ("POST", "healthcheck", b"name=a"),
        ("PUT", "package", b""),
    ):
        answer = server.ask(method, f"/service/{service}/version/1/{path}", body)
        assert (answer.status, answer.json["msg"]) == (422, "The version can no longer be changed")


def test_a_served_service_is_deleted_by_force_alone(fastly: FastlyCli) -> None:
    service = made(fastly)
    with_package(fastly, service)
    fastly("service", "version", "activate", "-s", service, "--version=1")
    assert "deactivate" in fastly.refused("service", "delete", "-s", service)
    fastly("service", "delete", "-s", service, "--force")
    assert fastly.json("service", "list") in ([], None)


def test_domains(fastly: FastlyCli) -> None:
    service = made(fastly)
    of = ("-s", service, "--version=1")
    fastly("service", "domain", "create", *of, "--name=a.example.com", "--comment=first")
    fastly("service", "domain", "create", *of, "--name=*.Example.org")
    listed = fastly.json("service", "domain", "list", *of)
    assert [(one["Name"], one["Comment"]) for one in listed] == [
        ("*.example.org", ""),
        ("a.example.com", "first"),
    ]
    fastly("service", "domain", "update", *of, "--name=a.example.com", "--new-name=b.example.com")
    found = fastly.json("service", "domain", "describe", *of, "--name=b.example.com")
    assert (found["ServiceID"], found["ServiceVersion"]) == (service, 1)
    assert found["Comment"] == "first"
    printed = fastly("service", "domain", "validate", *of, "--name=b.example.com")
    assert "b.example.com" in printed
    assert "*.example.org" in fastly("service", "domain", "validate", *of, "--all")
    fastly("service", "domain", "delete", *of, "--name=b.example.com")
    assert len(fastly.json("service", "domain", "list", *of)) == 1
    refused = fastly.refused("service", "domain", "create", *of, "--name=https://x")
    assert "a route names the host alone" in refused


def test_a_backend_has_every_flag_of_the_command(fastly: FastlyCli) -> None:
    service = made(fastly)
    of = ("-s", service, "--version=1")
    pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"
    key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----"
    fastly("service", "healthcheck", "create", *of, "--name=check")
    fastly(
        "service", "backend", "create", *of, "--name=origin", "--address=origin.example.com",
        "--port=8443", "--auto-loadbalance", "--between-bytes-timeout=1000", "--comment=text",
        "--connect-timeout=2000", "--first-byte-timeout=3000", "--healthcheck=check",
        "--max-conn=4", "--max-use=5", "--max-lifetime=6000", "--max-tls-version=1.3",
        "--min-tls-version=1.2", "--no-ssl-check-cert", "--override-host=host.example.com",
        "--prefer-ipv6=false", "--shield=here", f"--ssl-ca-cert={pem}",
        "--ssl-cert-hostname=cert.example.com", "--ssl-ciphers=ECDHE-RSA-AES128-GCM-SHA256",
        f"--ssl-client-cert={pem}", f"--ssl-client-key={key}",
        "--ssl-sni-hostname=sni.example.com", "--tcp-ka-enabled=true", "--tcp-ka-interval=7",
        "--tcp-ka-probes=8", "--tcp-ka-time=9", "--http-ka-time=10", "--use-ssl", "--weight=50",
    )  # fmt: skip
    found = fastly.json("service", "backend", "describe", *of, "--name=origin")
    wanted = {
        "Address": "origin.example.com", "Port": 8443, "UseSSL": True, "AutoLoadbalance": True,
        "BetweenBytesTimeout": 1000, "Comment": "text", "ConnectTimeout": 2000,
        "FirstByteTimeout": 3000, "HealthCheck": "check", "MaxConn": 4, "MaxUse": 5,
        "MaxLifetime": 6000, "MaxTLSVersion": "1.3", "MinTLSVersion": "1.2",
        "SSLCheckCert": False, "OverrideHost": "host.example.com", "PreferIPv6": False,
        "Shield": "here", "SSLCACert": pem, "SSLCertHostname": "cert.example.com",
        "SSLCiphers": "ECDHE-RSA-AES128-GCM-SHA256", "SSLClientCert": pem,
        "SSLSNIHostname": "sni.example.com", "TCPKeepAliveEnable": True,
        "TCPKeepAliveIntvl": 7, "TCPKeepAliveProbes": 8, "TCPKeepAliveTime": 9,
        "KeepAliveTime": 10, "Weight": 50,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert not found["SSLClientKey"], "a private key is not given out"


def test_backends(fastly: FastlyCli) -> None:
    service = made(fastly)
    of = ("-s", service, "--version=1")
    create = ("service", "backend", "create", *of)
    fastly(*create, "--name=plain", "--address=127.0.0.1")
    fastly(*create, "--name=secure", "--address=origin.example.com", "--use-ssl")
    listed = {one["Name"]: one for one in fastly.json("service", "backend", "list", *of)}
    assert (listed["plain"]["Port"], listed["plain"]["UseSSL"]) == (80, False)
    assert (listed["secure"]["Port"], listed["secure"]["UseSSL"]) == (443, True)
    assert listed["secure"]["SSLSNIHostname"] == "origin.example.com"
    assert listed["secure"]["OverrideHost"] == "origin.example.com"
    update = ("service", "backend", "update", *of, "--name=plain")
    fastly(*update, "--new-name=renamed", "--port=8080", "--connect-timeout=50")
    found = fastly.json("service", "backend", "describe", *of, "--name=renamed")
    assert (found["Port"], found["ConnectTimeout"], found["UseSSL"]) == (8080, 50, False)
    fastly("service", "backend", "delete", *of, "--name=renamed")
    assert [one["Name"] for one in fastly.json("backend", "list", *of)] == ["secure"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--address=a b"], "is not a host name"),
        (["--address=a.example", "--request-condition=x"], "belongs to VCL"),
        (["--address=a.example", "--ssl-client-cert=x"], "needed together"),
        (["--address=a.example", "--ssl-ca-cert=x"], "is not PEM"),
        (["--address=a.example", "--port=80", "--ssl-ciphers=x"], "no meaning without TLS"),
        (["--address=a.example", "--min-tls-version=9"], "min_tls"),
        (["--address=a.example", "--connect-timeout=999999999"], "connect_timeout"),
    ],
)
def test_a_backend_that_cannot_be_is_refused_with_the_reason(
    fastly: FastlyCli, flags: list[str], said: str
) -> None:
    of = ("-s", made(fastly), "--version=1")
    assert said in fastly.refused("service", "backend", "create", *of, "--name=x", *flags)
    assert fastly.json("service", "backend", "list", *of) in ([], None)


def test_health_checks(fastly: FastlyCli) -> None:
    service = made(fastly)
    of = ("-s", service, "--version=1")
    fastly(
        "service", "healthcheck", "create", *of, "--name=check", "--check-interval=2500",
        "--comment=text", "--expected-response=204", "--host=h.example.com",
        "--http-version=1.1", "--initial=1", "--method=GET", "--path=/well", "--threshold=2",
        "--timeout=300", "--window=4",
    )  # fmt: skip
    wanted = {
        "CheckInterval": 2500, "Comment": "text", "ExpectedResponse": 204,
        "Host": "h.example.com", "HTTPVersion": "1.1", "Initial": 1, "Method": "GET",
        "Path": "/well", "Threshold": 2, "Timeout": 300, "Window": 4, "Name": "check",
    }  # fmt: skip
    found = fastly.json("service", "healthcheck", "describe", *of, "--name=check")
    assert {name: found[name] for name in wanted} == wanted
    change = ("service", "healthcheck", "update", *of, "--name=check")
    fastly(*change, "--new-name=other", "--window=8")
    listed = fastly.json("service", "healthcheck", "list", *of)
    assert [(one["Name"], one["Window"], one["Timeout"]) for one in listed] == [("other", 8, 300)]
    refused = fastly.refused("service", "healthcheck", "create", *of, "--name=bad", "--threshold=9")
    assert "above window" in refused
    fastly("service", "healthcheck", "delete", *of, "--name=other")
    assert fastly.json("service", "healthcheck", "list", *of) in ([], None)


def test_purging_says_ok_to_every_form(fastly: FastlyCli) -> None:
    service = made(fastly)
    assert "ok" in fastly("service", "purge", "-s", service, "--all")
    assert "ok" in fastly("service", "purge", "-s", service, "--key=first")
    fastly("service", "purge", "-s", service, "--key=first", "--soft")
    (fastly.folder / "keys").write_text("first\nsecond\n")
    printed = fastly("service", "purge", "-s", service, "--file=keys")
    assert "first" in printed
    assert "second" in printed
    assert "ok" in fastly("service", "purge", "-s", service, "--url=http://a.example/x?y=1")


def test_the_caller_and_its_tokens(fastly: FastlyCli) -> None:
    service = made(fastly)
    assert "tests" in fastly("whoami")
    assert "tests" in fastly("auth-token", "describe")
    create = ("auth-token", "create", "--password=x", "--scope=global")
    printed = fastly(*create, "--name=limited", f"--services={service}")
    text = re.findall(r"edge_\w{40}", printed)[0]
    limited = FastlyCli(fastly.folder, fastly.endpoint, text)
    assert [one["ServiceID"] for one in limited.json("service", "list")] == [service]
    assert "403" in limited.refused("service", "create", "--name=mine")
    other = made(fastly, "other")
    assert "403" in limited.refused("service", "describe", "-s", other)
    assert "limited" in fastly("auth-token", "list")
    limited("auth-token", "delete", "--current")
    assert "401" in limited.refused("service", "list")
    assert "not enabled" in fastly.refused("products", "-s", service, "--enable=fanout")
    assert "fanout" in fastly("products", "-s", service).lower()


def test_a_package_is_uploaded_once(fastly: FastlyCli, server: ApiServer) -> None:
    service = made(fastly)
    with_package(fastly, service)
    assert server.control.inspected == ["hello"]
    metadata = server.ask("GET", f"/service/{service}/version/1/package").json["metadata"]
    assert (metadata["name"], metadata["language"]) == ("hello", "other")
    printed = fastly("compute", "hash-files", "--package=pkg/hello.tar.gz")
    assert metadata["files_hash"] in printed
    fastly("service", "version", "activate", "-s", service, "--version=1")
    printed = fastly("compute", "deploy", "-i", "-s", service, "--status-check-off")
    assert "identical" in printed
    assert server.control.inspected == ["hello"]


def test_a_program_that_cannot_be_served_is_refused_with_the_reason(fastly: FastlyCli) -> None:
    service = made(fastly)
    write_project(fastly.folder, HELLO + b"refuse me")
    fastly("compute", "build", "-i")
    refused = fastly.refused(
        "compute", "update", "-s", service, "--version=1", "-p", "pkg/hello.tar.gz"
    )
    assert "imports env.gone" in refused

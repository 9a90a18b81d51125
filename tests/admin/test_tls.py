"""The control API over TLS: handshakes, clients that never finish one, certificates read again."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from edge.admin.tls import ServerTls
from edge.errors import ConfigError
from edge.server.listener import MAX_HANDSHAKES
from edge.settings import AdminTls
from tests.support.api_server import ApiServer, api_server

# Made by `openssl genpkey -aes-128-cbc`; no certificate fits it.
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgFE8vGUxFXGAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEGStbLt92/+pS6lOBiNSlKIEgZCz
1zyXy9foQTspvyjl8BIiC6t8+ZFUStdINE6DoOsLskkqLJQMexlV+SIablptkWVN
vXKCVxaZsdKxpRBX23s+F+1Rfyq+H2A7VW22UZTfCAZV5vVqSx5E5ZefjwXk1xcw
q5eYmJuYmzxp/09ewfE/Bdm5NUDy8s9FvDL2fKDohT/pBSEU+PKn5klGQIUAOfc=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(ca: trustme.CA, tmp_path: Path) -> ServerTls:
    write(ca.issue_cert("localhost", "127.0.0.1"), tmp_path)
    made = ServerTls(AdminTls(tmp_path / "cert.pem", tmp_path / "key.pem"))
    made.load()
    return made


@pytest.fixture
def server(tmp_path: Path, tls: ServerTls) -> Iterator[ApiServer]:
    with api_server(tmp_path, tls=tls.context) as running:
        yield running


def write(leaf: trustme.LeafCert, folder: Path) -> None:
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def ask(server: ApiServer, context: ssl.SSLContext, path: str = "/v1/whoami") -> int:
    connection = http.client.HTTPSConnection("localhost", server.port, timeout=30, context=context)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {server.admin}"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_the_api_speaks_tls(server: ApiServer, ca: trustme.CA) -> None:
    assert ask(server, client_context(ca)) == 200
    assert ask(server, client_context(ca), "/livez") == 200


def test_old_versions_of_tls_are_refused(tls: ServerTls) -> None:
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_who_speaks_no_tls_gets_no_answer(server: ApiServer, ca: trustme.CA) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in sock.recv(1000)
    assert ask(server, client_context(ca)) == 200


def test_clients_that_never_finish_a_handshake_keep_nobody_out(
    server: ApiServer, ca: trustme.CA
) -> None:
    silent = [
        socket.create_connection(("127.0.0.1", server.port), timeout=30)
        for _ in range(MAX_HANDSHAKES - 1)
    ]
    try:
        assert ask(server, client_context(ca)) == 200
    finally:
        for sock in silent:
            sock.close()


def test_a_certificate_that_was_renewed_is_used_after_a_load(
    server: ApiServer, tls: ServerTls, tmp_path: Path
) -> None:
    other = trustme.CA()
    write(other.issue_cert("localhost"), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(server, client_context(other))
    tls.load()
    assert ask(server, client_context(other)) == 200


def test_a_key_that_does_not_fit_changes_nothing(
    server: ApiServer, tls: ServerTls, ca: trustme.CA, tmp_path: Path
) -> None:
    key = ca.issue_cert("localhost").private_key_pem.bytes()
    (tmp_path / "key.pem").write_bytes(key)
    with pytest.raises(ConfigError, match=r"^admin\.tls: .*cert\.pem and .*key\.pem"):
        tls.load()
    assert ask(server, client_context(ca)) == 200


def test_files_that_cannot_be_read_are_named(tmp_path: Path, tls: ServerTls) -> None:
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ConfigError, match=r"^admin\.tls\.key: cannot read .*key\.pem"):
        tls.load()


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path, tls: ServerTls) -> None:
    (tmp_path / "key.pem").write_text(ENCRYPTED)
    with pytest.raises(ConfigError, match=r"^admin\.tls\.key: .* is encrypted"):
        tls.load()

"""A real server whose control API speaks TLS, and takes a renewed certificate at SIGHUP."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest
import trustme

from tests.support.server import Server, config_of, server

pytestmark = pytest.mark.process


def write(ca: trustme.CA, folder: Path) -> None:
    leaf = ca.issue_cert("localhost")
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())


def status_of(running: Server, ca: trustme.CA) -> int:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    token = (running.state_dir / "admin.token").read_text().strip()
    connection = http.client.HTTPSConnection(
        "localhost", running.admin_port, timeout=30, context=context
    )
    try:
        connection.request("GET", "/v1/status", headers={"authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_renewed_certificate_is_served_after_sighup(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    write(old, tmp_path)
    config = config_of("  {}\n").replace(
        'admin: {listen: "127.0.0.1:0"}',
        'admin: {listen: "127.0.0.1:0", tls: {certificate: cert.pem, key: key.pem}}',
    )
    with server(tmp_path, config) as running:
        assert status_of(running, old) == 200
        write(new, tmp_path)
        running.reload()
        running.wait_for("reloaded")
        assert status_of(running, new) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            status_of(running, old)

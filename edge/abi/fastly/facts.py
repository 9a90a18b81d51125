"""What we know of a client connection, asked for by two modules; and what we honestly do not."""

from __future__ import annotations

from edge.abi.sandbox import Sandbox
from edge.errors import Missing

# Answered NONE: connections to us are plaintext (whoever ends TLS is in front of us).
TLS_DOC = "NONE: the connection is not TLS."
TLS_TEXTS = (
    "downstream_tls_cipher_openssl_name",
    "downstream_tls_protocol",
    "downstream_tls_client_hello",
    "downstream_tls_raw_client_certificate",
    "downstream_tls_ja4",
)
FINGERPRINT_DOC = "NONE: we take no fingerprints."
FINGERPRINT_TEXTS = ("downstream_client_h2_fingerprint", "downstream_client_oh_fingerprint")

COMPLIANCE_REGION = b"none"


def nothing_known(name: str) -> Missing:
    """The error for a fact that we do not have."""
    return Missing(f"{name}: not known of this connection")


def original_names(box: Sandbox) -> list[bytes]:
    """The client's field names as it spelt them, in order."""
    return box.downstream.head.original_names


def original_count(box: Sandbox) -> int:
    """How many fields the client sent."""
    return len(box.downstream.head.original_names)


def client_address(box: Sandbox) -> bytes:
    """4 or 16 octets."""
    return box.downstream.client_address


def server_address(box: Sandbox) -> bytes:
    """4 or 16 octets."""
    return box.downstream.server_address


def request_id(box: Sandbox) -> bytes:
    """32 lower-case hexadecimal digits."""
    return box.downstream.request_id.encode()

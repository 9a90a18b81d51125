"""What we know of a client connection, asked for by two modules; and what we honestly do not."""

from __future__ import annotations

from typing import Protocol

from edge.errors import Missing
from edge.http.message import Downstream

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


class OfClient(Protocol):
    """What belongs to one client: its request, or the sandbox that serves it now."""

    @property
    def downstream(self) -> Downstream: ...


def nothing_known(name: str) -> Missing:
    """The error for a fact that we do not have."""
    return Missing(f"{name}: not known of this connection")


def original_names(of: OfClient) -> list[bytes]:
    """The client's field names as it spelt them, in order."""
    return of.downstream.head.original_names


def original_count(of: OfClient) -> int:
    """How many fields the client sent."""
    return len(of.downstream.head.original_names)


def client_address(of: OfClient) -> bytes:
    """4 or 16 octets."""
    return of.downstream.client_address


def server_address(of: OfClient) -> bytes:
    """4 or 16 octets."""
    return of.downstream.server_address


def request_id(of: OfClient) -> bytes:
    """32 lower-case hexadecimal digits."""
    return of.downstream.request_id.encode()

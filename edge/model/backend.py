"""A backend: where requests of a guest may go, and how they get there.  No sockets here.

Those in the operator's document and those that a guest registers are the same type; `dynamic` tells
them apart, because the egress policy asks only about the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from edge.model.secret import Secret
from edge.settings import About, Kind


@dataclass(frozen=True, slots=True)
class Origin:
    """`scheme://host[:port][/prefix]`, taken apart."""

    tls: bool
    host: str  # lower-case name or address, without brackets
    port: int
    prefix: str = ""  # path before that of each request; no slash at its end

    def __str__(self) -> str:
        scheme, default = ("https", 443) if self.tls else ("http", 80)
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == default else f":{self.port}"
        return f"{scheme}://{host}{port}{self.prefix}"

    @property
    def authority(self) -> str:
        """Host and port as a Host field has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class TlsVersion(Enum):
    """As a document writes it; the ABI has 0 to 3 in this order."""

    TLS_1_0 = "1.0"
    TLS_1_1 = "1.1"
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class MockHealth(Enum):
    """Health that is told and not found out."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What we show to a backend that asks who we are."""

    certificate: str  # PEM, the chain
    key: Secret  # PEM


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A request sent again and again to learn whether a backend is well."""

    path: Annotated[
        str, About(Kind.TEXT, "Path and query that is asked for.", example="/healthz")
    ] = "/"
    method: Annotated[str, About(Kind.TEXT, "Its method.")] = "HEAD"
    host: Annotated[
        str, About(Kind.TEXT, "Its Host field; empty is that of the backend's requests.")
    ] = ""
    expected_status: Annotated[
        int, About(Kind.COUNT, "The status of a backend that is well.", least=100, most=599)
    ] = 200
    interval: Annotated[
        float,
        About(Kind.DURATION, "Time between two checks of one worker.", least=0.05, most=3600),
    ] = 15.0
    timeout: Annotated[
        float, About(Kind.DURATION, "Longest time for one check.", least=0.01, most=60)
    ] = 5.0
    window: Annotated[
        int, About(Kind.COUNT, "How many of the last checks are looked at.", least=1, most=64)
    ] = 5
    threshold: Annotated[
        int, About(Kind.COUNT, "How many of those must be good.", least=1, most=64)
    ] = 3
    initial: Annotated[
        int, About(Kind.COUNT, "How many good ones are assumed at the start.", least=0, most=64)
    ] = 3


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of one service; `url` is what a document requires."""

    name: str
    url: Annotated[
        Origin,
        About(
            Kind.URL,
            "Where it is: scheme, host, perhaps a port, perhaps a path before every request's.",
            example="https://origin.example.com",
        ),
    ]
    override_host: Annotated[
        str | None,
        About(
            Kind.TEXT,
            "Host field of its requests, in place of the guest's.",
            "For origins that route by name.",
            unset="none",
        ),
    ] = None
    connect_timeout: Annotated[
        float,
        About(
            Kind.DURATION,
            "For name, connection and TLS handshake together.",
            "Raise it for distant origins.",
            least=0.001,
            most=600,
        ),
    ] = 1.0
    first_byte_timeout: Annotated[
        float,
        About(
            Kind.DURATION,
            "From the end of the request to the first byte of the response. While a body is still "
            "being sent it runs only when the backend takes nothing.",
            "Raise it for slow origins.",
            least=0.001,
            most=3600,
        ),
    ] = 15.0
    between_bytes_timeout: Annotated[
        float,
        About(
            Kind.DURATION,
            "Longest silence within a response that we are ready to read.",
            "Raise it for event streams.",
            least=0.001,
            most=3600,
        ),
    ] = 10.0
    verify: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Whether its certificate is checked.",
            "Never turn it off but to find a fault.",
        ),
    ] = True
    cert_host: Annotated[
        str | None,
        About(
            Kind.TEXT,
            "Name that its certificate must be for, in place of the URL's host.",
            unset="none",
        ),
    ] = None
    use_sni: Annotated[
        bool, About(Kind.SWITCH, "Whether TLS tells the server which name we want.")
    ] = True
    sni_host: Annotated[
        str | None,
        About(
            Kind.TEXT,
            "That name, in place of `cert_host` or the URL's host.",
            unset="none",
        ),
    ] = None
    ca_certificate: Annotated[
        str | None,
        About(
            Kind.PEM,
            "Certificates to trust in place of the system's.",
            "For a private authority.",
            unset="none",
        ),
    ] = None
    client_certificate: Annotated[
        ClientCertificate | None,
        About(
            Kind.CERTIFICATE,
            "What we show to a server that asks; each of the two may be `{file: PATH}`.",
            unset="none",
        ),
    ] = None
    min_tls: Annotated[TlsVersion | None, About(Kind.CHOICE, "Oldest TLS.", unset="default")] = None
    max_tls: Annotated[TlsVersion | None, About(Kind.CHOICE, "Newest TLS.", unset="default")] = None
    ciphers: Annotated[
        str | None,
        About(Kind.TEXT, "Cipher list for TLS 1.2 and older, as OpenSSL writes it.", unset="none"),
    ] = None
    http2: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Offer HTTP/2 when connecting with TLS; it is used when the server agrees.",
            "For origins that serve many requests at once.",
        ),
    ] = False
    grpc: Annotated[
        bool,
        About(Kind.SWITCH, "The backend speaks gRPC: HTTP/2 is required, with or without TLS."),
    ] = False
    keep_alive: Annotated[
        float,
        About(
            Kind.DURATION,
            "How long an idle connection is kept; 0 keeps none.",
            "Below the origin's own keep-alive.",
            least=0,
            most=3600,
        ),
    ] = 30.0
    max_connections: Annotated[
        int,
        About(
            Kind.COUNT,
            "Most connections of one worker; a request that would need another fails. 0 is no "
            "limit of its own.",
            least=0,
            most=100_000,
        ),
    ] = 0
    max_use: Annotated[
        int,
        About(
            Kind.COUNT, "Most requests on one connection; 0 is any number.", least=0, most=1_000_000
        ),
    ] = 0
    max_lifetime: Annotated[
        float,
        About(
            Kind.DURATION, "Oldest connection that is used again; 0 is any.", least=0, most=86400
        ),
    ] = 0.0
    prefer_ipv4: Annotated[bool, About(Kind.SWITCH, "Try IPv4 addresses before IPv6.")] = False
    tcp_keep_alive: Annotated[
        float,
        About(
            Kind.DURATION,
            "Silence after which TCP asks whether the peer is there; 0 does not ask.",
            least=0,
            most=86400,
        ),
    ] = 0.0
    health_check: Annotated[
        HealthCheck | None,
        About(
            Kind.GROUP,
            "How to learn whether it is well; keys are below.",
            "So that guests can choose another.",
            unset="none",
        ),
    ] = None
    health: Annotated[
        MockHealth | None,
        About(
            Kind.CHOICE,
            "Health that guests are told, without any check.",
            "For tests.",
            unset="none",
        ),
    ] = None
    # Facts of a dynamic backend that a document has no words for.
    dynamic: bool = False
    named_by_guest: bool = False  # it leads where the operator says, and there may be many of it
    tcp_keep_alive_interval: float = 0.0  # seconds; 0: the kernel's
    tcp_keep_alive_probes: int = 0  # 0: the kernel's

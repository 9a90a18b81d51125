"""A request to a backend and what becomes of it, as values.  The contract between who asks and who
sends: `edge.abi` knows nothing of connections, `edge.upstream` nothing of guests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from edge.errors import UpstreamError
from edge.http.body import Account, Body
from edge.http.message import Headers
from edge.model.backend import Backend


class Cause(Enum):
    """Why a request to a backend failed.  The value is the word in logs and metrics.

    They are those of `send_error_detail_tag` (ABI page, section 5), less what only a cache can say.
    """

    DNS_TIMEOUT = "dns_timeout"
    DNS_ERROR = "dns_error"
    DESTINATION_NOT_FOUND = "destination_not_found"  # no such backend
    DESTINATION_UNAVAILABLE = "destination_unavailable"  # unhealthy, or told to fail
    DESTINATION_IP_UNROUTABLE = "destination_ip_unroutable"  # no way there, or the egress policy
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_TERMINATED = "connection_terminated"
    CONNECTION_TIMEOUT = "connection_timeout"
    CONNECTION_LIMIT_REACHED = "connection_limit_reached"
    TLS_CERTIFICATE_ERROR = "tls_certificate_error"
    TLS_CONFIGURATION_ERROR = "tls_configuration_error"
    TLS_ALERT_RECEIVED = "tls_alert_received"
    TLS_PROTOCOL_ERROR = "tls_protocol_error"
    HTTP_INCOMPLETE_RESPONSE = "http_incomplete_response"
    HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE = "http_response_header_section_too_large"
    HTTP_RESPONSE_BODY_TOO_LARGE = "http_response_body_too_large"
    HTTP_RESPONSE_TIMEOUT = "http_response_timeout"
    HTTP_RESPONSE_STATUS_INVALID = "http_response_status_invalid"
    HTTP_UPGRADE_FAILED = "http_upgrade_failed"
    HTTP_PROTOCOL_ERROR = "http_protocol_error"
    HTTP_REQUEST_URI_INVALID = "http_request_uri_invalid"
    H2_ERROR = "h2_error"
    LOOP = "loop"  # the request has come through here too often
    INTERNAL_ERROR = "internal_error"


_TIMEOUTS = frozenset((Cause.DNS_TIMEOUT, Cause.CONNECTION_TIMEOUT, Cause.HTTP_RESPONSE_TIMEOUT))
_UNAVAILABLE = frozenset((Cause.DESTINATION_UNAVAILABLE, Cause.CONNECTION_LIMIT_REACHED))


class UpstreamFailed(UpstreamError):
    """A request to a backend that got no response, or whose response broke off.

    The message is for operators: it names the backend, the address and what was tried.
    """

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        dns_rcode: int | None = None,
        tls_alert: int | None = None,
        h2_error: tuple[int, int] | None = None,  # frame type, error code
        setting: str = "",  # what the operator would change, when it was a policy of ours
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.dns_rcode = dns_rcode
        self.tls_alert = tls_alert
        self.h2_error = h2_error
        self.setting = setting

    @property
    def status_hint(self) -> int:  # type: ignore[override]  # a constant in the base
        """What a client is answered when the failure is passed on."""
        if self.cause in _TIMEOUTS:
            return 504
        if self.cause is Cause.LOOP:
            return 508
        return 503 if self.cause in _UNAVAILABLE else 502


class Health(Enum):
    """What is known of a backend; the values are those of the ABI's `backend_health`."""

    UNKNOWN = 0
    HEALTHY = 1
    UNHEALTHY = 2


OnBroken = Callable[[UpstreamFailed], None]


@dataclass(slots=True)
class UpstreamRequest:
    """A request on its way to a backend.  `body` may still be written to; it is sent as it arrives.

    `headers` are as the guest left them: whoever sends drops hop-by-hop fields, makes framing,
    Host and CDN-Loop.  `account` pays for what waits of the response.
    """

    backend: Backend
    method: bytes
    uri: bytes  # absolute or origin form, as the guest set it
    headers: Headers
    body: Body
    account: Account
    manual_framing: bool = False
    auto_decompress: bool = False  # undo gzip on the response
    wants_h2: bool = False  # the guest set the version to HTTP/2
    cdn_loop: bytes = b""  # the CDN-Loop value to send; empty for none
    upgrade: bool = False  # a 101 is wanted: the connection becomes two streams of bytes
    # Told when the body of the response breaks off, which its reader learns as an error.
    on_broken: OnBroken | None = None


@dataclass(slots=True)
class UpstreamResponse:
    """The head of a final response; the body may still be arriving."""

    status: int
    headers: Headers  # lower-case names, hop-by-hop fields gone
    body: Body
    version: int = 11  # 10, 11 or 20
    address: bytes = b""  # 4 or 16 octets of who answered
    port: int = 0
    hints: list[tuple[int, Headers]] = field(default_factory=list)  # interim responses, at most 8


class Pending(Protocol):
    """A request that has been sent, or is waiting to be."""

    @property
    def is_ready(self) -> bool:
        """True when `result` would give the response or raise the failure."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when it becomes ready."""
        ...

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Forget a callback that has not been called."""
        ...

    def result(self) -> UpstreamResponse:
        """Only when ready.  Raises UpstreamFailed."""
        ...

    def abandon(self) -> None:
        """Nobody wants the response: give the connection up, unless it is over already."""
        ...


class Upstream(Protocol):
    """Whoever sends requests to backends.  One per worker."""

    def send(self, request: UpstreamRequest) -> Pending:
        """Never raises: whatever is wrong is the pending request's failure."""
        ...

    def leave(self, pending: Pending) -> None:
        """The guest has ended and may have sent it for its effect: it goes on, within bounds."""
        ...

    def health(self, backend: Backend) -> Health:
        """By its checks or by what its configuration tells; UNKNOWN without either."""
        ...

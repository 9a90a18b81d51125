"""What an operating system or TLS error means: one table per kind, one function that asks them.

Messages name the backend and the address; they never hold bytes of a key, certificate or request.
"""

from __future__ import annotations

import errno
import os
import re
import ssl

from edge.model.backend import Backend
from edge.upstream.fetch import Cause, UpstreamFailed

_BY_ERRNO = {
    errno.ECONNREFUSED: Cause.CONNECTION_REFUSED,
    errno.ECONNRESET: Cause.CONNECTION_TERMINATED,
    errno.ECONNABORTED: Cause.CONNECTION_TERMINATED,
    errno.EPIPE: Cause.CONNECTION_TERMINATED,
    errno.ENOTCONN: Cause.CONNECTION_TERMINATED,
    errno.ETIMEDOUT: Cause.CONNECTION_TIMEOUT,
    errno.EHOSTUNREACH: Cause.DESTINATION_IP_UNROUTABLE,
    errno.EHOSTDOWN: Cause.DESTINATION_IP_UNROUTABLE,
    errno.ENETUNREACH: Cause.DESTINATION_IP_UNROUTABLE,
    errno.ENETDOWN: Cause.DESTINATION_IP_UNROUTABLE,
    errno.EAFNOSUPPORT: Cause.DESTINATION_IP_UNROUTABLE,  # no IPv6 in this kernel
    errno.EADDRNOTAVAIL: Cause.DESTINATION_IP_UNROUTABLE,  # IPv6 is switched off
    errno.EACCES: Cause.DESTINATION_IP_UNROUTABLE,  # a broadcast address, or a firewall of ours
    errno.EPERM: Cause.DESTINATION_IP_UNROUTABLE,
    errno.EINVAL: Cause.DESTINATION_IP_UNROUTABLE,  # link-local without a zone
    errno.EMFILE: Cause.CONNECTION_LIMIT_REACHED,
    errno.ENFILE: Cause.CONNECTION_LIMIT_REACHED,
    errno.ENOBUFS: Cause.CONNECTION_LIMIT_REACHED,
    errno.ENOMEM: Cause.CONNECTION_LIMIT_REACHED,
    errno.EAGAIN: Cause.CONNECTION_LIMIT_REACHED,  # no local port is left
}

_words = re.compile(r"\] ([a-z0-9 ]{1,80}) \(")

# Alerts as OpenSSL names their reception (sslerr.h: reason 1000 + number), RFC 8446 section 6.
_ALERTS = {
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": 10,
    "SSLV3_ALERT_BAD_RECORD_MAC": 20,
    "TLSV1_ALERT_DECRYPTION_FAILED": 21,
    "TLSV1_ALERT_RECORD_OVERFLOW": 22,
    "SSLV3_ALERT_DECOMPRESSION_FAILURE": 30,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 40,
    "SSLV3_ALERT_NO_CERTIFICATE": 41,
    "SSLV3_ALERT_BAD_CERTIFICATE": 42,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": 43,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": 44,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 45,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 46,
    "SSLV3_ALERT_ILLEGAL_PARAMETER": 47,
    "TLSV1_ALERT_UNKNOWN_CA": 48,
    "TLSV1_ALERT_ACCESS_DENIED": 49,
    "TLSV1_ALERT_DECODE_ERROR": 50,
    "TLSV1_ALERT_DECRYPT_ERROR": 51,
    "TLSV1_ALERT_EXPORT_RESTRICTION": 60,
    "TLSV1_ALERT_PROTOCOL_VERSION": 70,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": 71,
    "TLSV1_ALERT_INTERNAL_ERROR": 80,
    "TLSV1_ALERT_INAPPROPRIATE_FALLBACK": 86,
    "TLSV1_ALERT_USER_CANCELLED": 90,
    "TLSV1_ALERT_NO_RENEGOTIATION": 100,
    "TLSV13_ALERT_MISSING_EXTENSION": 109,
    "TLSV1_UNSUPPORTED_EXTENSION": 110,
    "TLSV1_CERTIFICATE_UNOBTAINABLE": 111,
    "TLSV1_UNRECOGNIZED_NAME": 112,
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": 113,
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE": 114,
    "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY": 115,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": 116,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": 120,
}


def failure(backend: Backend, where: str, error: BaseException) -> UpstreamFailed:
    """The failure that a connection's `error` stands for; `where` is the peer, for people."""
    prefix = f"backend {backend.name} ({where}): "
    if isinstance(error, UpstreamFailed):
        return error
    if isinstance(error, ssl.SSLError):
        return _tls_failure(prefix, error)
    if isinstance(error, OSError):
        cause = _BY_ERRNO.get(error.errno or 0)
        if cause is None:  # asyncio raises some without a number, when a peer just closed
            is_gone = isinstance(error, ConnectionError)
            cause = Cause.CONNECTION_TERMINATED if is_gone else Cause.INTERNAL_ERROR
        text = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
        return UpstreamFailed(cause, prefix + text)
    return UpstreamFailed(Cause.INTERNAL_ERROR, f"{prefix}{type(error).__name__}")


def _tls_failure(prefix: str, error: ssl.SSLError) -> UpstreamFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{prefix}its certificate is not trusted: {error.verify_message}"
        return UpstreamFailed(Cause.TLS_CERTIFICATE_ERROR, text)
    reason = getattr(error, "reason", None) or _reason(str(error))
    alert = _ALERTS.get(reason)
    if alert is not None:
        text = f"{prefix}the server ended TLS with alert {alert} ({reason})"
        return UpstreamFailed(Cause.TLS_ALERT_RECEIVED, text, tls_alert=alert)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return UpstreamFailed(Cause.CONNECTION_TERMINATED, f"{prefix}closed during TLS")
    text = f"{prefix}TLS failed: {reason or type(error).__name__}"
    return UpstreamFailed(Cause.TLS_PROTOCOL_ERROR, text)


def _reason(text: str) -> str:
    """OpenSSL's name for what Python has only OpenSSL's words for (it knows some alerts not)."""
    found = _words.search(text)
    return found[1].upper().replace(" ", "_") if found is not None else ""

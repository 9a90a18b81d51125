"""Errors of the operating system and of OpenSSL, and what they are called towards guests."""

from __future__ import annotations

import errno
import ssl

import pytest

from edge.upstream.failures import failure
from edge.upstream.fetch import Cause, UpstreamFailed
from tests.support.backends import backend

WHERE = "192.0.2.1 port 443"


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ECONNREFUSED, Cause.CONNECTION_REFUSED),
        (errno.ECONNRESET, Cause.CONNECTION_TERMINATED),
        (errno.EPIPE, Cause.CONNECTION_TERMINATED),
        (errno.ETIMEDOUT, Cause.CONNECTION_TIMEOUT),
        (errno.EHOSTUNREACH, Cause.DESTINATION_IP_UNROUTABLE),
        (errno.ENETUNREACH, Cause.DESTINATION_IP_UNROUTABLE),
        (errno.EMFILE, Cause.CONNECTION_LIMIT_REACHED),
        (errno.ENFILE, Cause.CONNECTION_LIMIT_REACHED),
        (errno.EXDEV, Cause.INTERNAL_ERROR),
    ],
)
def test_an_error_number_has_a_cause_and_names_backend_and_address(
    number: int, cause: Cause
) -> None:
    found = failure(backend(), WHERE, OSError(number, "x"))
    assert found.cause is cause
    assert "origin" in str(found)
    assert WHERE in str(found)


def test_a_connection_error_without_a_number_is_a_connection_that_ended() -> None:
    found = failure(backend(), WHERE, ConnectionResetError("the peer closed"))
    assert found.cause is Cause.CONNECTION_TERMINATED
    assert "the peer closed" in str(found)


def test_what_is_a_failure_already_stays_as_it_is() -> None:
    known = UpstreamFailed(Cause.DNS_ERROR, "x")
    assert failure(backend(), WHERE, known) is known


def test_anything_else_is_ours() -> None:
    assert failure(backend(), WHERE, RuntimeError("x")).cause is Cause.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("text", "cause", "alert"),
    [
        ("[SSL] tlsv1 alert no application protocol (_ssl.c:1)", Cause.TLS_ALERT_RECEIVED, 120),
        ("[SSL] something of tomorrow (_ssl.c:1)", Cause.TLS_PROTOCOL_ERROR, None),
        ("no form at all", Cause.TLS_PROTOCOL_ERROR, None),
    ],
)
def test_an_error_that_python_has_no_name_for_is_read_by_its_words(
    text: str, cause: Cause, alert: int | None
) -> None:
    found = failure(backend(), WHERE, ssl.SSLError(1, text))
    assert (found.cause, found.tls_alert) == (cause, alert)


def test_the_end_of_the_stream_during_tls_is_a_connection_that_ended() -> None:
    found = failure(backend(), WHERE, ssl.SSLEOFError(8, "EOF occurred"))
    assert found.cause is Cause.CONNECTION_TERMINATED

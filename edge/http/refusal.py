"""The closed list of reasons for which a request is refused before any service sees it."""

from __future__ import annotations

from enum import Enum

from edge.errors import DownstreamError


class BadRequest(Enum):
    """Why; the value is a metric label."""

    SYNTAX = "syntax"
    VERSION = "version"
    METHOD = "method"
    TARGET = "target"
    TARGET_TOO_LONG = "target_too_long"
    HEAD_TOO_LARGE = "head_too_large"
    HOST = "host"
    SCHEME = "scheme"
    FRAMING = "framing"
    EXPECTATION = "expectation"
    BODY = "body"  # a chunked body that breaks the coding
    BODY_TOO_LARGE = "body_too_large"
    PROXY_PROTOCOL = "proxy_protocol"
    TIMEOUT = "timeout"  # the head did not arrive in time


class Refused(DownstreamError):
    """A request that breaks HTTP or a limit; the connection ends after the answer."""

    def __init__(self, kind: BadRequest, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.kind = kind

"""Header fields: what a name and a value may be, and which fields stop here.  Not a container.

Heads are plain lists of `(name, value)` pairs (`edge.http.message.Headers`); this module knows the
grammar of RFC 9110 section 5 and the fields that a hop must not pass on (section 7.6.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from edge.http.message import Headers

# RFC 9110 section 5.6.2.  Possessive quantifiers: hostile input cannot make these backtrack.
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9110 section 5.5: tab, space, visible ASCII and obs-text; so no CR, LF, NUL nor other control.
VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"

_token = re.compile(TOKEN)
_value = re.compile(VALUE)

# Ours on every connection we end: RFC 9110 section 7.6.1.
HOP_BY_HOP = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade")
)
# Fields by which the host speaks to operators; nobody else may forge them.
RESERVED_PREFIX = b"x-edge-"

# RFC 9110 section 6.5.1: a trailer may not change framing, routing, authentication, request
# modifiers or the meaning of the content that went before it.
FORBIDDEN_TRAILERS = HOP_BY_HOP | frozenset(
    (
        b"accept-encoding age authorization cache-control content-encoding content-length "
        b"content-range content-type cookie date expect expires forwarded host if-match "
        b"if-modified-since if-none-match if-range if-unmodified-since location max-forwards "
        b"pragma proxy-authenticate proxy-authorization range retry-after set-cookie trailer vary "
        b"warning www-authenticate x-request-id"
    ).split()
)


def is_token(name: bytes) -> bool:
    """True if `name` may be a field name or a method."""
    return _token.fullmatch(name) is not None


def is_value(value: bytes) -> bool:
    """True if `value` may be a field value (outer white space is allowed, line ends are not)."""
    return _value.fullmatch(value) is not None


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """The lower-case options that Connection fields name."""
    return frozenset(
        option
        for value in values
        for part in value.lower().split(b",")
        if (option := part.strip(b" \t"))
    )


def is_forbidden_trailer(name: bytes) -> bool:
    """True if the field `name` (lower-case) must not take effect after the content."""
    return name in FORBIDDEN_TRAILERS or name.startswith((RESERVED_PREFIX, b"x-forwarded-"))


def clean_trailers(trailers: Headers) -> Headers:
    """The trailers that may be passed on: valid names and values, nothing forbidden."""
    return [
        (lowered, value)
        for name, value in trailers
        if is_token(name) and is_value(value) and not is_forbidden_trailer(lowered := name.lower())
    ]

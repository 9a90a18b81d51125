"""Response heads of backends: one strict reading of the bytes up to the empty line.  No bodies.

A backend may be hostile, or share a connection with another tenant's secrets: whatever two readers
could understand differently is refused, and the connection with it (RFC 9112 sections 4 to 6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from edge.errors import UpstreamError
from edge.http.framing import CHUNKED
from edge.http.headers import HOP_BY_HOP, TOKEN, VALUE, connection_options
from edge.http.message import Headers

# What a client may send us, and what the SDKs have room for.
MAX_HEAD = 69_000
MAX_FIELDS = 512
UNTIL_CLOSE = -2  # in place of a length, beside framing.CHUNKED

# The reason phrase may be missing, with or without the space before it: many servers send neither.
_head = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + VALUE + rb")?+\r\n"
    rb"((?:" + TOKEN + rb":" + VALUE + rb"\r\n)*+)\r\n"
)
_field = re.compile(rb"([^:]++):[\t ]*+([^\r]*+)\r\n")
_digits = re.compile(rb"[0-9]{1,19}")
_timeout = re.compile(rb"(?i:(?:^|[ ,])timeout=\"?([0-9]{1,6})\"?(?:[ ,]|$))")
_status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) (\S*)")
_never_in_head = re.compile(rb"(?<!\r)\n|\r(?![\n])(?!\Z)|\x00")

# Names as backends spell them, to lower case; only names that nothing here depends on.
_plain: dict[bytes, bytes] = {}
_PLAIN_MAX = 2048
_HARMLESS = frozenset((b"close", b"keep-alive"))
_KEPT = frozenset((b"content-length", b"upgrade"))  # what a Connection option does not take away


class Fault(Enum):
    """What kind of wrong a head is."""

    SYNTAX = "syntax"
    STATUS = "status"
    TOO_LARGE = "too_large"


class BadResponse(UpstreamError):
    """A response head that breaks HTTP or a limit."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


@dataclass(slots=True)
class RawResponse:
    """What a response head says.

    `headers` have lower-case names and no hop-by-hop fields, except `upgrade` in a 101.  `length`:
    bytes of body, CHUNKED or UNTIL_CLOSE; 0 when there can be none.
    """

    status: int
    minor: int
    headers: Headers
    length: int
    keep_alive: bool
    idle_timeout: int | None = None  # seconds, by its Keep-Alive field


def read_response(head: bytes, *, to_head: bool) -> RawResponse:
    """Read a complete head (its empty line included).  `to_head`: of an answer to HEAD.

    Raises BadResponse.
    """
    if len(head) > MAX_HEAD:
        raise _too_large()
    found = _head.fullmatch(head)
    if found is None:
        raise _diagnose(head)
    minor = 1 if found[1] == b"1" else 0
    status = int(found[2])
    block = found[3]
    if block.count(b"\n") > MAX_FIELDS:
        raise BadResponse(Fault.TOO_LARGE, f"a response with more than {MAX_FIELDS} fields")
    fields = _field.findall(block)
    if b" \r" in block or b"\t\r" in block:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    headers: Headers = []
    special: Headers = []
    plain = _plain
    for spelt, value in fields:
        name = plain.get(spelt)
        if name is None:
            name = spelt.lower()
            if name == b"content-length" or name in HOP_BY_HOP:
                special.append((name, value))
                continue
            if len(plain) < _PLAIN_MAX and len(spelt) <= 64:
                plain[spelt] = name
        headers.append((name, value))
    bodiless = to_head or status in (204, 304) or status < 200
    return _settle(status, minor, headers, special, bodiless=bodiless)


def _settle(
    status: int, minor: int, headers: Headers, special: Headers, *, bodiless: bool
) -> RawResponse:
    """Framing and persistence, by the fields that say something about them."""
    length: bytes | None = None
    codings: list[bytes] = []
    connection: list[bytes] = []
    idle_timeout: int | None = None
    for name, value in special:
        if name == b"content-length":
            # RFC 9112 section 6.3 lets the same length be said twice; it is passed on once.
            if length is None:
                length = value
                headers.append((name, value))
            elif value != length:
                raise BadResponse(Fault.SYNTAX, "more than one Content-Length")
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            connection.append(value)
        elif name == b"keep-alive":
            hint = _timeout.search(value)
            idle_timeout = int(hint[1]) if hint is not None else idle_timeout
        elif name == b"upgrade" and status == 101:
            headers.append((name, value))
    keep_alive = minor == 1
    if connection:
        options = connection_options(connection)
        keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
        if not options <= _HARMLESS:
            # What decided about framing stays decided: an option cannot unsay a length.
            headers = [field for field in headers if field[0] not in options or field[0] in _KEPT]
    size = UNTIL_CLOSE
    if codings:
        size = _chunked(codings, length, minor)
    elif length is not None:
        if _digits.fullmatch(length) is None:
            raise BadResponse(Fault.SYNTAX, "Content-Length is not a number")
        size = int(length)
    elif not bodiless:
        keep_alive = False  # its end is that of the connection
    if bodiless:
        # RFC 9110 section 8.6: a 204 has neither; who sends one may well send a body after it.
        if status == 204 and size not in (0, UNTIL_CLOSE):
            keep_alive = False
        size = 0
    return RawResponse(status, minor, headers, size, keep_alive, idle_timeout)


def _chunked(codings: list[bytes], length: bytes | None, minor: int) -> int:
    """RFC 9112 section 6.3, without its repairs."""
    if length is not None:
        raise BadResponse(Fault.SYNTAX, "both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise BadResponse(Fault.SYNTAX, "Transfer-Encoding in an HTTP/1.0 response")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        raise BadResponse(Fault.SYNTAX, "a Transfer-Encoding other than chunked")
    return CHUNKED


def refuse_partial(head: bytes | bytearray, scanned: int) -> None:
    """Raise BadResponse if an unfinished head can never become one, or is too large already.

    `scanned`: how many of its bytes have been looked at by an earlier call.
    """
    if len(head) > MAX_HEAD:
        raise _too_large()
    if not b"HTTP/1.".startswith(head[:7]):
        raise BadResponse(Fault.SYNTAX, "something that is not HTTP/1")
    if _never_in_head.search(head, max(0, scanned - 1)):
        raise BadResponse(Fault.SYNTAX, "a bare CR or LF, or NUL, in the head")


def _too_large() -> BadResponse:
    return BadResponse(Fault.TOO_LARGE, f"a response head of more than {MAX_HEAD} bytes")


def _diagnose(head: bytes) -> BadResponse:
    """Say what is wrong with a head that the strict expression refused."""
    line, _, rest = head.partition(b"\r\n")
    found = _status_line.match(line)
    if found is None:
        return BadResponse(Fault.SYNTAX, "something that is not HTTP/1")
    if found[1] != b"1" or found[2] not in b"01":
        return BadResponse(Fault.SYNTAX, "a version other than HTTP/1.0 and HTTP/1.1")
    if re.fullmatch(rb"[1-9][0-9][0-9]", found[3]) is None:
        return BadResponse(Fault.STATUS, f"status {found[3][:16]!r}")
    if _never_in_head.search(rest):
        return BadResponse(Fault.SYNTAX, "a bare CR or LF, or NUL, in the head")
    if any(line[:1] in (b" ", b"\t") for line in rest.split(b"\r\n")):
        return BadResponse(Fault.SYNTAX, "a folded header field")
    return BadResponse(Fault.SYNTAX, "a malformed header field")

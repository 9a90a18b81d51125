"""Request heads, raw: one strict reading of the bytes up to the empty line.  Not the guest's view.

A single expression decides whether the bytes are a head at all; what is left is looked up in it.
`httptools` reads the same bytes afterwards (in `edge.server.connection`) as a second opinion: alone
it accepts far too much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import InvalidHead
from edge.http.addresses import Authority, parse_authority
from edge.http.framing import request_length
from edge.http.headers import TOKEN, VALUE, connection_options, is_token
from edge.http.refusal import BadRequest, Refused

# The eight standard methods other than CONNECT, Fastly's PURGE, and the registered ones that people
# run services for.  A method that is not here is answered 501, as is CONNECT (we are no tunnel).
METHODS = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH PURGE QUERY SEARCH REPORT PROPFIND PROPPATCH "
    b"MKCOL COPY MOVE LOCK UNLOCK LINK UNLINK".split()
)

# Request line and fields.  The target is visible ASCII without `#`: what browsers really send is
# wider than RFC 3986 (`|`, `{`), and it is passed through as it came.
_head = re.compile(
    rb"(" + TOKEN + rb") ([!\x22\x24-\x7e]++) HTTP/1\.([01])\r\n"
    rb"((?:" + TOKEN + rb":" + VALUE + rb"\r\n)*+)\r\n"
)
# The fields that decide about the message, and where it has been.  A line end, then the first
# letter as a set: this is ten times faster on a browser's head than a case-insensitive expression
# (0.8 us instead of 8.6 us).
_special = re.compile(
    rb"\n([hHcCtTuUeE](?i:ost|onnection|ontent-length|dn-loop|ransfer-encoding|pgrade|xpect))"
    rb":[\t ]*+([^\r]*+)"
)
_field = re.compile(rb"([^:]++):[\t ]*+([^\r]*+)\r\n")
_absolute = re.compile(rb"(?i:(https?)://)([^/?]*+)(.*+)")
_request_line = re.compile(rb"([^ ]*+) (.*) HTTP/([0-9]++)\.([0-9]++)")
# Seen in a head that is still incomplete: it can never become one.
NEVER_IN_HEAD = re.compile(rb"(?<!\r)\n|\r(?![\n])(?!\Z)|\x00")


@dataclass(slots=True)
class RawHead:
    """What a request head says, before anybody's view of it.

    `path` is the raw path without the query.  `length`: bytes of body, 0, or framing.CHUNKED.
    """

    method: bytes
    target: bytes  # origin form, or `*`
    path: bytes
    minor: int
    authority: Authority
    block: bytes  # the field lines, each with its CRLF
    length: int
    keep_alive: bool
    upgrade: bool  # an upgrade was asked for
    expects_continue: bool
    scheme: bytes  # of an absolute-form target, else b""
    cdn_loop: Sequence[bytes] = ()  # values of that field (RFC 8586)


def read_head(head: bytes, *, max_target: int, max_fields: int, scheme: bytes = b"http") -> RawHead:
    """Read a complete head (its empty line included).  Raises Refused.

    `max_target` in bytes; `scheme` says which port is the default one.
    """
    found = _head.fullmatch(head)
    if found is None:
        raise _diagnose(head, max_target)
    method, target, minor_digit, block = found.groups()
    if method not in METHODS:
        raise Refused(BadRequest.METHOD, 501, f"method {method[:32].decode()}, which is not served")
    if len(target) > max_target:
        raise _too_long(max_target)
    minor = 1 if minor_digit == b"1" else 0
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection: list[bytes] = []
    expectations: list[bytes] = []
    loops: list[bytes] = []
    upgrade = False
    for name, value in _special.findall(head):
        if value[-1:] in (b" ", b"\t"):
            value = value.rstrip(b" \t")
        # The expression also finds `Cost` and the like: only the whole name decides.
        match name.lower():
            case b"host":
                hosts.append(value)
            case b"connection":
                connection.append(value)
            case b"content-length":
                lengths.append(value)
            case b"transfer-encoding":
                codings.append(value)
            case b"upgrade":
                upgrade = True
            case b"expect":
                expectations.append(value)
            case b"cdn-loop":
                loops.append(value)
    if block.count(b"\n") > max_fields:
        raise Refused(BadRequest.HEAD_TOO_LARGE, 431, f"more than {max_fields} header fields")
    if len(hosts) != 1:
        raise Refused(BadRequest.HOST, 400, "no Host" if not hosts else "more than one Host")
    authority = _authority(hosts[0], scheme)
    target_scheme = b""
    if target[0] != 0x2F:  # "/"
        target, target_scheme, authority = _other_form(method, target, authority, scheme)
    keep_alive = minor == 1
    if connection:
        options = connection_options(connection)
        keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
        upgrade = upgrade or b"upgrade" in options
    # Spelled for speed: most requests have no body, and say so by having neither field.
    length = request_length(lengths, codings, minor=minor) if lengths or codings else 0
    return RawHead(
        method,
        target,
        target.partition(b"?")[0],
        minor,
        authority,
        block,
        length,
        keep_alive,
        upgrade,
        bool(expectations) and _expects_continue(expectations, minor),
        target_scheme,
        loops,
    )


def split_fields(block: bytes) -> list[tuple[bytes, bytes]]:
    """Names as sent and trimmed values of the field lines of a head that `read_head` accepted."""
    return [
        (name, value.rstrip(b" \t") if value[-1:] in (b" ", b"\t") else value)
        for name, value in _field.findall(block)
    ]


def refuse_partial(head: bytes | bytearray, *, max_head: int, max_target: int) -> None:
    """Raise Refused if an unfinished head is already too large."""
    # 64 bytes for method, spaces and version: the exact check comes with the whole line.
    if len(head) > max_target + 64 and head.find(b"\r\n", 0, max_target + 64) < 0:
        raise _too_long(max_target)
    if len(head) > max_head:
        raise Refused(BadRequest.HEAD_TOO_LARGE, 431, f"a head of more than {max_head} bytes")


def _authority(raw: bytes, scheme: bytes) -> Authority:
    """Clients repeat their Host: remember the last few hundred (a pure function's results)."""
    key = (raw, scheme)
    known = _authorities.get(key)
    if known is None:
        try:
            known = parse_authority(raw, scheme)
        except InvalidHead as error:
            raise Refused(BadRequest.HOST, 400, f"invalid Host: {error}") from None
        if len(_authorities) >= 512:
            _authorities.clear()
        _authorities[key] = known
    return known


_authorities: dict[tuple[bytes, bytes], Authority] = {}


def _other_form(
    method: bytes, target: bytes, authority: Authority, scheme: bytes
) -> tuple[bytes, bytes, Authority]:
    """Absolute form (its authority wins, RFC 9112 section 3.2.2) as origin form; asterisk form."""
    if target == b"*":
        if method == b"OPTIONS":
            return target, b"", authority
        raise Refused(BadRequest.TARGET, 400, "a target of * that is not for OPTIONS")
    found = _absolute.fullmatch(target)
    if found is None:
        raise Refused(BadRequest.TARGET, 400, "a target that is neither a path nor a http URL")
    own_scheme, rest = found[1].lower(), found[3]
    try:
        authority = parse_authority(found[2], own_scheme)
    except InvalidHead as error:
        raise Refused(BadRequest.TARGET, 400, f"invalid authority in the target: {error}") from None
    if not rest and method == b"OPTIONS":
        return b"*", own_scheme, authority  # RFC 9112 section 3.2.4
    return (rest if rest[:1] == b"/" else b"/" + rest), own_scheme, authority


def _expects_continue(expectations: list[bytes], minor: int) -> bool:
    """RFC 9110 section 10.1.1: 1.0 cannot ask; an expectation we do not know is answered 417."""
    members = [part.strip(b" \t").lower() for value in expectations for part in value.split(b",")]
    if any(member not in (b"", b"100-continue") for member in members):
        raise Refused(BadRequest.EXPECTATION, 417, "an expectation other than 100-continue")
    return minor == 1


def _too_long(max_target: int) -> Refused:
    return Refused(BadRequest.TARGET_TOO_LONG, 414, f"a target of more than {max_target} bytes")


def _diagnose(head: bytes, max_target: int) -> Refused:
    """Say what is wrong with a head that the strict expression refused."""
    line, _, rest = head.partition(b"\r\n")
    found = _request_line.fullmatch(line)
    if found is None:
        if len(line) > max_target + 64:
            return _too_long(max_target)
        return Refused(BadRequest.SYNTAX, 400, "a malformed request line")
    method, target, major, minor = found.groups()
    if not is_token(method):
        return Refused(BadRequest.SYNTAX, 400, "a method that is not a token")
    if (major, minor) not in ((b"1", b"0"), (b"1", b"1")):
        return Refused(BadRequest.VERSION, 505, "a version other than HTTP/1.0 and HTTP/1.1")
    if method not in METHODS:
        return Refused(
            BadRequest.METHOD, 501, f"method {method[:32].decode()}, which is not served"
        )
    if re.fullmatch(rb"[!\x22\x24-\x7e]++", target) is None:
        return Refused(BadRequest.TARGET, 400, "a target with a space, fragment or odd byte")
    if len(target) > max_target:
        return _too_long(max_target)
    if b"\x00" in rest:
        return Refused(BadRequest.SYNTAX, 400, "NUL in the head")
    if NEVER_IN_HEAD.search(rest):
        return Refused(BadRequest.SYNTAX, 400, "a bare CR or LF in the head")
    for field in rest.split(b"\r\n")[:-2]:
        if field[:1] in (b" ", b"\t"):
            return Refused(BadRequest.SYNTAX, 400, "a folded header field")
        name, colon, value = field.partition(b":")
        if not colon:
            return Refused(BadRequest.SYNTAX, 400, "a header field without a colon")
        if name.rstrip(b" \t") != name:
            return Refused(BadRequest.SYNTAX, 400, "white space before a colon")
        if not is_token(name):
            return Refused(BadRequest.SYNTAX, 400, "a header name that is not a token")
        del value
    return Refused(BadRequest.SYNTAX, 400, "a control character in a header field")

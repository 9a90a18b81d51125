"""Request heads for backends as bytes: target, Host, fields, framing.  Nothing is sent here.

Everything in them was made by a guest, perhaps from what its client sent, so each name and value is
checked once more where it is about to become bytes that end a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.http.framing import Mode
from edge.http.headers import HOP_BY_HOP, connection_options, is_token, is_value
from edge.http.message import Headers
from edge.model.backend import Backend
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamRequest

# As in the heads of clients, visible ASCII; a fragment is not sent (RFC 9110 section 7.1).  The
# groups are not possessive: CPython before 3.11.5 takes half of one that fails, and let `http:///a`
# through.  There is nothing to go back for: each begins with a byte that ends the one before it.
_uri = re.compile(
    rb"(?:(?i:https?)://([^/?#@\x00-\x20\x7f-\xff]++))?([/?][!\x22\x24-\x7e]*+)?(?:#[!-~]*+)?"
)
_host = re.compile(rb"[^/?#@\\\x00-\x20\x7f-\xff]++")
_prefix = re.compile(rb"/[!\x22\x24-\x3e\x40-\x7e]*+")
_digits = re.compile(rb"[0-9]{1,19}")
_SOUND = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])

# Ours to make.  Expect as well: the body is sent without waiting for anybody's leave.
_STRIPPED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
# These mean something by having a body, so an empty one is announced (RFC 9110 section 8.6).
_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
_METHODS = _WITH_BODY | {b"GET", b"HEAD", b"DELETE", b"OPTIONS"}  # that need no look

# Names known to be tokens and not stripped.  A guest that makes up names fills this once.
_plain: set[bytes] = set()
_PLAIN_MAX = 2048


@dataclass(slots=True)
class Outgoing:
    """A head as bytes, and how the body after it is framed."""

    head: bytes
    mode: Mode  # NONE, LENGTH or CHUNKED
    length: int = 0


def encode_request(request: UpstreamRequest, known: int | None) -> Outgoing:
    """The head for a request whose body has `known` bytes, if that is known.

    Raises UpstreamFailed for what cannot be sent.
    """
    backend, method = request.backend, request.method
    if method not in _METHODS and (not is_token(method) or method == b"CONNECT"):
        raise UpstreamFailed(
            Cause.HTTP_REQUEST_URI_INVALID,
            f"method {method[:32]!r} cannot be sent to backend {backend.name!r}",
        )
    target, authority = _target(request)
    host = authority
    fields: list[bytes] = []
    special: Headers = []
    plain, cdn_loop = _plain, request.cdn_loop
    for field in request.headers:
        name = field[0]
        if name not in plain:
            lowered = name.lower()
            if lowered in _STRIPPED or lowered == b"cdn-loop":
                special.append((lowered, field[1]))
                continue
            if not is_token(name):
                raise _unsound(backend, "the name of a header field")
            if len(_plain) < _PLAIN_MAX and len(name) <= 64:
                plain.add(name)
        fields.append(b"%b: %b\r\n" % field)
    connection: list[bytes] = []
    seen_host = False
    for name, value in special:
        if name == b"host" and not seen_host:
            seen_host, host = True, value
        elif name == b"connection":
            connection.append(value)
        elif name == b"cdn-loop" and not cdn_loop:
            fields.append(b"cdn-loop: %b\r\n" % value)
    if connection:
        fields = _without(fields, connection_options(connection))
    if backend.override_host is not None:
        host = backend.override_host.encode("ascii", "replace")
    if _host.fullmatch(host) is None:
        raise UpstreamFailed(  # part of the request's URI (RFC 9110 section 7.1), and the guest's
            Cause.HTTP_REQUEST_URI_INVALID,
            f"a Host field that cannot be sent to backend {backend.name!r}",
        )
    if cdn_loop:
        fields.append(b"cdn-loop: %b\r\n" % cdn_loop)
    lines = len(fields) + 2
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (method, target, host, b"".join(fields))
    # One CR and one LF per line and no other control character: no value can have ended a line.
    if head.translate(None, _SOUND) or head.count(b"\r") != lines or head.count(b"\n") != lines:
        raise _unsound(backend, "a header field")
    if request.upgrade:
        return Outgoing(head + _upgrade(backend, special), Mode.NONE)
    if special and any(name == b"te" and _wants_trailers(value) for name, value in special):
        head += b"te: trailers\r\nconnection: te\r\n"
    if request.manual_framing:
        framing = _manual(head, special)
        if framing is not None:
            return framing
    if known is None:
        return Outgoing(head + b"transfer-encoding: chunked\r\n\r\n", Mode.CHUNKED)
    if known or method in _WITH_BODY:
        mode = Mode.LENGTH if known else Mode.NONE
        return Outgoing(head + b"content-length: %d\r\n\r\n" % known, mode, known)
    return Outgoing(head + b"\r\n", Mode.NONE)


def _target(request: UpstreamRequest) -> tuple[bytes, bytes]:
    """Origin form under the backend's prefix, and the authority that Host falls back to."""
    origin = request.backend.url
    uri = request.uri
    if uri == b"*" and request.method == b"OPTIONS":
        return b"*", origin.authority.encode()
    found = _uri.fullmatch(uri)
    if found is None:
        raise UpstreamFailed(
            Cause.HTTP_REQUEST_URI_INVALID,
            f"a URI that cannot be sent to backend {request.backend.name!r}",
        )
    authority, path = found.groups()
    if path is None:
        path = b"/"
    elif path[0] != 0x2F:  # "/"
        path = b"/" + path
    if origin.prefix:
        prefix = origin.prefix.encode("ascii", "replace")
        if _prefix.fullmatch(prefix) is None:
            raise _unsound(request.backend, "the path of the backend")
        path = prefix + path
    return path, authority or origin.authority.encode()


def _without(fields: list[bytes], options: frozenset[bytes]) -> list[bytes]:
    """The field lines whose names no Connection option names."""
    return [field for field in fields if field.partition(b":")[0].lower() not in options]


def _upgrade(backend: Backend, special: Headers) -> bytes:
    values = [value for name, value in special if name == b"upgrade"]
    if len(values) != 1 or not is_value(values[0]):
        raise UpstreamFailed(
            Cause.HTTP_UPGRADE_FAILED,
            f"a request for backend {backend.name!r} that does not say what to upgrade to",
        )
    return b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % values[0]


def _wants_trailers(value: bytes) -> bool:
    return b"trailers" in [part.strip(b" \t") for part in value.lower().split(b",")]


def _manual(head: bytes, special: Headers) -> Outgoing | None:
    """The framing that the guest's own fields ask for, if they are valid and agree."""
    lengths = [value.strip(b" \t") for name, value in special if name == b"content-length"]
    codings = [value.strip(b" \t") for name, value in special if name == b"transfer-encoding"]
    if len(lengths) == 1 and not codings and _digits.fullmatch(lengths[0]):
        length = int(lengths[0])
        mode = Mode.LENGTH if length else Mode.NONE
        return Outgoing(head + b"content-length: %d\r\n\r\n" % length, mode, length)
    if codings == [b"chunked"] and not lengths:
        return Outgoing(head + b"transfer-encoding: chunked\r\n\r\n", Mode.CHUNKED)
    return None


def _unsound(backend: Backend, what: str) -> UpstreamFailed:
    return UpstreamFailed(
        Cause.INTERNAL_ERROR, f"a request that cannot be sent to backend {backend.name!r}: {what}"
    )

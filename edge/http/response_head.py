"""Response heads as bytes, with everything a guest made checked once more.  Not their framing.

Names and values were validated when the guest set them; here they are about to become bytes that
end a line, so they are validated again: a second door for response splitting to get through.
"""

from __future__ import annotations

from http import HTTPStatus

from edge.errors import InvalidHead
from edge.http.headers import HOP_BY_HOP, RESERVED_PREFIX, connection_options, is_token
from edge.http.message import Headers

# Host fields: whatever a guest says in them is replaced.
_STRIPPED = HOP_BY_HOP | {b"content-length", b"date"}
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_status_lines = {
    code: b"HTTP/1.1 %d %s\r\n" % (code, _REASONS.get(code, b"")) for code in range(100, 1000)
}
# All bytes that a head may hold; deleting them from a sound head leaves nothing.
_SOUND = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])

# Lower-case names known to be tokens and not stripped.  Guests use few; a guest that makes up names
# fills this once and is looked at in full from then on.
_plain: set[bytes] = set()
_PLAIN_MAX = 2048

# Heads made lately, by everything that they are made of.  A service answers with few different
# ones, and finding one costs 0.2 us where checking and joining costs 0.6.
_recent: dict[tuple[int, tuple[tuple[bytes, bytes], ...]], bytes] = {}
_RECENT_MAX = 512
_RECENT_BYTES = 1024  # longer ones are not kept: half a MiB in all


def encode_head(status: int, guest: Headers, host: Headers | None, tail: bytes) -> bytes:
    """A response head: status line, the guest's fields less those that are ours, `host`, `tail`.

    `host` fields and `tail` (framing, Date, Connection and the empty line) are our own and trusted
    to be well formed.  Raises InvalidHead, naming the field, if a guest's is not; ValueError for a
    status outside 100 to 999.
    """
    key = (status, tuple(guest))
    head = _recent.get(key)
    if head is None:
        head = _checked(status, guest)
        if len(head) <= _RECENT_BYTES:
            if len(_recent) >= _RECENT_MAX:
                _recent.clear()
            _recent[key] = head
    if host:
        head += b"".join([b"%b: %b\r\n" % field for field in host])
    return head + tail


def _checked(status: int, guest: Headers) -> bytes:
    """Status line and fields."""
    line = _status_lines.get(status)
    if line is None:
        raise InvalidHead(f"status {status} is not between 100 and 999")
    parts = [line]
    plain = _plain
    lines = 1
    for name, value in guest:
        if name not in plain and not _passes(name):
            if name.lower() == b"connection":
                return _checked(status, _without_named(guest))
            continue
        parts += (name, b": ", value, b"\r\n")
        lines += 1
    head = b"".join(parts)
    # One CR and one LF per line, and no other control character: no value can have ended a line.
    if head.translate(None, _SOUND) or head.count(b"\r") != lines or head.count(b"\n") != lines:
        raise InvalidHead(f"header {_culprit(guest)} holds a line end or a control character")
    return head


def encode_trailers(trailers: Headers) -> bytes:
    """Trailer lines that have been through `clean_trailers`."""
    return b"".join([b"%b: %b\r\n" % field for field in trailers])


def reason_phrase(status: int) -> str:
    """The standard words for a status, or an empty string."""
    return _REASONS.get(status, b"").decode()


def _passes(name: bytes) -> bool:
    """True if a field of this name goes out.  Raises InvalidHead if it is no name."""
    if not is_token(name):
        raise InvalidHead(f"{name[:64]!r} is not a header name")
    lowered = name.lower()
    if lowered in _STRIPPED or lowered.startswith(RESERVED_PREFIX):
        return False
    if len(_plain) < _PLAIN_MAX and len(name) <= 64:
        _plain.add(name)
    return True


def _without_named(guest: Headers) -> Headers:
    named = connection_options(value for name, value in guest if name.lower() == b"connection")
    return [
        (name, value)
        for name, value in guest
        if name.lower() != b"connection" and name.lower() not in named
    ]


def _culprit(guest: Headers) -> str:
    for name, value in guest:
        if value.translate(None, _SOUND) or b"\r" in value or b"\n" in value:
            return repr(name[:64])
    return "field"

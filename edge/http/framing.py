"""Where a message's body ends: RFC 9112 section 6, with every ambiguity refused.  Not a decoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edge.http.message import ResponseHead
from edge.http.refusal import BadRequest, Refused

CHUNKED = -1  # in place of a request's length

# 19 digits stay below 2**63, so the number fits everything that will ever hold it.
_digits = re.compile(rb"[0-9]{1,19}")


def request_length(lengths: Sequence[bytes], codings: Sequence[bytes], *, minor: int) -> int:
    """How many bytes of body follow a request head: a count, 0 for none, or CHUNKED.

    `lengths` and `codings` are the Content-Length and Transfer-Encoding values.  Raises Refused:
    RFC 9112 section 6.3 lets a server repair some of these, and two servers that repair differently
    are how requests are smuggled.
    """
    if not codings:
        if not lengths:
            return 0
        if len(lengths) > 1:
            raise Refused(BadRequest.FRAMING, 400, "more than one Content-Length")
        if _digits.fullmatch(lengths[0]) is None:
            raise Refused(BadRequest.FRAMING, 400, "Content-Length is not a number")
        return int(lengths[0])
    if lengths:
        raise Refused(BadRequest.FRAMING, 400, "both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise Refused(BadRequest.FRAMING, 400, "Transfer-Encoding in an HTTP/1.0 request")
    if len(codings) > 1:
        raise Refused(BadRequest.FRAMING, 400, "more than one Transfer-Encoding")
    # Codings are case-insensitive (section 7), but clients write this one in lower case, and a
    # proxy before us that knows no other spelling would see another message than we do.
    if codings[0] != b"chunked":
        raise Refused(BadRequest.FRAMING, 501, "a Transfer-Encoding other than chunked")
    return CHUNKED


class Mode(Enum):
    """How the end of a response is told."""

    NONE = 0  # no body at all, whatever the guest wrote
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


@dataclass(frozen=True, slots=True)
class ResponseFraming:
    """The end of one response.  `length`: bytes that will be sent, or what a HEAD answer claims."""

    mode: Mode
    length: int | None = None


def response_framing(
    head: ResponseHead, *, to_head: bool, minor: int, known: int | None
) -> ResponseFraming:
    """Choose the framing of a response whose body has `known` bytes, if that is known.

    RFC 9110 section 6.4.1 says which have no body; 15.3.6 adds 205.  A guest's own Content-Length
    counts with `manual_framing`, and for HEAD when its body is empty: it passes on a length then.
    """
    status = head.status
    if status in (204, 304):
        return ResponseFraming(Mode.NONE)
    if status == 205:
        return ResponseFraming(Mode.NONE, None if to_head else 0)
    if to_head:
        claimed = _guest_length(head) if head.manual_framing or not known else None
        return ResponseFraming(Mode.NONE, claimed if claimed is not None else known or None)
    if head.manual_framing:
        claimed, chunked = _guest_length(head), _guest_chunked(head)
        if claimed is not None and not _values(head, b"transfer-encoding"):
            return ResponseFraming(Mode.LENGTH, claimed)
        if chunked and minor and not _values(head, b"content-length"):
            return ResponseFraming(Mode.CHUNKED)
    if known is not None:
        return ResponseFraming(Mode.LENGTH, known)
    return ResponseFraming(Mode.CHUNKED if minor else Mode.CLOSE)


def _values(head: ResponseHead, wanted: bytes) -> list[bytes]:
    return [value for name, value in head.headers if name.lower() == wanted]


def _guest_length(head: ResponseHead) -> int | None:
    lengths = _values(head, b"content-length")
    if len(lengths) == 1 and _digits.fullmatch(lengths[0].strip(b" \t")):
        return int(lengths[0])
    return None


def _guest_chunked(head: ResponseHead) -> bool:
    return [value.strip(b" \t") for value in _values(head, b"transfer-encoding")] == [b"chunked"]

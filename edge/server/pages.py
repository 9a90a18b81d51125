"""What the host itself says to clients: short, and nothing about anybody's inside."""

from __future__ import annotations

import json

from edge.http.message import Headers
from edge.http.refusal import Refused
from edge.http.response_head import encode_head, reason_phrase

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


def error_page(
    status: int, title: str, request_id: str, outcome: str | None, accept: bytes
) -> tuple[str, bytes]:
    """Content type and body of an error page: JSON if the client names it in Accept, else text."""
    if b"application/json" in accept or b"application/problem+json" in accept:
        facts: dict[str, object] = {"status": status, "title": title, "request_id": request_id}
        if outcome is not None:
            facts["outcome"] = outcome
        return JSON, json.dumps(facts).encode() + b"\n"
    text = f"{status} {reason_phrase(status)}\n{title}\nrequest {request_id}\n"
    return TEXT, text.encode()


def refusal_message(error: Refused, tail: bytes, *, to_head: bool) -> bytes:
    """The whole response to a request that was refused before it had an exchange."""
    text = f"{error.status} {reason_phrase(error.status)}\nThe request has {error.reason}.\n"
    page = text.encode("ascii", "backslashreplace")
    fields: Headers = [
        (b"content-type", TEXT.encode()),
        (b"x-edge-outcome", b"body_limit" if error.status == 413 else b"bad_request"),
    ]
    head = encode_head(error.status, [], fields, b"content-length: %d\r\n%b" % (len(page), tail))
    return head if to_head else head + page

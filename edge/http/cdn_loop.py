"""`CDN-Loop` (RFC 8586): how often a request has been here before.  Reading and writing it only.

Each server on a request's way adds an entry; ours name the service as well, because one service may
well call another behind the same server, and only going in circles is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from edge.http.message import RequestHead

NAME: Final = b"cdn-loop"
OURS: Final = b"edge-server"  # the pseudonym in our entries (RFC 8586 section 2, `cdn-id`)

# Going round deliberately is rare, and more than a few times is unheard of: whoever means to
# (a service that rewrites a path and asks itself again) comes by with five.
MOST_VISITS: Final = 5
# 150 entries.  Whatever is longer went round somewhere, and reading it would take milliseconds.
MOST_BYTES: Final = 4096

# Up to the next comma, where a quoted string hides one (RFC 9110 section 5.6.4).  Possessive by
# construction: no byte can be taken by two branches, so a hostile value is read in one pass.
_ENTRY: Final = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SERVICE: Final = re.compile(rb';[ \t]*s[ \t]*=[ \t]*(?:"([^"\\]*)"|([^ \t;"]*))', re.IGNORECASE)


class Visits(NamedTuple):
    """How often a request has passed a service, and a server of this kind at all."""

    service: int
    server: int


def received(head: RequestHead) -> list[bytes]:
    """The values of the field in a request, one for each field line."""
    return [value for name, value in head.headers if name == NAME]


def is_loop(values: Sequence[bytes], service: bytes) -> bool:
    """True for a request that should go no further."""
    return _size(values) > MOST_BYTES or visits(values, service).service > MOST_VISITS


def visits(values: Sequence[bytes], service: bytes) -> Visits:
    """Count our entries in the first `MOST_BYTES`; for more, ask `is_loop` first."""
    text = b",".join(values)[:MOST_BYTES]
    here = server = 0
    if OURS in text.lower():
        for entry in _ENTRY.findall(text):
            name, _, parameters = entry.partition(b";")
            if name.strip(b" \t").lower() == OURS:
                server += 1
                found = _SERVICE.search(b";" + parameters)
                here += found is not None and (found[1] or found[2]) == service
    return Visits(here, server)


def value_with_us(values: Sequence[bytes], service: bytes) -> bytes:
    """The value for a request that a service sends on: what was received, and our entry.

    `service` is a token.  The oldest bytes go when it would get longer than any server takes.
    """
    ours = OURS + b"; s=" + service
    before = b", ".join(value for value in values if value)[-MOST_BYTES:]
    if b'"' in before and not _is_closed(before):
        before = before.replace(b'"', b"")  # or our entry would be inside of a string, and no entry
    return before + b", " + ours if before else ours


def _size(values: Sequence[bytes]) -> int:
    return sum(map(len, values)) + len(values)


def _is_closed(value: bytes) -> bool:
    """Whether every string in it has an end."""
    at = 0
    while (at := value.find(b'"', at)) >= 0:
        found = _STRING.match(value, at)
        if found is None:
            return False
        at = found.end()
    return True

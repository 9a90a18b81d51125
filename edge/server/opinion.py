"""httptools reads every head that we have accepted, and must agree.  It never sees a body.

One parser that accepts too much and one that is ours make a sound pair: a head passes only if both
find the same end of message in it.  Bodies are decoded by `edge.http.chunked` alone, so nothing
that follows httptools' upgrade signal can be taken for a request.
"""

from __future__ import annotations

import httptools

from edge.http.refusal import BadRequest, Refused
from edge.http.request_head import RawHead


class _Verdict:
    """What httptools makes of a head: whether the message ends with it."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


class SecondOpinion:
    """One httptools parser, kept over the bodiless messages of a connection (0.25 us each)."""

    __slots__ = ("_parser", "_verdict")

    def __init__(self) -> None:
        self._verdict = _Verdict()
        self._parser = httptools.HttpRequestParser(self._verdict)

    def check(self, head: bytes, raw: RawHead) -> None:
        """Raise Refused if httptools objects; set `raw.upgrade` if it sees one."""
        verdict = self._verdict
        verdict.complete = False
        upgrade = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            upgrade = True
        except httptools.HttpParserError as error:
            raise Refused(BadRequest.SYNTAX, 400, f"malformed: {error}") from None
        if upgrade or raw.upgrade or raw.length:
            raw.upgrade = raw.upgrade or upgrade
            # It waits for a body, or has given up: of no use for what comes next.
            self._parser = httptools.HttpRequestParser(verdict)
        elif not verdict.complete:
            raise Refused(BadRequest.FRAMING, 400, "a body of unclear length")

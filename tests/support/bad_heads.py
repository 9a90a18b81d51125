"""Request heads that must be refused, with the status and the kind of their refusal."""

from __future__ import annotations

from edge.http.refusal import BadRequest


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """A head of `line` and `fields`."""
    return b"\r\n".join((line, *fields, b"", b""))


# Limits that go with this table: a target of 64 bytes and 8 fields.
REFUSED = [
    # host
    (get(), 400, BadRequest.HOST),
    (get(line=b"GET / HTTP/1.0"), 400, BadRequest.HOST),
    (get(b"Host: a", b"Host: a"), 400, BadRequest.HOST),
    (get(b"Host: a", b"hOST: b"), 400, BadRequest.HOST),
    (get(b"Host:"), 400, BadRequest.HOST),
    (get(b"Host: a b"), 400, BadRequest.HOST),
    (get(b"Host: a, b"), 400, BadRequest.HOST),
    (get(b"Host: a/b"), 400, BadRequest.HOST),
    (get(b"Host: u@a"), 400, BadRequest.HOST),
    (get(b"Host: a%2eb"), 400, BadRequest.HOST),
    (get(b"Host: a:0"), 400, BadRequest.HOST),
    (get(b"Host: a:65536"), 400, BadRequest.HOST),
    (get(b"Host: \xe4"), 400, BadRequest.HOST),
    (get(b"Host: [::1"), 400, BadRequest.HOST),
    (get(line=b"GET http://a/ HTTP/1.1"), 400, BadRequest.HOST),
    # version
    (get(b"Host: a", line=b"GET / HTTP/1.2"), 505, BadRequest.VERSION),
    (get(b"Host: a", line=b"GET / HTTP/2.0"), 505, BadRequest.VERSION),
    (get(b"Host: a", line=b"GET / HTTP/0.9"), 505, BadRequest.VERSION),
    (get(b"Host: a", line=b"GET / HTTP/1.10"), 505, BadRequest.VERSION),
    (b"PRI * HTTP/2.0\r\n\r\n", 505, BadRequest.VERSION),
    (get(b"Host: a", line=b"GET / http/1.1"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", line=b"GET /"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", line=b"GET / HTTP/1"), 400, BadRequest.SYNTAX),
    # method
    (get(b"Host: a", line=b"CONNECT a:443 HTTP/1.1"), 501, BadRequest.METHOD),
    (get(b"Host: a", line=b"BREW / HTTP/1.1"), 501, BadRequest.METHOD),
    (get(b"Host: a", line=b"get / HTTP/1.1"), 501, BadRequest.METHOD),
    (get(b"Host: a", line=b"G(T / HTTP/1.1"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", line=b" / HTTP/1.1"), 400, BadRequest.SYNTAX),
    # target
    (get(b"Host: a", line=b"GET /a#b HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET /a b HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET /a\tb HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET  / HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET / HTTP/1.1 "), 400, BadRequest.SYNTAX),
    (get(b"Host: a", line=b"GET /\xc3\xa4 HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET /\x7f HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET * HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET a HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET ftp://a/ HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET http:///x HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET http://u@b/ HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET http://b:x/ HTTP/1.1"), 400, BadRequest.TARGET),
    (get(b"Host: a", line=b"GET /" + b"x" * 64 + b" HTTP/1.1"), 414, BadRequest.TARGET_TOO_LONG),
    (get(b"Host: a", line=b"GET /" + b"x" * 999 + b" HTTP/3.0"), 505, BadRequest.VERSION),
    # fields
    (get(b"Host: a", b" folded"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"\tfolded"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X : b"), 400, BadRequest.SYNTAX),
    (get(b"Host : a"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X\t: b"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b": b"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"no colon"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X(: b"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X: \x00"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X: \x01"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X: \x7f"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X: b\rY: c"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"X: b\nY: c"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", *[b"X: b"] * 8), 431, BadRequest.HEAD_TOO_LARGE),
    # framing
    (get(b"Host: a", b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), 400,
     BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: gzip"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: gzip, chunked"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: chunked, chunked"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: Chunked"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: chunked;q=1"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: \x0bchunked"), 400, BadRequest.SYNTAX),
    (get(b"Host: a", b"Transfer-Encoding:"), 501, BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400,
     BadRequest.FRAMING),
    (get(b"Host: a", b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400,
     BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: 3", b"Content-Length: 3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: 3", b"Content-Length: 4"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: 3, 3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: +3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: -3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: 0x3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: 3 3"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length:"), 400, BadRequest.FRAMING),
    (get(b"Host: a", b"Content-Length: " + b"1" * 20), 400, BadRequest.FRAMING),
    # expectation
    (get(b"Host: a", b"Expect: the-worst"), 417, BadRequest.EXPECTATION),
    (get(b"Host: a", b"Expect: 100-continue, more"), 417, BadRequest.EXPECTATION),
]  # fmt: skip

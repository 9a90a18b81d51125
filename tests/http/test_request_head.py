"""Reading raw request heads: what is accepted, what it says, and every refusal by its bytes."""

from __future__ import annotations

import pytest

from edge.http.framing import CHUNKED
from edge.http.refusal import BadRequest, Refused
from edge.http.request_head import METHODS, RawHead, read_head, refuse_partial, split_fields


def read(head: bytes) -> RawHead:
    return read_head(head, max_target=64, max_fields=8)


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, *fields, b"", b""))


def test_a_plain_head_says_what_it_says() -> None:
    raw = read(get(b"Host: Example.COM.:80", b"X-A:  b \t", line=b"GET /a/../b%2f?c=/d HTTP/1.1"))
    assert (raw.method, raw.target, raw.path) == (b"GET", b"/a/../b%2f?c=/d", b"/a/../b%2f")
    assert (raw.authority.text, raw.authority.host) == (b"example.com", b"example.com")
    assert (raw.minor, raw.length, raw.keep_alive) == (1, 0, True)
    assert not raw.upgrade
    assert not raw.expects_continue
    assert split_fields(raw.block) == [(b"Host", b"Example.COM.:80"), (b"X-A", b"b")]


def test_the_empty_query_stays_in_the_target_and_out_of_the_path() -> None:
    raw = read(get(b"Host: a", line=b"GET /x? HTTP/1.1"))
    assert (raw.target, raw.path) == (b"/x?", b"/x")


@pytest.mark.parametrize(
    ("fields", "minor", "expected"),
    [
        ((), b"1", True),
        ((b"Connection: close",), b"1", False),
        ((b"Connection: Keep-Alive, CLOSE",), b"1", False),
        ((b"connection: x", b"connection: close"), b"1", False),
        ((), b"0", False),
        ((b"Connection: keep-alive",), b"0", True),
        ((b"Connection: keep-alive, close",), b"0", False),
    ],
)
def test_keep_alive_follows_version_and_connection(
    fields: tuple[bytes, ...], minor: bytes, expected: bool
) -> None:
    raw = read(get(b"Host: a", *fields, line=b"GET / HTTP/1." + minor))
    assert raw.keep_alive is expected


@pytest.mark.parametrize(
    "fields",
    [(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"), (b"Upgrade: x",),
     (b"Connection: upgrade",)],
)  # fmt: skip
def test_any_sign_of_an_upgrade_is_noticed(fields: tuple[bytes, ...]) -> None:
    assert read(get(b"Host: a", *fields)).upgrade


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ((b"Content-Length: 0",), 0),
        ((b"content-length:17",), 17),
        ((b"CONTENT-LENGTH: 0017 ",), 17),
        ((b"Transfer-Encoding: chunked",), CHUNKED),
        ((b"Cost: 5", b"Tost: 6", b"xHost: b", b"X-Content-Length: 4"), 0),
    ],
)
def test_the_length_of_the_body(fields: tuple[bytes, ...], length: int) -> None:
    assert read(get(b"Host: a", *fields)).length == length


@pytest.mark.parametrize(
    ("line", "target", "path", "authority", "scheme"),
    [
        (b"GET http://Other:80/x?y HTTP/1.1", b"/x?y", b"/x", b"other", b"http"),
        (b"GET http://other:8080 HTTP/1.1", b"/", b"/", b"other:8080", b"http"),
        (b"GET HTTP://other?q HTTP/1.1", b"/?q", b"/", b"other", b"http"),
        (b"GET https://other:443/ HTTP/1.1", b"/", b"/", b"other", b"https"),
        (b"OPTIONS http://other HTTP/1.1", b"*", b"*", b"other", b"http"),
        (b"OPTIONS * HTTP/1.1", b"*", b"*", b"a", b""),
    ],
)
def test_the_authority_of_an_absolute_target_wins(
    line: bytes, target: bytes, path: bytes, authority: bytes, scheme: bytes
) -> None:
    raw = read(get(b"Host: a", line=line))
    assert (raw.target, raw.path, raw.authority.text, raw.scheme) == (
        target, path, authority, scheme,
    )  # fmt: skip


def test_a_continue_is_expected_only_by_a_1_1_client() -> None:
    assert read(get(b"Host: a", b"Expect: 100-Continue")).expects_continue
    raw = read(get(b"Host: a", b"Expect: 100-continue", line=b"GET / HTTP/1.0"))
    assert not raw.expects_continue


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


@pytest.mark.parametrize(("head", "status", "kind"), REFUSED)
def test_what_is_not_strictly_http_is_refused(head: bytes, status: int, kind: BadRequest) -> None:
    with pytest.raises(Refused) as refused:
        read(head)
    assert (refused.value.status, refused.value.kind) == (status, kind)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_served_is_one_that_httptools_knows(method: bytes) -> None:
    import httptools

    head = get(b"Host: a", line=method + b" / HTTP/1.1")
    httptools.HttpRequestParser(object()).feed_data(head)
    assert read(head).method == method


def test_partial_heads_are_refused_as_soon_as_they_are_too_large() -> None:
    def partial(head: bytes) -> None:
        refuse_partial(head, max_head=500, max_target=100)

    partial(b"GET /" + b"x" * 95)
    partial(b"GET / HTTP/1.1\r\n" + b"x" * 484)
    with pytest.raises(Refused, match="target"):
        partial(b"GET /" + b"x" * 165)
    with pytest.raises(Refused, match="head"):
        partial(b"GET / HTTP/1.1\r\n" + b"x" * 485)


def test_a_hostile_head_costs_time_in_proportion_to_its_length() -> None:
    """Possessive quantifiers: no backtracking, or this would take minutes."""
    with pytest.raises(Refused):
        read(get(b"Host: a", *[b"X-" + b"a" * 60 + b": " + b" \t" * 30] * 1000, b"bad\x00"))

"""Reading raw request heads: what is accepted, what it says, and every refusal by its bytes."""

from __future__ import annotations

import pytest

from edge.http.framing import CHUNKED
from edge.http.refusal import BadRequest, Refused
from edge.http.request_head import METHODS, RawHead, read_head, refuse_partial, split_fields
from tests.support.bad_heads import REFUSED, get


def read(head: bytes) -> RawHead:
    return read_head(head, max_target=64, max_fields=8)


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

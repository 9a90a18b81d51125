"""Heads for backends: the target, Host, fields that stop here, framing, and what is not sent."""

from __future__ import annotations

from typing import Any

import pytest

from edge.http.body import Account, Body, Ledger
from edge.http.framing import Mode
from edge.http.message import Headers
from edge.model.backend import Backend, Origin
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamRequest
from edge.upstream.request_head import Outgoing, encode_request

ORIGIN = Origin(False, "origin.example", 8080)


def encode(
    method: bytes = b"GET",
    uri: bytes = b"/",
    headers: Headers | None = None,
    *,
    known: int | None = 0,
    url: Origin = ORIGIN,
    override_host: str | None = None,
    **fields: Any,
) -> Outgoing:
    backend = Backend("origin", url, override_host=override_host)
    request = UpstreamRequest(
        backend, method, uri, headers or [], Body(), Account(Ledger(), 0), **fields
    )
    return encode_request(request, known)


def lines(outgoing: Outgoing) -> list[bytes]:
    assert outgoing.head.endswith(b"\r\n\r\n")
    return outgoing.head[:-4].split(b"\r\n")


@pytest.mark.parametrize(
    ("uri", "prefix", "target"),
    [
        (b"/", "", b"/"),
        (b"/a/../b%2f?x=/y", "", b"/a/../b%2f?x=/y"),
        (b"http://example.com", "", b"/"),
        (b"https://example.com:81?q", "", b"/?q"),
        (b"HTTP://example.com/a#frag", "", b"/a"),
        (b"/a#frag", "", b"/a"),
        (b"http://example.com/a|{b}", "", b"/a|{b}"),
        (b"/x", "/base/v1", b"/base/v1/x"),
        (b"http://example.com?q", "/base", b"/base/?q"),
        (b"//double", "/base", b"/base//double"),
    ],
)
def test_the_target_is_the_path_under_the_backends_own(
    uri: bytes, prefix: str, target: bytes
) -> None:
    url = Origin(False, "origin.example", 80, prefix)
    assert lines(encode(uri=uri, url=url))[0] == b"GET " + target + b" HTTP/1.1"


def test_only_options_is_for_the_server_as_a_whole() -> None:
    assert lines(encode(b"OPTIONS", b"*"))[0] == b"OPTIONS * HTTP/1.1"
    with pytest.raises(UpstreamFailed):
        encode(b"GET", b"*")


@pytest.mark.parametrize(
    "uri",
    [
        b"a",
        b"ftp://example.com/",
        b"http:///a",
        b"http://user@example.com/",
        b"/a b",
        b"/a\r\nX: y",
        b"/a\x00",
        b"/\xff",
        b"http://exa mple/",
        b"/a#b\r\n",
        b"/a\n",
    ],
)
def test_a_uri_that_is_none_is_not_sent(uri: bytes) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        encode(uri=uri)
    assert refused.value.cause is Cause.HTTP_REQUEST_URI_INVALID


@pytest.mark.parametrize("method", [b"", b"G T", b"GET\r\n", b"CONNECT", b"G\xc9T"])
def test_a_method_that_cannot_be_sent_is_not(method: bytes) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        encode(method)
    assert refused.value.cause is Cause.HTTP_REQUEST_URI_INVALID


@pytest.mark.parametrize(
    ("override", "headers", "uri", "host"),
    [
        ("o.example", [(b"host", b"h.example")], b"http://u.example/", b"o.example"),
        (None, [(b"Host", b"h.example:81")], b"http://u.example/", b"h.example:81"),
        (None, [(b"host", b"one"), (b"host", b"two")], b"/", b"one"),
        (None, [], b"http://u.example:82/", b"u.example:82"),
        (None, [], b"/", b"origin.example:8080"),
    ],
)
def test_host_is_the_first_that_is_known(
    override: str | None, headers: Headers, uri: bytes, host: bytes
) -> None:
    found = lines(encode(uri=uri, headers=headers, override_host=override))
    assert [line for line in found if line.lower().startswith(b"host:")] == [b"host: " + host]


@pytest.mark.parametrize("host", [b"", b"a b", b"a\r\nX: y", b"a/b", b"a@b", b"\xff"])
def test_a_host_that_is_none_is_not_sent(host: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        encode(headers=[(b"host", host)])


def test_hop_by_hop_fields_stop_here() -> None:
    headers = [
        (b"connection", b"x-own, Keep-Alive"),
        (b"X-Own", b"1"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"1"),
        (b"te", b"gzip"),
        (b"upgrade", b"h2c"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"99"),
        (b"expect", b"100-continue"),
        (b"X-Kept", b"yes"),
    ]
    assert lines(encode(headers=headers)) == [
        b"GET / HTTP/1.1",
        b"host: origin.example:8080",
        b"X-Kept: yes",
    ]


def test_trailers_may_be_asked_for() -> None:
    found = lines(encode(headers=[(b"te", b"gzip, Trailers")]))
    assert found[2:] == [b"te: trailers", b"connection: te"]


def test_cdn_loop_is_replaced_and_a_connection_option_cannot_take_it_away() -> None:
    headers = [(b"cdn-loop", b"theirs"), (b"connection", b"cdn-loop")]
    assert lines(encode(headers=headers, cdn_loop=b"theirs, ours"))[2:] == [
        b"cdn-loop: theirs, ours"
    ]
    assert lines(encode(headers=headers[:1]))[2:] == [b"cdn-loop: theirs"]


@pytest.mark.parametrize(
    "field",
    [
        (b"a", b"b\r\nX: y"),
        (b"a", b"b\n"),
        (b"a", b"\r"),
        (b"a", b"\x00"),
        (b"a", b"\x7f"),
        (b"a\r\nx", b"b"),
        (b"a b", b"c"),
        (b"", b"c"),
        (b"a:", b"c"),
        (b"cdn-loop", b"x\r\nX: y"),
    ],
)
def test_no_field_can_end_its_line(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        encode(headers=[field])
    assert refused.value.cause is Cause.INTERNAL_ERROR


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\x00"])
def test_nor_can_the_values_that_the_host_adds(value: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        encode(cdn_loop=value)
    with pytest.raises(UpstreamFailed):
        encode(headers=[(b"upgrade", value)], upgrade=True)
    with pytest.raises(UpstreamFailed):
        encode(override_host=value.decode())
    with pytest.raises(UpstreamFailed):
        encode(url=Origin(False, "origin.example", 80, "/" + value.decode()))


@pytest.mark.parametrize(
    ("method", "known", "field", "mode"),
    [
        (b"GET", 0, None, Mode.NONE),
        (b"DELETE", 0, None, Mode.NONE),
        (b"POST", 0, b"content-length: 0", Mode.NONE),
        (b"PUT", 0, b"content-length: 0", Mode.NONE),
        (b"GET", 5, b"content-length: 5", Mode.LENGTH),
        (b"POST", 5, b"content-length: 5", Mode.LENGTH),
        (b"POST", None, b"transfer-encoding: chunked", Mode.CHUNKED),
    ],
)
def test_framing_follows_the_body(
    method: bytes, known: int | None, field: bytes | None, mode: Mode
) -> None:
    outgoing = encode(method, known=known, headers=[(b"content-length", b"99")])
    assert lines(outgoing)[2:] == ([field] if field else [])
    assert (outgoing.mode, outgoing.length) == (mode, known or 0)


@pytest.mark.parametrize(
    ("headers", "field", "mode"),
    [
        ([(b"content-length", b"7")], b"content-length: 7", Mode.LENGTH),
        ([(b"content-length", b" 7 ")], b"content-length: 7", Mode.LENGTH),
        ([(b"content-length", b"0")], b"content-length: 0", Mode.NONE),
        ([(b"transfer-encoding", b"chunked")], b"transfer-encoding: chunked", Mode.CHUNKED),
        ([], b"content-length: 5", Mode.LENGTH),
        ([(b"content-length", b"x")], b"content-length: 5", Mode.LENGTH),
        ([(b"content-length", b"7"), (b"content-length", b"8")], b"content-length: 5", Mode.LENGTH),
        (
            [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")],
            b"content-length: 5",
            Mode.LENGTH,
        ),
        ([(b"transfer-encoding", b"gzip, chunked")], b"content-length: 5", Mode.LENGTH),
    ],
)
def test_manual_framing_counts_where_it_is_valid(
    headers: Headers, field: bytes, mode: Mode
) -> None:
    outgoing = encode(b"POST", known=5, headers=headers, manual_framing=True)
    assert lines(outgoing)[2:] == [field]
    assert outgoing.mode is mode


def test_an_upgrade_names_what_to() -> None:
    headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"x", b"y")]
    outgoing = encode(headers=headers, upgrade=True)
    assert lines(outgoing)[2:] == [b"x: y", b"connection: upgrade", b"upgrade: websocket"]
    for wrong in ([], [*headers, (b"upgrade", b"h2c")]):
        with pytest.raises(UpstreamFailed) as refused:
            encode(headers=wrong, upgrade=True)
        assert refused.value.cause is Cause.HTTP_UPGRADE_FAILED

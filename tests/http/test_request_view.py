"""What a guest sees of a request: fields removed, replaced and added; whose word is believed."""

from __future__ import annotations

from edge.http.addresses import TrustedProxies, pack_address
from edge.http.message import RequestHead
from edge.http.request_head import RawHead, read_head
from edge.http.request_view import (
    Peer,
    believed_request_id,
    client_of,
    forwarded_scheme,
    peer_of,
    view_request,
)

PROXIES = TrustedProxies(["10.0.0.0/8"])
STRANGER = peer_of("192.0.2.7", "192.0.2.1", PROXIES)
PROXY = peer_of("10.0.0.1", "192.0.2.1", PROXIES)
ID = "0123456789abcdef" * 2


def raw(*fields: bytes, line: bytes = b"GET /p?q HTTP/1.1") -> RawHead:
    head = b"\r\n".join((line, *fields, b"", b""))
    return read_head(head, max_target=8192, max_fields=512)


def view(*fields: bytes, peer: Peer = STRANGER) -> RequestHead:
    return view_request(raw(*fields), peer, b"http", ID)


def test_a_head_is_passed_on_in_order_with_repeats() -> None:
    head = view(b"Host: A:80", b"X-B: 1", b"Accept: */*", b"x-b: 2 ")
    assert head.headers == [
        (b"host", b"a"),
        (b"x-b", b"1"),
        (b"accept", b"*/*"),
        (b"x-b", b"2"),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-request-id", ID.encode()),
    ]
    assert head.original_names == [b"Host", b"X-B", b"Accept", b"x-b"]
    assert (head.method, head.target, head.version) == (b"GET", b"/p?q", 11)
    assert (head.authority, head.scheme) == (b"a", b"http")


def names(head: RequestHead) -> list[bytes]:
    return [name for name, _ in head.headers]


def test_fields_of_one_hop_stop_here() -> None:
    head = view(
        b"Host: a", b"Connection: X-Secret, close", b"X-Secret: 1", b"Keep-Alive: 5", b"TE: x",
        b"Proxy-Connection: x", b"Upgrade: h2c", b"Transfer-Encoding: chunked", b"Trailer: x",
        b"Expect: 100-continue",
    )  # fmt: skip
    assert names(head) == [b"host", b"trailer", b"x-forwarded-for", b"x-request-id"]


def test_connection_cannot_name_the_host_away() -> None:
    assert (b"host", b"a") in view(b"Host: a", b"Connection: host").headers


def test_fields_of_ours_cannot_be_forged() -> None:
    head = view(
        b"Host: a", b"X-Edge-Outcome: ok", b"x-edge-anything: 1", b"X-Request-Id: " + b"f" * 32
    )
    assert names(head) == [b"host", b"x-forwarded-for", b"x-request-id"]
    assert head.headers[-1] == (b"x-request-id", ID.encode())


def test_a_stranger_cannot_say_where_it_comes_from() -> None:
    lies = (
        b"Host: a", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: b", b"X-Forwarded-Port: 1", b"Forwarded: for=1.1.1.1", b"X-Real-IP: 1",
    )  # fmt: skip
    assert view(*lies).headers[:-1] == [(b"host", b"a"), (b"x-forwarded-for", b"192.0.2.7")]
    assert client_of(raw(*lies), STRANGER) == pack_address("192.0.2.7")
    assert forwarded_scheme(raw(*lies), STRANGER) == b"http"
    assert believed_request_id(raw(b"Host: a", b"X-Request-Id: " + b"f" * 32), STRANGER) is None


def test_a_trusted_proxy_is_believed_and_added_to_the_chain() -> None:
    fields = (
        b"Host: a", b"X-Forwarded-For: 6.6.6.6, 1.1.1.1", b"X-Forwarded-Proto: HTTPS",
        b"X-Forwarded-Host: b", b"X-Request-Id: " + b"F" * 32,
    )  # fmt: skip
    head = view(*fields, peer=PROXY)
    assert (b"x-forwarded-host", b"b") in head.headers
    assert (b"x-forwarded-proto", b"HTTPS") in head.headers
    assert (b"x-forwarded-for", b"6.6.6.6, 1.1.1.1, 10.0.0.1") in head.headers
    assert client_of(raw(*fields), PROXY) == pack_address("1.1.1.1")
    assert forwarded_scheme(raw(*fields), PROXY) == b"https"
    assert believed_request_id(raw(*fields), PROXY) == "f" * 32


def test_a_trusted_proxy_that_says_nothing_useful_is_the_client() -> None:
    fields = (b"Host: a", b"X-Forwarded-Proto: gopher", b"X-Request-Id: 7")
    assert client_of(raw(*fields), PROXY) == pack_address("10.0.0.1")
    assert forwarded_scheme(raw(*fields), PROXY) == b"http"
    assert believed_request_id(raw(*fields), PROXY) is None


def test_an_unknown_peer_is_called_so() -> None:
    nobody = peer_of("", "", PROXIES)
    assert nobody.address == b""
    assert (b"x-forwarded-for", b"unknown") in view(b"Host: a", peer=nobody).headers

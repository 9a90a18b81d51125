"""CGI/1.1 both ways: variables from a request, a response from a header block."""

from __future__ import annotations

import pytest

from edge import __version__
from edge.abi.wasi.cgi_head import CgiProblem, end_of_head, request_variables, response_head
from edge.http.message import RequestHead, ResponseHead
from tests.support.wasi_box import WasiGuest


def variables(head: RequestHead) -> dict[bytes, bytes]:
    return request_variables(WasiGuest(head=head).box)


def test_a_request_becomes_the_variables_of_rfc_3875() -> None:
    head = RequestHead(
        b"POST",
        b"/a%20b/%2e%2e/c?x=1&y=%2f",
        b"shop.example:8080",
        headers=[
            (b"host", b"shop.example:8080"),
            (b"content-type", b"text/plain"),
            (b"content-length", b"5"),
            (b"accept", b"text/html"),
            (b"accept", b"*/*"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"authorization", b"Basic eDp5"),
        ],
    )
    assert variables(head) == {
        b"GATEWAY_INTERFACE": b"CGI/1.1",
        b"SERVER_SOFTWARE": b"edge-server/" + __version__.encode(),
        b"SERVER_PROTOCOL": b"HTTP/1.1",
        b"SERVER_NAME": b"shop.example",
        b"SERVER_PORT": b"8080",
        b"SERVER_ADDR": b"::1",
        b"REQUEST_METHOD": b"POST",
        b"REQUEST_SCHEME": b"http",
        b"REQUEST_URI": b"/a%20b/%2e%2e/c?x=1&y=%2f",
        b"SCRIPT_NAME": b"",
        b"PATH_INFO": b"/a b/../c",
        b"QUERY_STRING": b"x=1&y=%2f",
        b"REMOTE_ADDR": b"192.0.2.7",
        b"REMOTE_HOST": b"192.0.2.7",
        b"REQUEST_ID": b"0123456789abcdef0123456789abcdef",
        b"HTTP_HOST": b"shop.example:8080",
        b"CONTENT_TYPE": b"text/plain",
        b"CONTENT_LENGTH": b"5",
        b"HTTP_ACCEPT": b"text/html, */*",
        b"HTTP_COOKIE": b"a=1; b=2",
        b"HTTP_AUTHORIZATION": b"Basic eDp5",
    }


def test_a_proxy_header_does_not_become_http_proxy() -> None:
    found = variables(RequestHead(b"GET", b"/", b"x", headers=[(b"proxy", b"http://evil")]))
    assert b"HTTP_PROXY" not in found


@pytest.mark.parametrize("name", [b"x_user", b"x.user", b"x'user", b"x~", b"x|y"])
def test_names_that_could_pass_for_another_are_left_out(name: bytes) -> None:
    head = RequestHead(b"GET", b"/", b"x", headers=[(b"x-user", b"real"), (name, b"forged")])
    found = variables(head)
    assert found[b"HTTP_X_USER"] == b"real"
    assert b"forged" not in b"".join(found.values())


@pytest.mark.parametrize(
    ("authority", "scheme", "name", "port"),
    [
        (b"a.example", b"http", b"a.example", b"80"),
        (b"a.example", b"https", b"a.example", b"443"),
        (b"[::1]:81", b"http", b"[::1]", b"81"),
        (b"[2001:db8::1]", b"http", b"[2001:db8::1]", b"80"),
    ],
)
def test_the_authority_is_split_into_name_and_port(
    authority: bytes, scheme: bytes, name: bytes, port: bytes
) -> None:
    found = variables(RequestHead(b"GET", b"/", authority, scheme, version=10))
    assert (found[b"SERVER_NAME"], found[b"SERVER_PORT"]) == (name, port)
    assert found.get(b"HTTPS") == (b"on" if scheme == b"https" else None)
    assert found[b"SERVER_PROTOCOL"] == b"HTTP/1.0"


def test_an_encoded_nul_does_not_end_the_path() -> None:
    assert variables(RequestHead(b"GET", b"/a%00b", b"x"))[b"PATH_INFO"] == b"/a%00b"


def test_the_operators_variables_win_over_the_clients() -> None:
    head = RequestHead(b"GET", b"/", b"x", headers=[(b"mode", b"theirs")])
    found = WasiGuest(cgi=True, env={"HTTP_MODE": "ours", "A": "1"}, head=head).strings("environ")
    assert b"HTTP_MODE=ours" in found
    assert b"A=1" in found
    assert not any(b"theirs" in line or line.startswith(b"FASTLY") for line in found)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"A: 1\n\nbody", 6),
        (b"A: 1\r\n\r\nbody", 8),
        (b"A: 1\n\r\nbody", 7),
        (b"A: 1\r\n\nbody", 7),
        (b"\nbody", 1),
        (b"\r\nbody", 2),
        (b"A: 1\nB: 2\n", -1),
        (b"A: 1\r\n\r", -1),
        (b"A: 1", -1),
        (b"\r", -1),
        (b"", -1),
    ],
)
def test_the_blank_line_is_found_whole_and_byte_by_byte(text: bytes, end: int) -> None:
    assert end_of_head(text, 0) == end
    so_far = -1
    for size in range(1, len(text) + 1):
        so_far = end_of_head(text[:size], size - 1)
        if so_far >= 0:
            break
    assert so_far == end


@pytest.mark.parametrize(
    ("block", "head"),
    [
        (b"Content-Type: a/b\n\n", ResponseHead(200, [(b"content-type", b"a/b")])),
        (b"Status: 404 Not Found\r\n\r\n", ResponseHead(404)),
        (b"status:204\n\n", ResponseHead(204)),
        (b"Location: /x\n\n", ResponseHead(302, [(b"location", b"/x")])),
        (
            b"Location: /x\nStatus: 301\n\n",
            ResponseHead(301, [(b"location", b"/x")]),
        ),
        (
            b"Set-Cookie: a\nSET-COOKIE:\tb \nX: \xe9\n\n",
            ResponseHead(200, [(b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"x", b"\xe9")]),
        ),
        (
            b"Content-Length: 5\n\n",
            ResponseHead(200, [(b"content-length", b"5")], manual_framing=True),
        ),
    ],
)
def test_a_header_block_becomes_a_response(block: bytes, head: ResponseHead) -> None:
    assert response_head(block, max_fields=8) == head


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (b"\n", "no header field"),
        (b"<html>\n\n", "not a header field"),
        (b" folded: 1\n\n", "not a header field"),
        (b"A : 1\n\n", "not a header field"),
        (b"A: 1\rB: 2\n\n", "control character"),
        (b"A: \0\n\n", "control character"),
        (b"Status: 99\n\n", "200 to 599"),
        (b"Status: 103\n\n", "200 to 599"),
        (b"Status: 2000\n\n", "200 to 599"),
        (b"Status: ok\n\n", "200 to 599"),
        (b"Status: 200\nStatus: 404\n\n", "twice"),
        (b"Location: /a\nlocation: /b\n\n", "twice"),
        (b"Content-Length: -1\n\n", "not a number"),
        (b"A: 1\n" * 9 + b"\n", "limits.head_fields"),
    ],
)
def test_a_broken_header_block_is_refused_in_words(block: bytes, says: str) -> None:
    with pytest.raises(CgiProblem, match=says):
        response_head(block, max_fields=8)

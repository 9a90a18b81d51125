"""Serialising response heads: our fields, the guest's, and what must not get through."""

from __future__ import annotations

import pytest

from edge.errors import InvalidHead
from edge.http import response_head
from edge.http.headers import clean_trailers, connection_options, is_token, is_value
from edge.http.message import Headers
from edge.http.response_head import encode_head, encode_trailers, reason_phrase

TAIL = b"content-length: 0\r\n\r\n"


def test_a_head_is_status_guest_host_tail() -> None:
    guest: Headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe4 2"), (b"x-empty", b"")]
    assert encode_head(200, guest, [(b"x-edge-outcome", b"ok")], TAIL) == (
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=\xe4 2\r\nx-empty: \r\n"
        b"x-edge-outcome: ok\r\n" + TAIL
    )


@pytest.mark.parametrize(
    ("status", "line"), [(404, b"404 Not Found"), (299, b"299 "), (999, b"999 ")]
)
def test_status_lines_carry_the_reason_if_there_is_one(status: int, line: bytes) -> None:
    assert encode_head(status, [], None, b"") == b"HTTP/1.1 " + line + b"\r\n"
    assert reason_phrase(599) == ""


@pytest.mark.parametrize("status", [0, 99, 1000, -200])
def test_a_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(InvalidHead, match="status"):
        encode_head(status, [], None, b"")


@pytest.mark.parametrize(
    "name",
    [b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
     b"content-length", b"date", b"x-edge-outcome", b"X-Edge-Foo", b"Content-Length",
     b"TRANSFER-ENCODING", b"Date"],
)  # fmt: skip
def test_fields_that_are_ours_are_dropped_in_any_spelling(name: bytes) -> None:
    for _ in range(2):  # the second time past the memory of known names
        assert encode_head(200, [(b"x", b"y"), (name, b"z")], None, b"") == (
            b"HTTP/1.1 200 OK\r\nx: y\r\n"
        )


def test_fields_that_connection_names_are_dropped() -> None:
    guest: Headers = [(b"x-hop", b"1"), (b"x", b"y"), (b"Connection", b"close, X-Hop")]
    assert encode_head(200, guest, None, b"") == b"HTTP/1.1 200 OK\r\nx: y\r\n"


@pytest.mark.parametrize(
    "value",
    [b"a\r\nset-cookie: evil=1", b"a\nb", b"a\rb", b"\r\n", b"a\x00", b"\x0b", b"\x7f", b"a\r\n b"],
)
def test_a_value_cannot_end_its_line(value: bytes) -> None:
    with pytest.raises(InvalidHead):
        encode_head(200, [(b"a", b"b"), (b"x", value)], None, TAIL)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a: b", b"a\r\nb", b"\x00", b"\xe4", b"a\t"])
def test_a_name_must_be_a_token(name: bytes) -> None:
    with pytest.raises(InvalidHead):
        encode_head(200, [(name, b"x")], None, TAIL)


def test_made_up_names_do_not_fill_memory() -> None:
    from edge.http import response_head

    for number in range(response_head._PLAIN_MAX * 2):
        encode_head(200, [(b"x-%d" % number, b"")], None, b"")
    assert len(response_head._plain) <= response_head._PLAIN_MAX


def test_trailers_lose_what_may_not_be_there() -> None:
    given: Headers = [
        (b"X-Sum", b"1"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked"),
        (b"host", b"a"), (b"set-cookie", b"a=1"), (b"x-edge-outcome", b"ok"), (b"bad name", b""),
        (b"x", b"a\r\nb"), (b"x-forwarded-for", b"1.1.1.1"), (b"trailer", b"x"),
    ]  # fmt: skip
    assert clean_trailers(given) == [(b"x-sum", b"1")]
    assert encode_trailers([(b"x-sum", b"1"), (b"y", b"")]) == b"x-sum: 1\r\ny: \r\n"


def test_the_grammar_of_names_values_and_options() -> None:
    assert is_token(b"X-a!#$%&'*+.^_`|~9")
    assert not is_token(b"")
    assert is_value(b" \t\x80\xff~")
    assert not is_value(b"\x1f")
    assert connection_options([b"A , b,,", b"c"]) == {b"a", b"b", b"c"}


def test_a_head_that_was_made_before_is_the_same_again_and_a_bad_one_is_bad_again() -> None:
    guest: Headers = [(b"x-turn", b"1"), (b"connection", b"x-drop"), (b"x-drop", b"1")]
    first = encode_head(200, guest, None, b"a")
    assert first == b"HTTP/1.1 200 OK\r\nx-turn: 1\r\na"
    assert encode_head(200, list(guest), [(b"x-host", b"1")], b"b") == (
        b"HTTP/1.1 200 OK\r\nx-turn: 1\r\nx-host: 1\r\nb"
    )
    assert encode_head(201, guest, None, b"").startswith(b"HTTP/1.1 201 ")
    guest[0] = (b"x-turn", b"2")
    assert b"x-turn: 2" in encode_head(200, guest, None, b"")
    for _ in range(2):
        with pytest.raises(InvalidHead):
            encode_head(200, [(b"x-turn", b"1\r\nx: y")], None, b"")


def test_no_guest_can_make_the_memory_of_heads_grow_without_bound() -> None:
    for number in range(2000):
        encode_head(200, [(b"x-number", b"%d" % number)], None, b"")
    encode_head(200, [(b"x-long", b"v" * 4096)], None, b"")
    assert len(response_head._recent) <= response_head._RECENT_MAX
    assert max(map(len, response_head._recent.values())) <= response_head._RECENT_BYTES

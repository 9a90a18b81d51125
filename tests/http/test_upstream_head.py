"""Reading response heads of backends: what is accepted, what it says, what is refused."""

from __future__ import annotations

import pytest

from edge.http.framing import CHUNKED
from edge.http.upstream_head import (
    MAX_FIELDS,
    MAX_HEAD,
    UNTIL_CLOSE,
    BadResponse,
    Fault,
    RawResponse,
    read_response,
    refuse_partial,
)


def head(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *fields, b""))


def read(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", to_head: bool = False) -> RawResponse:
    return read_response(head(*fields, line=line), to_head=to_head)


def test_a_plain_head_says_what_it_says() -> None:
    raw = read(b"Content-Type: a/b", b"X-A:  b \t", b"x-a:c", b"X-E:", b"Content-Length: 5")
    assert (raw.status, raw.minor, raw.length, raw.keep_alive) == (200, 1, 5, True)
    assert sorted(raw.headers) == [
        (b"content-length", b"5"),
        (b"content-type", b"a/b"),
        (b"x-a", b"b"),
        (b"x-a", b"c"),
        (b"x-e", b""),
    ]
    assert [value for name, value in raw.headers if name == b"x-a"] == [b"b", b"c"]


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 200 All is well", b"HTTP/1.1 200 gr\xfc\xdf"],
)
def test_reasons_are_not_looked_at(line: bytes) -> None:
    assert read(line=line).status == 200


@pytest.mark.parametrize("status", [100, 103, 200, 404, 599, 600, 999])
def test_every_status_of_three_digits_is_one(status: int) -> None:
    assert read(line=b"HTTP/1.1 %d x" % status).status == status


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ((), UNTIL_CLOSE),
        ((b"Content-Length: 0",), 0),
        ((b"Content-Length: 007",), 7),
        ((b"Content-Length: 7", b"content-length: 7"), 7),
        ((b"Transfer-Encoding: chunked",), CHUNKED),
        ((b"TRANSFER-ENCODING: Chunked",), CHUNKED),
    ],
)
def test_the_length_is_told_once(fields: tuple[bytes, ...], length: int) -> None:
    raw = read(*fields)
    assert raw.length == length
    assert raw.keep_alive is (length != UNTIL_CLOSE)
    assert len([name for name, _ in raw.headers if name == b"content-length"]) <= 1


@pytest.mark.parametrize(
    ("line", "to_head"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 204 No Content", False),
        (b"HTTP/1.1 304 Not Modified", False),
        (b"HTTP/1.1 103 Early Hints", False),
    ],
)
def test_some_responses_have_no_body_whatever_they_say(line: bytes, to_head: bool) -> None:
    for fields in ((), (b"Content-Length: 5",), (b"Transfer-Encoding: chunked",)):
        raw = read(*fields, line=line, to_head=to_head)
        assert raw.length == 0
        if b"204" not in line or not fields:
            assert raw.keep_alive


def test_a_204_with_a_length_ends_its_connection() -> None:
    line = b"HTTP/1.1 204 No Content"
    assert not read(b"Content-Length: 5", line=line).keep_alive
    assert not read(b"Transfer-Encoding: chunked", line=line).keep_alive
    assert read(b"Content-Length: 0", line=line).keep_alive


@pytest.mark.parametrize(
    ("fields", "minor", "expected"),
    [
        ((), b"1", True),
        ((b"Connection: close",), b"1", False),
        ((b"Connection: Keep-Alive, CLOSE",), b"1", False),
        ((b"Connection: x", b"connection: close"), b"1", False),
        ((), b"0", False),
        ((b"Connection: keep-alive",), b"0", True),
        ((b"Connection: keep-alive, close",), b"0", False),
    ],
)
def test_keep_alive_follows_version_and_connection(
    fields: tuple[bytes, ...], minor: bytes, expected: bool
) -> None:
    line = b"HTTP/1.%b 200 OK" % minor
    assert read(*fields, b"Content-Length: 0", line=line).keep_alive is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5),
        (b"timeout=5, max=100", 5),
        (b"max=100,Timeout=60", 60),
        (b'timeout="5"', 5),
        (b"max=100", None),
        (b"timeout=x", None),
        (b"timeout=99999999", None),
    ],
)
def test_the_idle_time_that_a_server_promises_is_told(value: bytes, seconds: int | None) -> None:
    assert read(b"Keep-Alive: " + value).idle_timeout == seconds


def test_hop_by_hop_fields_stay_here() -> None:
    raw = read(
        b"Connection: X-Secret, close",
        b"X-Secret: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: x",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"Trailer: x",
        b"Content-Length: 1",
    )
    assert sorted(raw.headers) == [(b"content-length", b"1"), (b"trailer", b"x")]


def test_a_connection_option_cannot_hide_the_length() -> None:
    raw = read(b"Connection: content-length", b"Content-Length: 1")
    assert (raw.length, raw.headers) == (1, [(b"content-length", b"1")])


def test_what_a_101_upgrades_to_is_told() -> None:
    raw = read(b"Connection: Upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 Switching")
    assert raw.headers == [(b"upgrade", b"websocket")]


REFUSED = [
    (b"", Fault.SYNTAX),
    (b"\r\n\r\n", Fault.SYNTAX),
    (b"ICY 200 OK\r\n\r\n", Fault.SYNTAX),
    (b"http/1.1 200 OK\r\n\r\n", Fault.SYNTAX),
    (b" HTTP/1.1 200 OK\r\n\r\n", Fault.SYNTAX),
    (b"HTTP/1.1  200 OK\r\n\r\n", Fault.STATUS),
    (b"HTTP/2.0 200 OK\r\n\r\n", Fault.SYNTAX),
    (b"HTTP/1.10 200 OK\r\n\r\n", Fault.SYNTAX),
    (head(line=b"HTTP/1.1 2xx OK"), Fault.STATUS),
    (head(line=b"HTTP/1.1 000 OK"), Fault.STATUS),
    (head(line=b"HTTP/1.1 1000 OK"), Fault.STATUS),
    (head(line=b"HTTP/1.1 -20 OK"), Fault.STATUS),
    (head(line=b"HTTP/1.1 200 a\x00b"), Fault.SYNTAX),
    (head(b"A: b\nB: c"), Fault.SYNTAX),
    (head(b"A: b\rB: c"), Fault.SYNTAX),
    (head(b"A: b\x00"), Fault.SYNTAX),
    (head(b"A: b\x07"), Fault.SYNTAX),
    (head(b"A: b", b" folded"), Fault.SYNTAX),
    (head(b" A: b"), Fault.SYNTAX),
    (head(b"A : b"), Fault.SYNTAX),
    (head(b": b"), Fault.SYNTAX),
    (head(b"A(: b"), Fault.SYNTAX),
    (head(b"nothing"), Fault.SYNTAX),
    (head(b"Content-Length: 1", b"Content-Length: 2"), Fault.SYNTAX),
    (head(b"Content-Length: 1, 1"), Fault.SYNTAX),
    (head(b"Content-Length: -1"), Fault.SYNTAX),
    (head(b"Content-Length: 0x1"), Fault.SYNTAX),
    (head(b"Content-Length: 1_0"), Fault.SYNTAX),
    (head(b"Content-Length: "), Fault.SYNTAX),
    (head(b"Content-Length: " + b"9" * 20), Fault.SYNTAX),
    (head(b"Content-Length: 1", b"Transfer-Encoding: chunked"), Fault.SYNTAX),
    (head(b"Transfer-Encoding: identity"), Fault.SYNTAX),
    (head(b"Transfer-Encoding: gzip, chunked"), Fault.SYNTAX),
    (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), Fault.SYNTAX),
    (head(b"Transfer-Encoding: xchunked"), Fault.SYNTAX),
    (head(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"), Fault.SYNTAX),
    (head(*[b"A: b"] * (MAX_FIELDS + 1)), Fault.TOO_LARGE),
    (head(b"A: " + b"b" * MAX_HEAD), Fault.TOO_LARGE),
]


@pytest.mark.parametrize(("data", "fault"), REFUSED)
def test_what_two_readers_could_understand_differently_is_refused(
    data: bytes, fault: Fault
) -> None:
    with pytest.raises(BadResponse) as refused:
        read_response(data, to_head=False)
    assert refused.value.fault is fault


def test_as_many_fields_and_bytes_as_there_may_be_are_taken() -> None:
    assert len(read(*[b"A: b"] * MAX_FIELDS).headers) == MAX_FIELDS
    room = MAX_HEAD - len(head(b"A: "))
    assert len(read(b"A: " + b"b" * room).headers[0][1]) == room


@pytest.mark.parametrize(
    "data", [b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r", b"HTTP/1.1 200 OK\r\nA: b\r"]
)
def test_a_beginning_may_become_a_head(data: bytes) -> None:
    for end in range(len(data)):
        refuse_partial(data[: end + 1], max(0, end - 3))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"X", Fault.SYNTAX),
        (b"HTTX", Fault.SYNTAX),
        (b"HTTP/2", Fault.SYNTAX),
        (b"HTTP/1.1 200 OK\nA", Fault.SYNTAX),
        (b"HTTP/1.1 200 OK\rA", Fault.SYNTAX),
        (b"HTTP/1.1 200 OK\r\nA: \x00", Fault.SYNTAX),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD, Fault.TOO_LARGE),
    ],
)
def test_what_can_never_become_a_head_is_refused_at_once(data: bytes, fault: Fault) -> None:
    with pytest.raises(BadResponse) as refused:
        refuse_partial(data, 0)
    assert refused.value.fault is fault

"""The chunked decoder and the length counter: whole, byte by byte, with bytes behind."""

from __future__ import annotations

import pytest

from edge.http.chunked import (
    CHUNKS_PER_FEED,
    MAX_EXTENSION_BYTES,
    MAX_SIZE_LINE,
    MAX_TRAILER_BYTES,
    MAX_TRAILER_FIELDS,
    ChunkedDecoder,
    LengthDecoder,
)
from edge.http.message import Headers
from edge.http.refusal import Refused

GOOD: list[tuple[bytes, bytes, Headers]] = [
    (b"0\r\n\r\n", b"", []),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    (b"005\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", b"hello!", []),
    (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, []),
    (b"2;x\r\n\r\n\r\n0;last=\"y\"\r\n\r\n", b"\r\n", []),
    (b"1\r\na\r\n0\r\nX-Sum: 1 \r\nY:\r\n\r\n", b"a", [(b"x-sum", b"1"), (b"y", b"")]),
    (b"0\r\nContent-Length: 5\r\nHost: b\r\nX-Edge-Outcome: ok\r\nX: y\r\n\r\n", b"",
     [(b"x", b"y")]),
]  # fmt: skip

BAD = [
    b"\r\n",
    b"x\r\n",
    b" 5\r\nhello\r\n",
    b"5 \r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5\nhello\n",
    b"5\rhello",
    b"5\r\nhelloX",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\rX",
    b"5;\x00\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5 ;a\r\nhello\r\n",
    b"0000000000000005\r\n",
    b"ffffffffffffffff\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n folded: y\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\nX: y\n\r\n",
    b"0\r\n\n",
    b"0\r\nX: y\r\rZ",
]


def decode(data: bytes, step: int) -> tuple[bytes, bytes, ChunkedDecoder]:
    decoder, body, rest = ChunkedDecoder(), b"", b""
    for at in range(0, len(data), step):
        if decoder.done:
            return body, rest + data[at:], decoder
        piece, rest = decoder.feed(data[at : at + step])
        body += piece
    return body, rest, decoder


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("data", "body", "trailers"), GOOD)
def test_good_bodies_decode_however_they_arrive(
    data: bytes, body: bytes, trailers: Headers, step: int
) -> None:
    found, rest, decoder = decode(data + b"GET /next", step)
    assert (found, rest, decoder.done) == (body, b"GET /next", True)
    assert decoder.trailers == trailers


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("data", BAD)
def test_bad_bodies_are_refused_however_they_arrive(data: bytes, step: int) -> None:
    with pytest.raises(Refused):
        decode(data, step)


@pytest.mark.parametrize("data", [good[0] for good in GOOD])
def test_no_beginning_of_a_good_body_is_refused_or_complete(data: bytes) -> None:
    for end in range(len(data)):
        assert not decode(data[:end], 1000)[2].done


@pytest.mark.parametrize("step", [1, 100_000])
def test_extensions_are_bounded_each_and_in_all(step: int) -> None:
    decode(b"1;" + b"x" * (MAX_SIZE_LINE - 10) + b"\r\n", step)
    with pytest.raises(Refused, match="extension"):
        decode(b"1;" + b"x" * (MAX_SIZE_LINE + 10) + b"\r\n", step)
    chunk = b"1;" + b"x" * 199 + b"\r\na\r\n"
    with pytest.raises(Refused, match="extension"):
        decode(chunk * (MAX_EXTENSION_BYTES // 200 + 1), step)


@pytest.mark.parametrize("step", [1, 100_000])
def test_trailers_are_bounded_in_bytes_and_number(step: int) -> None:
    with pytest.raises(Refused) as refused:
        decode(b"0\r\nx: " + b"y" * MAX_TRAILER_BYTES + b"\r\n\r\n", step)
    assert refused.value.status == 431
    with pytest.raises(Refused) as refused:
        decode(b"0\r\n" + b"x: y\r\n" * (MAX_TRAILER_FIELDS + 1) + b"\r\n", step)
    assert refused.value.status == 431


def test_a_flood_of_tiny_chunks_is_decoded_in_turns() -> None:
    decoder = ChunkedDecoder()
    data = b"1\r\na\r\n" * (CHUNKS_PER_FEED * 2) + b"0\r\n\r\n"
    body, rest = decoder.feed(data)
    assert len(body) <= CHUNKS_PER_FEED
    assert rest
    while not decoder.done:
        piece, rest = decoder.feed(rest)
        body += piece
    assert body == b"a" * CHUNKS_PER_FEED * 2


def test_a_length_is_counted_down() -> None:
    counter = LengthDecoder(5)
    assert counter.feed(b"he") == (b"he", b"")
    assert counter.remaining == 3
    assert counter.feed(b"lloGET") == (b"llo", b"GET")
    assert counter.done
    exact = LengthDecoder(2)
    assert exact.feed(b"ab") == (b"ab", b"")
    assert exact.done

"""How the end of a response is told, for every kind of response."""

from __future__ import annotations

import pytest

from edge.http.framing import Mode, ResponseFraming, response_framing
from edge.http.message import Headers, ResponseHead


def framing(
    status: int = 200,
    headers: Headers | None = None,
    *,
    manual: bool = False,
    to_head: bool = False,
    minor: int = 1,
    known: int | None = None,
) -> ResponseFraming:
    head = ResponseHead(status, headers or [], manual)
    return response_framing(head, to_head=to_head, minor=minor, known=known)


def length(count: int) -> ResponseFraming:
    return ResponseFraming(Mode.LENGTH, count)


NONE = ResponseFraming(Mode.NONE)
CHUNKED = ResponseFraming(Mode.CHUNKED)
CLOSE = ResponseFraming(Mode.CLOSE)
FIVE: Headers = [(b"content-length", b"5")]
TE: Headers = [(b"transfer-encoding", b"chunked")]


def test_a_known_length_is_told_and_an_unknown_one_is_chunked_or_ends_by_closing() -> None:
    assert framing(known=3) == length(3)
    assert framing(known=0) == length(0)
    assert framing() == CHUNKED
    assert framing(minor=0) == CLOSE
    assert framing(known=3, headers=FIVE) == length(3)
    assert framing(headers=TE, minor=0) == CLOSE


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_and_no_length(status: int) -> None:
    assert framing(status, known=3) == NONE
    assert framing(status) == NONE
    assert framing(status, FIVE, manual=True) == NONE


def test_reset_content_has_an_empty_body() -> None:
    assert framing(205, known=3) == ResponseFraming(Mode.NONE, 0)


def test_an_answer_to_head_claims_what_get_would_have() -> None:
    assert framing(to_head=True, known=3) == ResponseFraming(Mode.NONE, 3)
    assert framing(to_head=True, known=0) == NONE
    assert framing(to_head=True, known=0, headers=FIVE) == ResponseFraming(Mode.NONE, 5)
    assert framing(to_head=True, headers=FIVE) == ResponseFraming(Mode.NONE, 5)
    assert framing(to_head=True, known=3, headers=FIVE) == ResponseFraming(Mode.NONE, 3)
    assert framing(to_head=True, known=3, headers=FIVE, manual=True).length == 5
    assert framing(to_head=True) == NONE


def test_manual_framing_is_used_when_it_is_valid() -> None:
    assert framing(headers=FIVE, manual=True) == length(5)
    assert framing(headers=FIVE, manual=True, known=3) == length(5)
    assert framing(headers=TE, manual=True, known=3) == CHUNKED


@pytest.mark.parametrize(
    "headers",
    [[], FIVE + FIVE, FIVE + TE, [(b"content-length", b"x")], [(b"content-length", b"+5")],
     [(b"content-length", b"")], [(b"content-length", b"1" * 20)], TE + TE,
     [(b"transfer-encoding", b"gzip")]],
)  # fmt: skip
def test_manual_framing_that_is_not_valid_is_ignored(headers: Headers) -> None:
    assert framing(headers=headers, manual=True, known=3) == length(3)
    assert framing(headers=TE, manual=True, minor=0) == CLOSE

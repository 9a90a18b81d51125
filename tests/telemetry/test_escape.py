"""No text of a guest or a client can move a cursor, end a line or break a JSON reader."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest

from edge.telemetry.escape import cut, json_string, plain, plain_of, text_of, word, word_of

HOSTILE = [
    *(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))),  # C0, DEL, C1
    "\u2028", "\u2029", "\u202e", "\u2066", "\ufeff", "\ud800", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("char", HOSTILE, ids=ascii)
def test_nothing_unprintable_is_left_in_either_format(char: str) -> None:
    text = f'é "{char}\\n'
    for line in (json_string(text), plain(text), word(text)):
        assert line.isprintable()
        line.encode()  # strict: no lone surrogate is left
    assert json.loads(json_string(text)) == text
    assert plain(text).encode().decode("unicode_escape") == text


def test_every_character_of_unicode_survives_json_and_none_unprintable_comes_through() -> None:
    for start in range(0, 0x110000, 0x1000):
        # Surrogates alone are above; side by side a JSON reader joins them.
        codes = (code for code in range(start, start + 0x1000) if not 0xD800 <= code < 0xE000)
        text = "".join(map(chr, codes))
        line = json_string(text)
        assert json.loads(line) == text
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)


def test_printable_text_is_left_as_it_is() -> None:
    assert json_string('caf\u00e9 "x"') == '"café \\"x\\""'
    assert plain("café → 日本") == "café → 日本"


def test_a_backslash_always_begins_an_escape() -> None:
    assert plain("\\x1b") == "\\\\x1b"
    assert plain("\x1b") == "\\x1b"


def test_a_word_has_no_space_and_is_never_empty() -> None:
    assert word("") == "-"
    assert word('a b"c') == "a\\x20b\\x22c"


@pytest.mark.parametrize("broken", [b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80" * 9])
def test_bytes_that_are_not_utf8_are_written_as_escapes(broken: bytes) -> None:
    for text in (text_of(broken), plain_of(broken), word_of(broken)):
        assert text.isascii()
        assert text.encode().decode("unicode_escape").encode("latin-1") == broken


def test_a_cut_never_splits_a_character() -> None:
    data = ("a" + "€" * 10).encode()
    for limit in range(1, len(data)):
        kept, left_out = cut(data, limit)
        kept.decode()
        assert limit - 3 < len(kept) <= limit
        assert len(kept) + left_out == len(data)
    assert cut(data, len(data)) == (data, 0)


def test_a_cut_of_continuation_bytes_ends_at_the_limit() -> None:
    assert cut(b"\x80" * 100, 10) == (b"\x80" * 10, 90)


@pytest.mark.parametrize("unit", [b"\x1b", b"\xff", b"\\", b'"', "\u202e".encode(), b"\x00"])
def test_a_mebibyte_of_hostile_text_takes_milliseconds(unit: bytes) -> None:
    data = unit * (1024 * 1024 // len(unit))
    started = time.thread_time()
    json_string(text_of(data))
    plain_of(data)
    # 4 to 30 ms here; character by character in Python it was seconds.
    assert time.thread_time() - started < 0.5

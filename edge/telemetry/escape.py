"""Makes hostile text safe to write into a log line.  Every path through here runs at C speed.

A guest may log a mebibyte of anything, so nothing here works character by character in Python:
8 KiB of control characters or of broken UTF-8 cost tens of microseconds, not milliseconds.
"""

from __future__ import annotations

from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Final

MAX_TEXT_BYTES: Final = 8 * 1024  # of one message or field, before escaping


def text_of(data: bytes) -> str:
    r"""Bytes from the wire or a guest as text; all of it as `\xNN` when it is not UTF-8.

    Not only the broken part: one rule, and no error handler in Python for each broken byte.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def cut(data: bytes, limit: int = MAX_TEXT_BYTES) -> tuple[bytes, int]:
    """At most `limit` bytes, ending on a character, and how many bytes were left out."""
    if len(data) <= limit:
        return data, 0
    end = limit
    while end > limit - 4 and data[end] & 0xC0 == 0x80:  # a UTF-8 character has at most 4 bytes
        end -= 1
    if data[end] & 0xC0 == 0x80:
        end = limit  # not UTF-8 anyway
    return data[:end], len(data) - end


def json_string(text: str) -> str:
    r"""A JSON string with its quotes.

    Text that `str.isprintable` doubts (C0, DEL, C1, line separators, bidirectional overrides, lone
    surrogates) is written with `\uNNNN` throughout: what a terminal shows is then plain ASCII.
    """
    if text.isprintable():
        return encode_basestring(text)
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def plain(text: str) -> str:
    r"""Text for a line of words: a backslash always begins an escape, and nothing moves a cursor.

    Spaces stay; use `word` where a space would end the field.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return text.encode("unicode_escape").decode("ascii")


def plain_of(data: bytes) -> str:
    r"""Bytes for a line of words, escaped once: `\xNN` is a byte when the data is not UTF-8."""
    try:
        return plain(data.decode())
    except UnicodeDecodeError:
        return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def word(text: str) -> str:
    """One field of a line of words: never empty, never with a space or a double quote in it."""
    return _unspaced(plain(text))


def word_of(data: bytes) -> str:
    """`word` of bytes, escaped as `plain_of` does."""
    return _unspaced(plain_of(data))


def _unspaced(escaped: str) -> str:
    return escaped.replace(" ", "\\x20").replace('"', "\\x22") or "-"

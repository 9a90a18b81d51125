"""What every KV engine must agree on: keys, pages, preconditions, sizes, generations.  No storage.

The rules are those of the platform whose interface guests use (ABI page, sections 6.11 and 7).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

from edge.errors import InvalidArgument
from edge.stores.kv import MAX_PIECE, Insertion, InsertMode, KvCause, KvFailed, KvPage

MAX_KEY = 1024  # bytes of UTF-8
MAX_METADATA = 2000  # bytes
MAX_LIST = 1000  # keys on one page
# Rows that one page may pass over: values that are over and not swept yet are not on it.
MAX_SCAN = 4 * MAX_LIST
# What a store is charged for an entry besides its bytes, so that a million empty ones cost what
# they take.
ENTRY_OVERHEAD = 128
# The longest base64 of a key.
MAX_CURSOR = (MAX_KEY + 2) // 3 * 4

_RESERVED = ".well-known/acme-challenge"
_FORBIDDEN = frozenset("\r\n#;?^|")
_NOT_ALONE = frozenset([*map(chr, range(0x21)), "\ufffe", "\uffff"])


def check_key(key: str) -> bytes:
    """The key as bytes, which sort as the text does.  Raises InvalidArgument."""
    raw = key.encode()
    if not 1 <= len(raw) <= MAX_KEY:
        raise InvalidArgument(f"a key of {len(raw)} bytes; it has 1 to {MAX_KEY}")
    if not _FORBIDDEN.isdisjoint(key):
        raise InvalidArgument("a key has none of CR LF # ; ? ^ |")
    if "." in key:
        if key.startswith(_RESERVED):
            raise InvalidArgument(f"no key begins with {_RESERVED}")
        if key in (".", "..") or "./" in key or key.endswith(("/.", "/..")):
            raise InvalidArgument("a key has no dot segments")
    if key in _NOT_ALONE:
        raise InvalidArgument(f"{key!r} alone is no key")
    return raw


def cursor_after(key: bytes) -> str:
    """Where the page after `key` begins."""
    return base64.b64encode(key).decode()


def read_cursor(cursor: str) -> bytes:
    """The key that a page begins after; empty for the first.  Raises KvFailed."""
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        key = base64.b64decode(cursor, validate=True)
        key.decode()
    except (ValueError, binascii.Error):  # not UTF-8 is a ValueError as well
        raise KvFailed(KvCause.BAD_REQUEST, "not a cursor of ours") from None
    return key


def read_range(prefix: str, cursor: str, limit: int) -> tuple[bytes, bytes, int]:
    """The first key there may be on a page, one beyond the last, and the limit.  Raises KvFailed.

    A limit above MAX_LIST is taken for that.
    """
    low = prefix.encode()
    if len(low) > MAX_KEY:
        raise KvFailed(KvCause.BAD_REQUEST, f"a prefix of {len(low)} bytes")
    if limit < 1:
        raise KvFailed(KvCause.BAD_REQUEST, "a list of at most 0 keys")
    after = read_cursor(cursor)
    # Nothing sorts between a key and that key with a NUL; no UTF-8 has the byte 0xff.
    first = max(low, after + b"\0") if after else low
    return first, low + b"\xff", min(limit, MAX_LIST)


def page_of(rows: Iterable[tuple[bytes, int | None]], now: int, limit: int) -> KvPage:
    """A page of rows `(key, when it is over)` in order, of which at most MAX_SCAN are looked at.

    `now` and the ends are in milliseconds since 1970.
    """
    keys: list[str] = []
    last = b""
    for count, (key, expires) in enumerate(rows):
        if len(keys) == limit or count == MAX_SCAN:
            return KvPage(tuple(keys), limit, cursor_after(last))
        last = key
        if expires is None or expires > now:
            keys.append(key.decode())
    return KvPage(tuple(keys), limit)


def check_insertion(insertion: Insertion, existing: tuple[int, int] | None, limit: int) -> int:
    """Size of the value to be; `existing` is the generation and size of a live one.

    Raises KvFailed.
    """
    if existing is not None:
        generation, size = existing
        if insertion.generation is not None and insertion.generation != generation:
            raise KvFailed(KvCause.PRECONDITION_FAILED, "the value has another generation")
        if insertion.mode is InsertMode.ADD:
            raise KvFailed(KvCause.PRECONDITION_FAILED, "there is a value already")
        if insertion.mode is not InsertMode.OVERWRITE:
            return check_size(size + insertion.size, limit)
    elif insertion.must_exist:
        raise KvFailed(KvCause.PRECONDITION_FAILED, "there is no value to replace")
    return check_size(insertion.size, limit)


def check_deletion(found: int | None, wanted: int | None) -> None:
    """`found`: the generation of a live value.  Raises KvFailed when another one is wanted."""
    if wanted is not None and wanted != found:
        raise KvFailed(KvCause.PRECONDITION_FAILED, "the value has another generation")


def check_size(size: int, limit: int) -> int:
    """Raises KvFailed for a value that is too large."""
    if size > limit:
        raise KvFailed(
            KvCause.PAYLOAD_TOO_LARGE,
            f"a value of {size} bytes; storage.kv_value_bytes allows {limit}",
            setting="storage.kv_value_bytes",
        )
    return size


def check_metadata(metadata: bytes) -> None:
    """Raises KvFailed."""
    if len(metadata) > MAX_METADATA:
        raise KvFailed(
            KvCause.BAD_REQUEST, f"{len(metadata)} bytes of metadata; {MAX_METADATA} is the most"
        )


def store_full(limit: int) -> KvFailed:
    """What a store answers that would grow over its limit."""
    return KvFailed(
        KvCause.PAYLOAD_TOO_LARGE,
        f"the store would hold more than storage.kv_store_bytes allows ({limit})",
        setting="storage.kv_store_bytes",
    )


def all_full(limit: int) -> KvFailed:
    """What a store answers when all of them together would grow over their limit."""
    return KvFailed(
        KvCause.PAYLOAD_TOO_LARGE,
        f"all stores together would hold more than storage.kv_total_bytes allows ({limit})",
        setting="storage.kv_total_bytes",
    )


def store_gone() -> KvFailed:
    """What a write to a store gets that has been erased."""
    return KvFailed(KvCause.BAD_REQUEST, "the store has been deleted")


def cost_of(key: int, metadata: int, size: int) -> int:
    """What an entry counts in its store, from the lengths of its parts."""
    return key + metadata + size + ENTRY_OVERHEAD


def next_generation(last: int, wall: float) -> int:
    """Above all earlier ones of the store, and above those of a store that this one replaces."""
    return max(last + 1, int(wall * 1e9))


def end_of(ttl: int | None, now: int) -> int | None:
    """When a value is over, in milliseconds since 1970."""
    return None if ttl is None else now + ttl * 1000


def milliseconds(wall: float) -> int:
    return int(wall * 1000)


def regrouped(pieces: Iterable[bytes], most: int = MAX_PIECE) -> Iterator[bytes]:
    """The same bytes, with neighbours joined as long as they stay within `most`."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > most and waiting:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    if size:
        yield b"".join(waiting)

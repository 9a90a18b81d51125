"""JSON files of records by key, as local servers and small installations have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

MAX_FILE = 64 * 1024 * 1024


def read_records(path: Path) -> dict[str, dict[str, object]]:
    """`{KEY: {...}, ...}`.  Raises OSError, or ValueError in words."""
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"has more than {MAX_FILE} bytes")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object of records by key")
    for key, record in document.items():
        if not isinstance(record, dict):
            raise ValueError(f"the record of {key[:64]!r} is not a JSON object")
    return document


def encode(record: Mapping[str, object]) -> bytes:
    """As guests get it.  Raises ValueError for what JSON or UTF-8 cannot say."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


Signature = tuple[int, int, int] | None


def signature(path: Path | None) -> Signature:
    """Differs when the file has been replaced or written to; None when there is none."""
    if path is None:
        return None
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def in_words(path: Path | None, error: Exception) -> str:
    """What is wrong with a file, for the operator."""
    what = error.strerror if isinstance(error, OSError) else str(error)
    return f"{path}: {what}" if path is not None else f"{what}"

"""Identifiers that nobody can guess or count: 22 characters of base 62, as Fastly's are."""

from __future__ import annotations

import secrets
import string

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
LENGTH = 22  # log2(62) * 22 = 131 bits: two never meet


def new_id() -> str:
    """A new identifier."""
    return new_text(LENGTH)


def new_text(length: int) -> str:
    """So many random characters of base 62, 5.95 bits each."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))

"""Names of secret stores and secrets.  The values live in `edge.model.secret.Secret`."""

from __future__ import annotations

import string

from edge.errors import InvalidArgument

_ALLOWED = frozenset(string.ascii_letters + string.digits + "._-")


def check_name(name: str) -> str:
    """Raises InvalidArgument, without repeating the name: a caller may have mixed it up."""
    if not 1 <= len(name) <= 255 or not _ALLOWED.issuperset(name):
        raise InvalidArgument("names of secrets are 1 to 255 of A-Z a-z 0-9 . _ -")
    return name

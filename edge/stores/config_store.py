"""Config stores: small read-only text mappings that come with a service.  No ABI, no files."""

from __future__ import annotations

from collections.abc import Mapping

from edge.errors import InvalidArgument

ConfigStore = Mapping[str, str]

MAX_KEY = 256  # characters


def lookup(store: ConfigStore, key: str) -> bytes | None:
    """The value as UTF-8.  Raises InvalidArgument for a key longer than any store can have."""
    if len(key) > MAX_KEY:
        raise InvalidArgument(f"a key of {len(key)} characters; {MAX_KEY} is the most")
    value = store.get(key)
    return None if value is None else value.encode()

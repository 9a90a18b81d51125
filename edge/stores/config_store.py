"""Config stores: small read-only text mappings that come with a service.  No ABI, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.errors import InvalidArgument

MAX_KEY = 256  # characters


@dataclass(frozen=True, slots=True)
class ConfigStore:
    """One store, open."""

    items: Mapping[str, str]

    def lookup(self, key: str) -> bytes | None:
        """The value as UTF-8.  Raises InvalidArgument for a key longer than any store can have."""
        if len(key) > MAX_KEY:
            raise InvalidArgument(f"a key of {len(key)} characters; {MAX_KEY} is the most")
        value = self.items.get(key)
        return None if value is None else value.encode()

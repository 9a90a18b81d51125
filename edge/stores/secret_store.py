"""Secret stores: named secrets that come with a service.  No ABI, no files."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.errors import InvalidArgument
from edge.model.secret import Secret

_ALLOWED = frozenset(string.ascii_letters + string.digits + "._-")


def check_name(name: str) -> str:
    """Raises InvalidArgument, without repeating the name: a caller may have mixed it up."""
    if not 1 <= len(name) <= 255 or not _ALLOWED.issuperset(name):
        raise InvalidArgument("names of secrets are 1 to 255 of A-Z a-z 0-9 . _ -")
    return name


@dataclass(frozen=True, slots=True)
class SecretStore:
    """One store, open."""

    secrets: Mapping[str, Secret] = field(repr=False)

    def lookup(self, name: str) -> Secret | None:
        """Raises InvalidArgument for what cannot be a name."""
        return self.secrets.get(check_name(name))

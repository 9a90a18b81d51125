"""A value that must not be printed: repr, str, format and error messages never show it."""

from __future__ import annotations

import hmac


class Secret:
    """Bytes that only `reveal()` gives out.

    Equality takes the same time wherever two values differ; there is no hash, which would be a
    fingerprint of the value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The value itself; whoever calls this answers for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")

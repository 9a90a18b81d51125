"""Tokens that were found valid a moment ago, so that not every call asks the catalogue.

Keyed by the digest of the text: the texts themselves are not kept.  Whoever revokes a token calls
`forget`, after which no call gets through with it, not even one whose look-up had begun before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from edge.catalogue.records import Token

KEEP_SECONDS: Final = 10.0
MAX_TOKENS: Final = 1024  # above, those that were remembered first go


class TokenCache:
    """Bounded; times are monotonic seconds that the caller gives."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, tuple[Token, float]] = OrderedDict()
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Grows with every `forget`: what was looked up before is then not to be believed."""
        return self._epoch

    def get(self, text: str, now: float) -> Token | None:
        """The token of this text, if it was remembered lately."""
        key = _digest(text)
        found = self._found.get(key)
        if found is None:
            return None
        token, until = found
        if now >= until:
            del self._found[key]
            return None
        return token

    def remember(self, text: str, token: Token, now: float, epoch: int) -> None:
        """`epoch` as it was when the look-up began."""
        if epoch != self._epoch:
            return
        key = _digest(text)
        self._found[key] = (token, now + KEEP_SECONDS)
        self._found.move_to_end(key)
        while len(self._found) > MAX_TOKENS:
            self._found.popitem(last=False)

    def forget(self, token_id: str) -> None:
        """This token is valid no longer."""
        self._drop(lambda token: token.id == token_id)

    def forget_service(self, service_id: str) -> None:
        """No token of this service is: they went with it."""
        self._drop(lambda token: token.service_id == service_id)

    def _drop(self, gone: Callable[[Token], bool]) -> None:
        self._epoch += 1
        for key in [key for key, (token, _) in self._found.items() if gone(token)]:
            del self._found[key]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

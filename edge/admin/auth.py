"""Who may call: tokens, what they allow, and the patience with those who guess.

A token is looked up by the catalogue, in constant time where it compares.  Addresses that showed
wrong tokens too often are told to wait, and what they show is then looked up only while few others
are: a valid token works from everywhere, always, so that nobody can lock operators out by guessing
beside them.  Guessing itself is hopeless (166 random bits); what is limited is its load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from edge.admin.api import Route
from edge.admin.around import Around
from edge.catalogue import services, tokens
from edge.catalogue.database import Transaction
from edge.catalogue.records import Scope, Token
from edge.errors import ApiRefused, Refusal

ANONYMOUS: Final = Token("", "", frozenset(), "", 0.0, None, None)
FAILURES: Final = 10  # of one address in one window; more are answered 429
WINDOW_SECONDS: Final = 60.0
MAX_ADDRESSES: Final = 4096  # with failures; beyond, those that failed first are forgiven
MAX_DOUBTFUL: Final = 4  # look-ups at once for addresses above the limit
MAX_TEXT: Final = 256  # characters of a token

_INCLUDED: Final = {
    Scope.READ: frozenset((Scope.READ,)),
    Scope.DEPLOY: frozenset((Scope.READ, Scope.DEPLOY)),
    Scope.PURGE: frozenset((Scope.PURGE,)),
    Scope.ADMIN: frozenset(Scope),
}


class TooManyFailures(ApiRefused):
    """An address that guesses."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, int(seconds + 0.999))
        super().__init__(
            Refusal.RATE_LIMITED,
            f"this address has shown {FAILURES} invalid tokens within a minute; "
            f"wait {self.seconds} s, or show a valid one",
        )


class Failures:
    """Invalid tokens by client address; IPv6 by /64, the smallest network anybody is given."""

    def __init__(self) -> None:
        self._table: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def wait(self, client: bytes, now: float) -> float:
        """Seconds until this address may fail again; 0 when it may now."""
        since, count = self._table.get(_network(client), (now, 0))
        left = since + WINDOW_SECONDS - now
        return left if count >= FAILURES and left > 0 else 0.0

    def count(self, client: bytes, now: float) -> None:
        """One more."""
        key = _network(client)
        since, count = self._table.get(key, (now, 0))
        if now - since >= WINDOW_SECONDS:
            since, count = now, 0
        self._table[key] = (since, count + 1)
        while len(self._table) > MAX_ADDRESSES:
            self._table.popitem(last=False)


class Gate:
    """Lets calls in."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._failures = Failures()
        self._doubtful = 0

    async def admit(self, shown: str | None, client: bytes) -> Token:
        """The token that a call shows.  Raises ApiRefused UNAUTHORIZED or RATE_LIMITED."""
        if not shown:
            raise ApiRefused(
                Refusal.UNAUTHORIZED,
                "show a token as `Authorization: Bearer TOKEN` or `Fastly-Key: TOKEN`; the first "
                "one is in the file admin.token of the state directory",
            )
        clock, cache = self._around.clock, self._around.tokens
        token = cache.get(shown, clock.monotonic())
        if token is None:
            epoch = cache.epoch
            token = await self._look_up(shown, client)
            cache.remember(shown, token, clock.monotonic(), epoch)
        if token.expires_at is not None and token.expires_at <= clock.wall():
            raise ApiRefused(Refusal.UNAUTHORIZED, f"the token {token.name!r} has expired")
        return token

    async def allow(self, route: Route, token: Token, named: Callable[[str], str]) -> None:
        """Raises ApiRefused FORBIDDEN unless the token may take this route, for what it names."""
        needed = route.scope
        if needed is None:
            return
        if not any(needed in _INCLUDED[scope] for scope in token.scopes):
            have = ", ".join(sorted(scope.value for scope in token.scopes))
            raise ApiRefused(
                Refusal.FORBIDDEN,
                f"the token {token.name!r} has {have}; this needs {needed.value}",
            )
        if not token.service_id or route.confined:
            return
        if route.service and await self._is_its_own(token, named(route.service)):
            return
        raise ApiRefused(
            Refusal.FORBIDDEN, f"the token {token.name!r} is for one service, and this is not it"
        )

    async def _look_up(self, shown: str, client: bytes) -> Token:
        """A token that is not remembered."""
        now = self._around.clock.monotonic()
        wait = self._failures.wait(client, now)
        if wait and self._doubtful >= MAX_DOUBTFUL:
            raise TooManyFailures(wait)
        token = None
        if len(shown) <= MAX_TEXT and shown.isascii():
            self._doubtful += bool(wait)
            try:
                token = await self._around.catalogue.read(
                    lambda tx: tokens.authenticate(tx, shown), urgent=True
                )
            finally:
                self._doubtful -= bool(wait)
        if token is not None:
            return token
        if wait:
            raise TooManyFailures(wait)
        self._failures.count(client, now)
        raise ApiRefused(
            Refusal.UNAUTHORIZED, "the token is not valid: misspelt, revoked, or of another server"
        )

    async def _is_its_own(self, token: Token, name: str) -> bool:
        if name == token.service_id:
            return True
        if any(service.name == name for service in self._around.control.file_services()):
            return False  # it came after one of ours that has its name, and the name is the file's

        def named(tx: Transaction) -> bool:
            try:
                return services.find(tx, name).id == token.service_id
            except ApiRefused:
                return False

        return await self._around.catalogue.read(named, urgent=True)


def shown_token(header: Callable[[str], str | None]) -> str | None:
    """What a request shows: `Authorization: Bearer`, or the field of Fastly's clients."""
    authorization = header("authorization")
    if authorization is not None:
        scheme, _, text = authorization.strip().partition(" ")
        if scheme.lower() == "bearer" and text.strip():
            return text.strip()
    key = header("fastly-key")
    return key.strip() if key is not None else None


def _network(client: bytes) -> bytes:
    return client[:8] if len(client) == 16 else client

"""Who the caller is, its tokens, and what clients ask before they do anything.

There are no users and no customers here: a token stands for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import CUSTOMER_ID, Form, answer, endpoint, read_form, timestamp
from edge.catalogue import services, tokens
from edge.catalogue.records import Page, Scope, Token
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_MOST_TOKENS: Final = 1000
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
# Fastly's scopes, those that allow most first, and what they allow here.
_SCOPES: Final = {
    "global": frozenset((Scope.ADMIN, Scope.PURGE)),
    "global:read": frozenset((Scope.READ,)),
    "purge_all": frozenset((Scope.PURGE,)),
    "purge_select": frozenset((Scope.PURGE,)),
}
_OF_ONE_SERVICE: Final = frozenset((Scope.DEPLOY, Scope.PURGE))  # `global` of such a token
_FRACTION: Final = re.compile(r"\.\d+", re.ASCII)


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = _Account(around)
    return [
        endpoint("GET", _WELL_KNOWN, here.openid, None),
        endpoint("GET", f"/realms/fastly{_WELL_KNOWN}", here.openid, None),
        endpoint("GET", "/verify", here.verify, Scope.READ, confined=True),
        endpoint("GET", "/tokens/self", here.describe_own, Scope.READ, confined=True),
        endpoint("DELETE", "/tokens/self", here.revoke_own, Scope.READ, confined=True),
        endpoint("GET", "/tokens", here.listing, Scope.ADMIN),
        endpoint("POST", "/tokens", here.create, Scope.ADMIN),
        endpoint("POST", "/sudo", here.sudo, Scope.ADMIN),
        endpoint("DELETE", "/tokens/{token}", here.revoke, Scope.ADMIN),
        endpoint("GET", "/public-ip-list", here.addresses),
        endpoint("GET", "/enabled-products/v1/{product}/services/{service}", here.product),
        endpoint(
            "PUT", "/enabled-products/v1/{product}/services/{service}", here.enable, Scope.DEPLOY
        ),
    ]


class _Account:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def openid(self, call: Call) -> Reply:
        """The CLI wants to read one before it does anything; there is no login to be described."""
        scheme = "http" if self._around.settings.admin.tls.certificate is None else "https"
        issuer = f"{scheme}://{call.headers('host') or 'localhost'}"
        return answer({"issuer": issuer, "response_types_supported": []})

    async def verify(self, call: Call) -> Reply:
        """What `whoami` shows."""
        token = call.token

        def read(tx: Transaction) -> dict[str, str]:
            found = (
                [services.get(tx, token.service_id)]
                if token.service_id
                else services.listing(tx, Page(_MOST_TOKENS))
            )
            return {service.id: service.name for service in found}

        return answer(
            {
                "customer": {"id": CUSTOMER_ID, "name": "edge-server"},
                "user": {"id": token.id, "name": token.name, "login": token.name},
                "services": await self._around.catalogue.read(read),
                "token": {
                    "id": token.id,
                    "name": token.name,
                    "created_at": timestamp(token.created_at),
                    "expires_at": timestamp(token.expires_at),
                    "scope": _scope_of(token),
                },
            }
        )

    async def listing(self, call: Call) -> Reply:
        found = await self._around.catalogue.read(lambda tx: tokens.listing(tx, Page(_MOST_TOKENS)))
        return answer([_shape(token) for token in found])

    async def describe_own(self, call: Call) -> Reply:
        return answer(_shape(call.token))

    async def create(self, call: Call) -> Reply:
        """Answers the token's text, this once."""
        form = await read_form(call)
        named = form.texts("services")
        if len(named) > 1:
            raise ApiRefused(
                Refusal.INVALID, "a token is for one service or for all; make one for each"
            )
        scopes = _scopes_from(form.text("scope", "global").split(), of_one=bool(named))
        expires_at = _expiry(form)

        def write(tx: Transaction) -> tuple[Token, str]:
            service = services.find(tx, named[0]).id if named else ""
            return tokens.create(
                tx, form.text("name"), scopes, service_id=service, expires_at=expires_at
            )

        made, text = await self._around.catalogue.write(call.actor, write)
        return answer({**_shape(made), "access_token": text})

    async def sudo(self, call: Call) -> Reply:
        """The CLI raises its rights before it makes a token; a token of admins has them."""
        return answer({"expiry_time": timestamp(self._around.clock.wall() + 300)})

    async def revoke(self, call: Call) -> Reply:
        return await self._revoke(call, call.params["token"])

    async def revoke_own(self, call: Call) -> Reply:
        return await self._revoke(call, call.token.id)

    async def addresses(self, call: Call) -> Reply:
        """Those that the server listens on, where they name one."""
        hosts = [
            listen.host
            for listen in self._around.listens()
            if not ip_address(listen.host).is_unspecified
        ]
        return answer(
            {
                "addresses": [f"{host}/32" for host in hosts if ":" not in host],
                "ipv6_addresses": [f"{host}/128" for host in hosts if ":" in host],
            }
        )

    async def product(self, call: Call) -> Reply:
        """What Fastly sells besides is not here; clients read this as not enabled."""
        raise ApiRefused(Refusal.BAD_REQUEST, _no_product(call))

    async def enable(self, call: Call) -> Reply:
        raise ApiRefused(Refusal.UNSUPPORTED, _no_product(call))

    async def _revoke(self, call: Call, token: str) -> Reply:
        await self._around.catalogue.write(call.actor, lambda tx: tokens.revoke(tx, token))
        self._around.tokens.forget(token)
        return Reply(204)


def _no_product(call: Call) -> str:
    return f"the product {call.params['product'][:40]!r} is not enabled: this server has none"


def _scopes_from(words: Iterable[str], *, of_one: bool) -> set[Scope]:
    found: set[Scope] = set()
    for word in words:
        if word not in _SCOPES:
            known = ", ".join(_SCOPES)
            raise ApiRefused(Refusal.INVALID, f"{word[:40]!r} is not a scope; there are {known}")
        found |= _OF_ONE_SERVICE if of_one and word == "global" else _SCOPES[word]
    return found


def _scope_of(token: Token) -> str:
    """In Fastly's words; `global` for all that may change something."""
    if token.scopes & {Scope.DEPLOY, Scope.ADMIN}:
        return "global"
    words = ["global:read"] if Scope.READ in token.scopes else []
    return " ".join([*words, *(["purge_all"] if Scope.PURGE in token.scopes else [])])


def _expiry(form: Form) -> float | None:
    text = form.text("expires_at")
    if not text:
        return None
    try:
        at = datetime.fromisoformat(_FRACTION.sub("", text))
    except ValueError:
        raise ApiRefused(
            Refusal.INVALID, f"expires_at is {text[:40]!r}; write 2030-01-31T00:00:00Z"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _shape(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "user_id": token.id,
        "customer_id": CUSTOMER_ID,
        "name": token.name,
        "scope": _scope_of(token),
        "services": [token.service_id] if token.service_id else [],
        "ip": "",
        "created_at": timestamp(token.created_at),
        "last_used_at": timestamp(token.last_used_at),
        "expires_at": timestamp(token.expires_at),
    }

"""Tokens: who has one, new ones, revoked ones; and who the caller is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.admin import schema
from edge.admin.api import JSON, Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import (
    PAGE,
    json_reply,
    list_of,
    list_reply,
    one_more,
    page_of,
    read_fields,
)
from edge.admin.v1.finding import refuse_file_service
from edge.admin.v1.views import SERVICE_NAME, WHEN, when
from edge.catalogue import services, tokens
from edge.catalogue.database import Transaction
from edge.catalogue.records import Scope, Token

_SCOPES: Final = schema.array(schema.one_of(*(scope.value for scope in Scope)))
_TOKEN_FIELDS: Final = {
    "id": schema.text(),
    "name": schema.text(),
    "scopes": _SCOPES,
    "service_id": schema.maybe(schema.text()),
    "created_at": schema.maybe(WHEN),
    "expires_at": schema.maybe(WHEN),
    "last_used_at": schema.maybe(WHEN),
}
TOKEN: Final = schema.obj(_TOKEN_FIELDS)
_MADE: Final = schema.obj(
    {**_TOKEN_FIELDS, "token": schema.text(about="Its text, told this once and never again.")}
)
_NEW: Final = schema.obj(
    {
        "name": schema.text(1, 255),
        "scopes": {**_SCOPES, "minItems": 1, "maxItems": len(Scope)},
    },
    {
        "service": {**SERVICE_NAME, "description": "Of this service only: its name or id."},
        "expires_in": schema.number(1, 10**10, about="Seconds from now; never if left out."),
    },
)
_ID: Final = {"token": schema.text(1, 64)}


def routes(around: Around) -> list[Route]:
    """`/v1/tokens` and `/v1/whoami`."""
    its = _Tokens(around)
    return [
        Route(
            "GET",
            "/v1/whoami",
            its.whoami,
            confined=True,
            operation=Operation(
                "whoami", "Which token this is", "tokens", responses={200: TOKEN}, refusals=(422,)
            ),
        ),
        Route(
            "GET",
            "/v1/tokens",
            its.listing,
            Scope.ADMIN,
            operation=Operation(
                "list_tokens",
                "List tokens, without their texts",
                "tokens",
                query=PAGE,
                responses={200: list_of(TOKEN)},
                refusals=(422,),
            ),
        ),
        Route(
            "POST",
            "/v1/tokens",
            its.create,
            Scope.ADMIN,
            operation=Operation(
                "create_token",
                "Make a token",
                "tokens",
                request={JSON: _NEW},
                responses={201: _MADE},
                refusals=(404, 409, 413, 422, 507),
            ),
        ),
        Route(
            "DELETE",
            "/v1/tokens/{token}",
            its.revoke,
            Scope.ADMIN,
            operation=Operation(
                "revoke_token",
                "Revoke a token",
                "tokens",
                responses={204: None},
                refusals=(404, 409, 422, 507),
                params=_ID,
            ),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Tokens:
    around: Around

    async def whoami(self, call: Call) -> Reply:
        return json_reply(token_view(call.token))

    async def listing(self, call: Call) -> Reply:
        page = page_of(call)
        found = await self.around.catalogue.read(lambda tx: tokens.listing(tx, one_more(page)))
        return list_reply(found, page, token_view, lambda token: token.id)

    async def create(self, call: Call) -> Reply:
        wanted = await read_fields(call, _NEW)
        scopes = wanted["scopes"]
        assert isinstance(scopes, list)
        service, seconds = wanted.get("service"), wanted.get("expires_in")
        if service is not None:
            refuse_file_service(self.around, str(service))

        def work(tx: Transaction) -> tuple[Token, str]:
            return tokens.create(
                tx,
                str(wanted["name"]),
                [Scope(scope) for scope in scopes],
                service_id="" if service is None else services.find(tx, str(service)).id,
                expires_at=None if seconds is None else tx.now + float(str(seconds)),
            )

        made, text = await self.around.catalogue.write(call.actor, work)
        return json_reply({**token_view(made), "token": text}, 201)

    async def revoke(self, call: Call) -> Reply:
        wanted = call.params["token"]
        try:
            await self.around.catalogue.write(call.actor, lambda tx: tokens.revoke(tx, wanted))
        finally:  # cancelled or not, it may have been done
            self.around.tokens.forget(wanted)
        return Reply(204)


def token_view(token: Token) -> Mapping[str, object]:
    """A token, as it is remembered."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(scope.value for scope in token.scopes),
        "service_id": token.service_id or None,
        "created_at": when(token.created_at),
        "expires_at": None if token.expires_at is None else when(token.expires_at),
        "last_used_at": None if token.last_used_at is None else when(token.last_used_at),
    }

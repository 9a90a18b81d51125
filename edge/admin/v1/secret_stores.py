"""`/v1/secret-stores`: secrets that services open; values go in and never come out again."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import PAGE, json_reply, list_of, list_reply, page_of
from edge.admin.entry_calls import EntryCalls
from edge.admin.store_calls import store_for, timestamp
from edge.admin.v1.store_routes import NAME, StoreRoutes
from edge.catalogue import rotation
from edge.catalogue.records import Entry, Scope, Store, StoreKind
from edge.errors import ApiRefused, ConfigError, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_SECRET: Final = schema.text(1, 255)
_TAG: Final = "secret-stores"
_OCTETS: Final = "application/octet-stream"
_FACTS: Final = schema.obj(
    {
        "name": schema.text(),
        "digest": schema.text(about="Equal for equal values of one store; tells nothing else."),
        "created_at": schema.text(),
        "updated_at": schema.text(),
    }
)
_ROTATED: Final = schema.obj({"key": schema.text(about="Id of the new key.")})


def routes(around: Around) -> list[Route]:
    """Stores, the secrets in them, and the key that seals all secrets."""
    stores = StoreRoutes(around, StoreKind.SECRET, "/v1/secret-stores", _TAG)
    return stores.routes() + _Secrets(around, EntryCalls(around, _store)).routes()


@dataclass(frozen=True, slots=True)
class _Secrets:
    around: Around
    entries: EntryCalls

    def routes(self) -> list[Route]:
        secrets = "/v1/secret-stores/{store}/secrets"
        in_store, in_one = {"store": NAME}, {"store": NAME, "name": _SECRET}
        return [
            Route(
                "GET",
                secrets,
                self.listing,
                confined=True,
                operation=Operation(
                    "list_secrets",
                    "List secrets by name, without values",
                    _TAG,
                    PAGE,
                    responses={200: list_of(_FACTS)},
                    refusals=(404, 422),
                    params=in_store,
                ),
            ),
            Route(
                "GET",
                f"{secrets}/{{name}}",
                self.describe,
                confined=True,
                operation=Operation(
                    "describe_secret",
                    "Describe a secret, without its value",
                    _TAG,
                    responses={200: _FACTS},
                    refusals=(404, 422),
                    params=in_one,
                ),
            ),
            Route(
                "PUT",
                f"{secrets}/{{name}}",
                self.put,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    "put_secret",
                    "Make the body the value, byte for byte",
                    _TAG,
                    request={_OCTETS: {}},
                    responses={200: _FACTS, 201: _FACTS},
                    refusals=(404, 413, 422),
                    params=in_one,
                ),
            ),
            Route(
                "DELETE",
                f"{secrets}/{{name}}",
                self.delete,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    "delete_secret",
                    "Delete a secret",
                    _TAG,
                    responses={204: None},
                    refusals=(404, 422),
                    params=in_one,
                ),
            ),
            Route(
                "POST",
                "/v1/secrets/rotate",
                self.rotate,
                Scope.ADMIN,
                operation=Operation(
                    "rotate_secrets_key",
                    "Seal all secrets with a new key; those before it are forgotten",
                    _TAG,
                    responses={200: _ROTATED},
                    refusals=(507,),
                ),
            ),
        ]

    async def listing(self, call: Call) -> Reply:
        """Without values."""
        page = page_of(call)
        found = await self.entries.page(call, page)
        return await asyncio.to_thread(list_reply, found, page, _facts, lambda entry: entry.key)

    async def describe(self, call: Call) -> Reply:
        """Without the value."""
        return json_reply(_facts(await self.entries.get(call, call.params["name"])))

    async def put(self, call: Call) -> Reply:
        """201 where there was none."""
        value = await call.body.read()
        entry, created = await self.entries.put(call, call.params["name"], value)
        return json_reply(_facts(entry), 201 if created else 200)

    async def delete(self, call: Call) -> Reply:
        """404 where there is none."""
        await self.entries.delete(call, call.params["name"])
        return Reply(204)

    async def rotate(self, call: Call) -> Reply:
        """Returns when every secret is sealed with the new key."""
        try:
            key = await rotation.rotate(self.around.catalogue, self.around.keyring, call.actor)
        except ConfigError as error:
            raise ApiRefused(Refusal.STORAGE, str(error)) from error
        return json_reply({"key": key})


def _store(tx: Transaction, call: Call) -> Store:
    return store_for(tx, call, StoreKind.SECRET, call.params["store"])


def _facts(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.key,
        "digest": base64.b64encode(entry.digest).decode(),
        "created_at": timestamp(entry.created_at),
        "updated_at": timestamp(entry.updated_at),
    }

"""`/v1/config-stores`: texts by key that services read; a change is seen without a deploy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import TEXT, Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import (
    PAGE,
    json_reply,
    list_of,
    list_reply,
    page_of,
)
from edge.admin.entry_calls import EntryCalls
from edge.admin.store_calls import read_large, store_for, timestamp, utf8
from edge.admin.v1 import entry_schema
from edge.admin.v1.entry_schema import CHANGED, MAX_BODY
from edge.admin.v1.store_routes import NAME, StoreRoutes
from edge.catalogue.records import Entry, Scope, Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_KEY: Final = schema.text(1, 256)
_VALUE: Final = schema.text(0, 8000)
_TAG: Final = "config-stores"
_PLAIN: Final = {"contentMediaType": "text/plain"}
_ITEM: Final = entry_schema.entry("key", "value")
_BATCH: Final = entry_schema.batch("items", {"key": _KEY}, {"value": _VALUE})


def routes(around: Around) -> list[Route]:
    """Stores, and the items in them."""
    stores = StoreRoutes(around, StoreKind.CONFIG, "/v1/config-stores", _TAG)
    return stores.routes() + _Items(EntryCalls(around, _store)).routes()


@dataclass(frozen=True, slots=True)
class _Items:
    entries: EntryCalls

    def routes(self) -> list[Route]:
        items = "/v1/config-stores/{store}/items"
        in_store, in_item = {"store": NAME}, {"store": NAME, "key": _KEY}
        return [
            Route(
                "GET",
                items,
                self.listing,
                confined=True,
                operation=Operation(
                    "list_config_items",
                    "List items by key",
                    _TAG,
                    (*PAGE, Parameter("prefix", "What keys begin with.", schema.text(0, 256))),
                    responses={200: list_of(_ITEM)},
                    refusals=(404, 422),
                    params=in_store,
                ),
            ),
            Route(
                "PATCH",
                items,
                self.batch,
                Scope.DEPLOY,
                confined=True,
                max_body=MAX_BODY,
                operation=Operation(
                    "change_config_items",
                    "Change many items, all of them or none",
                    _TAG,
                    request={"application/json": _BATCH},
                    responses={200: CHANGED},
                    refusals=(404, 409, 413, 422),
                    params=in_store,
                ),
            ),
            Route(
                "GET",
                f"{items}/{{key}}",
                self.get,
                confined=True,
                operation=Operation(
                    "get_config_item",
                    "The value itself",
                    _TAG,
                    responses={200: _PLAIN},
                    refusals=(404, 422),
                    params=in_item,
                ),
            ),
            Route(
                "PUT",
                f"{items}/{{key}}",
                self.put,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    "put_config_item",
                    "Make the body, UTF-8, the value",
                    _TAG,
                    request={TEXT: {}},
                    responses={200: _ITEM, 201: _ITEM},
                    refusals=(404, 413, 422),
                    params=in_item,
                ),
            ),
            Route(
                "DELETE",
                f"{items}/{{key}}",
                self.delete,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    "delete_config_item",
                    "Delete an item",
                    _TAG,
                    responses={204: None},
                    refusals=(404, 422),
                    params=in_item,
                ),
            ),
        ]

    async def listing(self, call: Call) -> Reply:
        """With values."""
        page = page_of(call)
        found = await self.entries.page(call, page, prefix=call.asked("prefix"))
        return await asyncio.to_thread(list_reply, found, page, _facts, lambda entry: entry.key)

    async def batch(self, call: Call) -> Reply:
        """All or none."""
        items = (await read_large(call, _BATCH))["items"]
        assert isinstance(items, list)
        changes = [
            (str(item["op"]), str(item["key"]), str(item.get("value", "")).encode())
            for item in items
        ]
        await self.entries.batch(call, changes)
        return json_reply({"changed": len(changes)})

    async def get(self, call: Call) -> Reply:
        """As text."""
        return Reply(200, (await self.entries.get(call, call.params["key"])).value, TEXT)

    async def put(self, call: Call) -> Reply:
        """201 where there was none."""
        value = utf8(await call.body.read(), "the value").encode()
        entry, created = await self.entries.put(call, call.params["key"], value)
        return json_reply(_facts(entry), 201 if created else 200)

    async def delete(self, call: Call) -> Reply:
        """404 where there is none."""
        await self.entries.delete(call, call.params["key"])
        return Reply(204)


def _store(tx: Transaction, call: Call) -> Store:
    return store_for(tx, call, StoreKind.CONFIG, call.params["store"])


def _facts(entry: Entry) -> dict[str, object]:
    return {
        "key": entry.key,
        "value": entry.value.decode(),
        "created_at": timestamp(entry.created_at),
        "updated_at": timestamp(entry.updated_at),
    }

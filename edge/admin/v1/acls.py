"""`/v1/acls`: lists of networks that services look addresses up in, and what is said of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import (
    PAGE,
    json_reply,
    list_of,
    list_reply,
    page_of,
)
from edge.admin.entry_calls import EntryCalls
from edge.admin.store_calls import read_large, store_for, timestamp
from edge.admin.v1 import entry_schema
from edge.admin.v1.entry_schema import CHANGED, MAX_BODY
from edge.admin.v1.store_routes import NAME, StoreRoutes
from edge.catalogue.records import Entry, Scope, Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_PREFIX: Final = schema.text(1, 64, about="A network, `192.0.2.0/24`, or an address.")
_ACTION: Final = schema.one_of("ALLOW", "BLOCK")
_TAG: Final = "acls"
_ENTRY: Final = entry_schema.entry("prefix", "action")
_BATCH: Final = entry_schema.batch("entries", {"prefix": _PREFIX}, {"action": _ACTION})
_WHOLE: Final = schema.obj(
    {"entries": schema.array(schema.obj({"prefix": _PREFIX, "action": _ACTION}))}
)


def routes(around: Around) -> list[Route]:
    """Lists, and the entries in them."""
    stores = StoreRoutes(around, StoreKind.ACL, "/v1/acls", _TAG)
    return stores.routes() + _Entries(EntryCalls(around, _store)).routes()


@dataclass(frozen=True, slots=True)
class _Entries:
    entries: EntryCalls

    def routes(self) -> list[Route]:
        path, params = "/v1/acls/{store}/entries", {"store": NAME}
        return [
            Route(
                "GET",
                path,
                self.listing,
                confined=True,
                operation=Operation(
                    "list_acl_entries",
                    "List entries by the text of their network",
                    _TAG,
                    PAGE,
                    responses={200: list_of(_ENTRY)},
                    refusals=(404, 422),
                    params=params,
                ),
            ),
            Route(
                "PATCH",
                path,
                self.batch,
                Scope.DEPLOY,
                confined=True,
                max_body=MAX_BODY,
                operation=Operation(
                    "change_acl_entries",
                    "Change many entries, all of them or none",
                    _TAG,
                    request={"application/json": _BATCH},
                    responses={200: CHANGED},
                    refusals=(404, 409, 413, 422),
                    params=params,
                ),
            ),
            Route(
                "PUT",
                path,
                self.replace,
                Scope.DEPLOY,
                confined=True,
                max_body=MAX_BODY,
                operation=Operation(
                    "replace_acl_entries",
                    "Make these all entries of the list",
                    _TAG,
                    request={"application/json": _WHOLE},
                    responses={200: CHANGED},
                    refusals=(404, 409, 413, 422),
                    params=params,
                ),
            ),
        ]

    async def listing(self, call: Call) -> Reply:
        """A page of them."""
        page = page_of(call)
        found = await self.entries.page(call, page)
        return await asyncio.to_thread(list_reply, found, page, _facts, lambda entry: entry.key)

    async def batch(self, call: Call) -> Reply:
        """All or none."""
        wanted = (await read_large(call, _BATCH))["entries"]
        assert isinstance(wanted, list)
        changes = [(str(item["op"]), str(item["prefix"]), action_value(item)) for item in wanted]
        await self.entries.batch(call, changes)
        return json_reply({"changed": len(changes)})

    async def replace(self, call: Call) -> Reply:
        """Of two entries with the same text the last counts."""
        wanted = (await read_large(call, _WHOLE))["entries"]
        assert isinstance(wanted, list)
        contents = {str(item["prefix"]): action_value(item) for item in wanted}
        await self.entries.replace_all(call, contents)
        return json_reply({"changed": len(contents)})


def action_value(item: Mapping[str, object]) -> bytes:
    """What the catalogue keeps of an entry."""
    return json.dumps({"action": str(item.get("action", ""))}).encode()


def action_of(entry: Entry) -> str:
    """What is said of the network."""
    return str(json.loads(entry.value)["action"])


def _store(tx: Transaction, call: Call) -> Store:
    return store_for(tx, call, StoreKind.ACL, call.params["store"])


def _facts(entry: Entry) -> dict[str, object]:
    return {
        "prefix": entry.key,
        "action": action_of(entry),
        "created_at": timestamp(entry.created_at),
        "updated_at": timestamp(entry.updated_at),
    }

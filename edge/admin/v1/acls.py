"""`/v1/acls`: lists of networks that services look addresses up in, and what is said of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
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
    one_more,
    page_of,
)
from edge.admin.store_calls import changed, read_large, store_for, timestamp
from edge.admin.v1.config_stores import CHANGED, MAX_CHANGES
from edge.admin.v1.store_routes import NAME, StoreRoutes
from edge.catalogue import entries
from edge.catalogue.records import Entry, Scope, Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

MAX_BODY: Final = 16 * 1024 * 1024  # bytes: some 200,000 entries
_PREFIX: Final = schema.text(1, 64, about="A network, `192.0.2.0/24`, or an address.")
_ACTION: Final = schema.one_of("ALLOW", "BLOCK")
_TAG: Final = "acls"
_ENTRY: Final = schema.obj(
    {
        "prefix": schema.text(),
        "action": schema.text(),
        "created_at": schema.text(),
        "updated_at": schema.text(),
    }
)
_BATCH: Final = schema.obj(
    {
        "entries": schema.array(
            schema.obj(
                {"op": schema.one_of("create", "update", "upsert", "delete"), "prefix": _PREFIX},
                {"action": _ACTION},
            ),
            MAX_CHANGES,
        )
    }
)
_WHOLE: Final = schema.obj(
    {"entries": schema.array(schema.obj({"prefix": _PREFIX, "action": _ACTION}))}
)


def routes(around: Around) -> list[Route]:
    """Lists, and the entries in them."""
    stores = StoreRoutes(around, StoreKind.ACL, "/v1/acls", _TAG)
    return stores.routes() + _Entries(around).routes()


@dataclass(frozen=True, slots=True)
class _Entries:
    around: Around

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

        def read(tx: Transaction) -> Sequence[Entry]:
            return entries.listing(tx, _store(tx, call), one_more(page))

        found = await self.around.catalogue.read(read)
        return await asyncio.to_thread(list_reply, found, page, _facts, lambda entry: entry.key)

    async def batch(self, call: Call) -> Reply:
        """All or none."""
        wanted = (await read_large(call, _BATCH))["entries"]
        assert isinstance(wanted, list)
        changes = [(str(item["op"]), str(item["prefix"]), action_value(item)) for item in wanted]

        def work(tx: Transaction) -> tuple[Store, int]:
            store = _store(tx, call)
            entries.batch(tx, store, changes)
            return store, len(changes)

        return json_reply({"changed": await changed(self.around, call, work)})

    async def replace(self, call: Call) -> Reply:
        """Of two entries with the same text the last counts."""
        wanted = (await read_large(call, _WHOLE))["entries"]
        assert isinstance(wanted, list)
        contents = {str(item["prefix"]): action_value(item) for item in wanted}

        def work(tx: Transaction) -> tuple[Store, int]:
            store = _store(tx, call)
            entries.replace_all(tx, store, contents)
            return store, len(contents)

        return json_reply({"changed": await changed(self.around, call, work)})


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

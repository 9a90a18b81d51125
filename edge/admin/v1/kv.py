"""`/v1/kv`: KV stores of the catalogue and their values, as guests that link them see them.

Values are data, like those that guests write: changes of stores are in the audit log, those of
values are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from edge.admin import schema
from edge.admin.api import Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import PAGE, json_reply, list_of
from edge.admin.kv_calls import Values, no_key
from edge.admin.store_calls import named_store
from edge.admin.v1.store_routes import NAME, StoreRoutes
from edge.catalogue.records import Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.stores.kv import InsertMode
from edge.stores.kv_rules import MAX_KEY, MAX_METADATA, cursor_after, read_cursor

OCTETS: Final = "application/octet-stream"
VALUE: Final = {"contentMediaType": OCTETS}
METADATA: Final = "edge-metadata"  # header of a value: its metadata, percent-encoded
_MAX_TTL: Final = 10**9  # seconds, thirty years
_KEY: Final = schema.text(1, MAX_KEY)
_STORED: Final = schema.obj(
    {"key": schema.text(), "generation": schema.text(about="Grows with every change of a store.")}
)
_MODES: Final = {mode.value: mode for mode in InsertMode}
_KEYS_TAG: Final = "kv-values"
_GENERATION: Final = re.compile(r'\s*(?:W/)?"([0-9]{1,19})"\s*', re.ASCII)


def routes(around: Around) -> list[Route]:
    """Stores, and the keys in them."""
    values = Values(around)

    async def usage(store: Store) -> Mapping[str, object]:
        return {"bytes": await values.usage(store)}

    stores = StoreRoutes(around, StoreKind.KV, "/v1/kv", "kv-stores", usage)
    return stores.routes() + _Keys(around, values).routes()


@dataclass(frozen=True, slots=True)
class _Keys:
    around: Around
    values: Values

    def routes(self) -> list[Route]:
        keys, one = "/v1/kv/{store}/keys", "/v1/kv/{store}/keys/{key}"
        in_store, in_key = {"store": NAME}, {"store": NAME, "key": _KEY}
        return [
            Route(
                "GET",
                keys,
                self.listing,
                confined=True,
                operation=Operation(
                    "list_kv_keys",
                    "List keys in the order of their UTF-8; a page may be short of its limit",
                    _KEYS_TAG,
                    (*PAGE, Parameter("prefix", "What they begin with.", schema.text(0, MAX_KEY))),
                    responses={200: list_of(schema.text())},
                    refusals=(404, 422),
                    params=in_store,
                ),
            ),
            Route(
                "GET",
                one,
                self.get,
                confined=True,
                operation=Operation(
                    "get_kv_value",
                    "The value itself; its generation is the ETag, its metadata Edge-Metadata",
                    _KEYS_TAG,
                    responses={200: VALUE},
                    refusals=(404, 422),
                    params=in_key,
                ),
            ),
            Route(
                "PUT",
                one,
                self.put,
                Scope.DEPLOY,
                confined=True,
                max_body=self.around.settings.storage.kv_value_bytes,
                operation=Operation(
                    "put_kv_value",
                    "Store the body as a value",
                    _KEYS_TAG,
                    (
                        Parameter(
                            "mode",
                            "What becomes of a value that is there; `add` refuses (412).",
                            schema.one_of(*_MODES),
                        ),
                        Parameter(
                            "ttl",
                            "Seconds until it is gone; without, it stays.",
                            schema.number(0, _MAX_TTL, kind="integer"),
                        ),
                        Parameter("metadata", "Text kept beside it.", schema.text(0, MAX_METADATA)),
                    ),
                    request={OCTETS: {}},
                    responses={200: _STORED},
                    refusals=(404, 412, 413, 422, 507),
                    params=in_key,
                ),
            ),
            Route(
                "DELETE",
                one,
                self.delete,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    "delete_kv_value",
                    "Delete a value",
                    _KEYS_TAG,
                    responses={204: None},
                    refusals=(404, 412, 422, 507),
                    params=in_key,
                ),
            ),
        ]

    async def listing(self, call: Call) -> Reply:
        """`after` and `next` are keys."""
        store = await named_store(self.around, call, StoreKind.KV)
        after = call.asked("after")
        cursor = cursor_after(after.encode()) if after else ""
        limit = int(call.asked("limit", "100"))
        page = await self.values.keys(store, call.asked("prefix"), cursor, limit)
        following = read_cursor(page.next_cursor).decode() if page.next_cursor else None
        return json_reply({"items": page.keys, "next": following})

    async def get(self, call: Call) -> Reply:
        """Streamed, however long it is."""
        store = await named_store(self.around, call, StoreKind.KV)
        value = await self.values.get(store, call.params["key"])
        headers = [("etag", f'"{value.generation}"')]
        if value.metadata:
            headers.append((METADATA, quote(value.metadata, safe="")))
        return Reply(200, value, OCTETS, headers)

    async def put(self, call: Call) -> Reply:
        """If-Match asks for a generation, `If-None-Match: *` for a key without a value."""
        store = await named_store(self.around, call, StoreKind.KV)
        mode = _MODES[call.asked("mode", InsertMode.OVERWRITE.value)]
        if (call.headers("if-none-match") or "").strip() == "*":
            mode = InsertMode.ADD
        ttl = call.asked("ttl")
        generation = _wanted(call)
        stored = await self.values.put(
            store,
            call.params["key"],
            await call.body.read(),
            mode=mode,
            metadata=call.asked("metadata").encode(),
            ttl=int(ttl) if ttl else None,
            generation=generation,
            must_exist=generation is not None,
        )
        facts = {"key": call.params["key"], "generation": str(stored)}
        return json_reply(facts, headers=[("etag", f'"{stored}"')])

    async def delete(self, call: Call) -> Reply:
        """If-Match asks for a generation."""
        store = await named_store(self.around, call, StoreKind.KV)
        key = call.params["key"]
        if not await self.values.delete(store, key, _wanted(call)):
            raise no_key(store, key)
        return Reply(204)


def _wanted(call: Call) -> int | None:
    """The generation that If-Match wants; None where anything will do."""
    wanted = call.headers("if-match")
    if wanted is None or wanted.strip() == "*":
        return None
    found = _GENERATION.fullmatch(wanted)
    if found is None:
        raise ApiRefused(
            Refusal.PRECONDITION_FAILED, "If-Match is not an ETag that was given out here"
        )
    return int(found[1])

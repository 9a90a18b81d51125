"""Fastly's dictionaries: texts by key that versions of one service declare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.entry_calls import EntryCalls
from edge.admin.fastly import owned_stores
from edge.admin.fastly.config_stores import MAX_BATCH
from edge.admin.fastly.shape import (
    Form,
    answer,
    done,
    endpoint,
    part_of,
    read_form,
    times,
    timestamp,
)
from edge.admin.fastly.store_shape import PER_PAGE, all_entries, encoded, item_changes, stream
from edge.catalogue.records import Entry, PartKind, Scope, Store
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_INFO: Final = "/service/{service}/version/{number}/dictionary/{name}/info"
_ITEMS: Final = "/service/{service}/dictionary/{store}/items"
_ITEM: Final = "/service/{service}/dictionary/{store}/item"
_DICTIONARY: Final = PartKind.DICTIONARY


def routes(around: Around) -> list[Route]:
    """As the CLI's `service dictionary` and `service dictionary-entry` call them."""
    declared = owned_stores.Declared(around, _DICTIONARY, check=_check, more={"write_only": False})
    do = _Dictionaries(around, EntryCalls(around, _store))
    deploy = Scope.DEPLOY
    return [
        *declared.routes("dictionary"),
        endpoint("GET", _INFO, do.info),
        endpoint("GET", _ITEMS, do.items),
        endpoint("PATCH", _ITEMS, do.batch, deploy, max_body=MAX_BATCH),
        endpoint("POST", _ITEM, do.create_item, deploy),
        endpoint("GET", f"{_ITEM}/{{key}}", do.get_item),
        endpoint("PUT", f"{_ITEM}/{{key}}", do.put_item, deploy),
        endpoint("PATCH", f"{_ITEM}/{{key}}", do.update_item, deploy),
        endpoint("DELETE", f"{_ITEM}/{{key}}", do.delete_item, deploy),
    ]


@dataclass(frozen=True, slots=True)
class _Dictionaries:
    around: Around
    entries: EntryCalls

    async def info(self, call: Call) -> Reply:
        """`{name}` is the dictionary's id here."""

        def read(tx: Transaction) -> object:
            store = owned_stores.store_of(tx, call, _DICTIONARY, call.params["name"])
            digest = hashlib.sha256()
            for entry in all_entries(tx, store):
                digest.update(entry.key.encode() + b"\0" + entry.value + b"\0")
            return {
                "item_count": store.entries,
                "last_updated": timestamp(store.updated_at),
                "digest": digest.hexdigest(),
            }

        return answer(await self.around.catalogue.read(read))

    async def items(self, call: Call) -> Reply:
        found = await self.around.catalogue.read(lambda tx: all_entries(tx, _store(tx, call)))
        shown, headers = part_of(call, found, default=PER_PAGE)
        return stream(shown, lambda entry: _item(entry, call), headers)

    async def batch(self, call: Call) -> Reply:
        await self.entries.batch(call, await item_changes(call))
        return done()

    async def create_item(self, call: Call) -> Reply:
        form = await read_form(call)
        value = encoded(form.text("item_value"))
        return answer(_item(await self.entries.insert(call, form.text("item_key"), value), call))

    async def get_item(self, call: Call) -> Reply:
        return answer(_item(await self.entries.get(call, call.params["key"]), call))

    async def put_item(self, call: Call) -> Reply:
        """Whether there is one or not."""
        value = encoded((await read_form(call)).text("item_value"))
        return answer(_item((await self.entries.put(call, call.params["key"], value))[0], call))

    async def update_item(self, call: Call) -> Reply:
        """Not where there is none."""
        value = encoded((await read_form(call)).text("item_value"))
        return answer(_item(await self.entries.update(call, call.params["key"], value), call))

    async def delete_item(self, call: Call) -> Reply:
        await self.entries.delete(call, call.params["key"])
        return done()


def _store(tx: Transaction, call: Call) -> Store:
    return owned_stores.store_of(tx, call, _DICTIONARY, call.params["store"])


def _check(form: Form) -> None:
    if form.switch("write_only"):
        raise ApiRefused(
            Refusal.UNSUPPORTED,
            "there are no dictionaries that are only written to; secret stores do that",
        )


def _item(entry: Entry, call: Call) -> dict[str, object]:
    return {
        "dictionary_id": entry.store_id,
        "service_id": call.params["service"],
        "item_key": entry.key,
        "item_value": entry.value.decode(),
        **times(entry.created_at, entry.updated_at),
    }

"""Fastly's dictionaries: texts by key that versions of one service declare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
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
    version_number,
)
from edge.admin.fastly.store_shape import PER_PAGE, all_entries, item_changes, service_of, stream
from edge.admin.store_calls import changed
from edge.catalogue import entries
from edge.catalogue.records import Entry, Part, PartKind, Scope, Store
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_ALL: Final = "/service/{service}/version/{number}/dictionary"
_ONE: Final = f"{_ALL}/{{name}}"
_ITEMS: Final = "/service/{service}/dictionary/{store}/items"
_ITEM: Final = "/service/{service}/dictionary/{store}/item"
_DICTIONARY: Final = PartKind.DICTIONARY


def routes(around: Around) -> list[Route]:
    """As the CLI's `service dictionary` and `service dictionary-entry` call them."""
    do = _Dictionaries(around)
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _ALL, do.listing),
        endpoint("POST", _ALL, do.create, deploy),
        endpoint("GET", _ONE, do.get),
        endpoint("PUT", _ONE, do.update, deploy),
        endpoint("DELETE", _ONE, do.delete, deploy),
        endpoint("GET", f"{_ONE}/info", do.info),
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

    async def listing(self, call: Call) -> Reply:
        def read(tx: Transaction) -> list[object]:
            service = service_of(tx, call)
            return [
                _shape(part, service, version_number(call))
                for part in owned_stores.declared(tx, call, _DICTIONARY)
            ]

        return answer(await self.around.catalogue.read(read))

    async def create(self, call: Call) -> Reply:
        form = await read_form(call)
        _check(form)

        def work(tx: Transaction) -> object:
            part = owned_stores.declare(tx, call, _DICTIONARY, form.text("name"))
            return _shape(part, service_of(tx, call), version_number(call))

        return answer(await self.around.catalogue.write(call.actor, work))

    async def get(self, call: Call) -> Reply:
        def read(tx: Transaction) -> object:
            part = owned_stores.found(tx, call, _DICTIONARY)
            return _shape(part, service_of(tx, call), version_number(call))

        return answer(await self.around.catalogue.read(read))

    async def update(self, call: Call) -> Reply:
        form = await read_form(call)
        _check(form)

        def work(tx: Transaction) -> object:
            part = owned_stores.rename(tx, call, _DICTIONARY, form.given("name"))
            return _shape(part, service_of(tx, call), version_number(call))

        return answer(await self.around.catalogue.write(call.actor, work))

    async def delete(self, call: Call) -> Reply:
        await self.around.catalogue.write(
            call.actor, lambda tx: owned_stores.withdraw(tx, call, _DICTIONARY)
        )
        return done()

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
        changes = await item_changes(call)

        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            entries.batch(tx, store, changes)
            return store, None

        await changed(self.around, call, work)
        return done()

    async def create_item(self, call: Call) -> Reply:
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store, value = _store(tx, call), form.text("item_value").encode()
            return store, entries.insert(tx, store, form.text("item_key"), value)

        return answer(_item(await changed(self.around, call, work), call))

    async def get_item(self, call: Call) -> Reply:
        entry = await self.around.catalogue.read(
            lambda tx: entries.get(tx, _store(tx, call), call.params["key"])
        )
        return answer(_item(entry, call))

    async def put_item(self, call: Call) -> Reply:
        """Whether there is one or not."""
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store, value = _store(tx, call), form.text("item_value").encode()
            return store, entries.put(tx, store, call.params["key"], value)[0]

        return answer(_item(await changed(self.around, call, work), call))

    async def update_item(self, call: Call) -> Reply:
        """Not where there is none."""
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store, value = _store(tx, call), form.text("item_value").encode()
            key = entries.get(tx, store, call.params["key"]).key
            return store, entries.put(tx, store, key, value)[0]

        return answer(_item(await changed(self.around, call, work), call))

    async def delete_item(self, call: Call) -> Reply:
        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            entries.delete(tx, store, call.params["key"])
            return store, None

        await changed(self.around, call, work)
        return done()


def _store(tx: Transaction, call: Call) -> Store:
    return owned_stores.store_of(tx, call, _DICTIONARY, call.params["store"])


def _check(form: Form) -> None:
    if form.switch("write_only"):
        raise ApiRefused(
            Refusal.UNSUPPORTED,
            "there are no dictionaries that are only written to; secret stores do that",
        )


def _shape(part: Part, service: str, number: int) -> dict[str, object]:
    return {
        "id": part.data["store"],
        "name": part.name,
        "service_id": service,
        "version": number,
        "write_only": False,
        **times(part.created_at, part.updated_at),
    }


def _item(entry: Entry, call: Call) -> dict[str, object]:
    return {
        "dictionary_id": entry.store_id,
        "service_id": call.params["service"],
        "item_key": entry.key,
        "item_value": entry.value.decode(),
        **times(entry.created_at, entry.updated_at),
    }

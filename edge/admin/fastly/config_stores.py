"""Fastly's config stores and their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import answer, done, endpoint, read_form, service_shape, times
from edge.admin.fastly.store_shape import all_entries, all_stores, item_changes, stream
from edge.admin.store_calls import changed, store_for
from edge.catalogue import entries, services, stores
from edge.catalogue.records import Entry, Scope, Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_STORES: Final = "/resources/stores/config"
_ONE: Final = f"{_STORES}/{{store}}"
MAX_BATCH: Final = 16 * 1024 * 1024  # bytes: 1,000 items of the greatest length, escaped


def routes(around: Around) -> list[Route]:
    """As the CLI's `config-store` and `config-store-entry` call them."""
    do = _ConfigStores(around)
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _STORES, do.listing, confined=True),
        endpoint("POST", _STORES, do.create, deploy, confined=True),
        endpoint("GET", _ONE, do.get, confined=True),
        endpoint("PUT", _ONE, do.rename, deploy, confined=True),
        endpoint("DELETE", _ONE, do.delete, deploy, confined=True),
        endpoint("GET", f"{_ONE}/info", do.info, confined=True),
        endpoint("GET", f"{_ONE}/services", do.services, confined=True),
        endpoint("GET", f"{_ONE}/items", do.items, confined=True),
        endpoint("PATCH", f"{_ONE}/items", do.batch, deploy, confined=True, max_body=MAX_BATCH),
        endpoint("POST", f"{_ONE}/item", do.create_item, deploy, confined=True),
        endpoint("GET", f"{_ONE}/item/{{key}}", do.get_item, confined=True),
        endpoint("PUT", f"{_ONE}/item/{{key}}", do.upsert_item, deploy, confined=True),
        endpoint("PATCH", f"{_ONE}/item/{{key}}", do.update_item, deploy, confined=True),
        endpoint("DELETE", f"{_ONE}/item/{{key}}", do.delete_item, deploy, confined=True),
    ]


@dataclass(frozen=True, slots=True)
class _ConfigStores:
    around: Around

    async def listing(self, call: Call) -> Reply:
        name = call.asked("name")
        found = await self.around.catalogue.read(
            lambda tx: all_stores(tx, call, StoreKind.CONFIG, name)
        )
        return answer([_shape(store) for store in found])

    async def create(self, call: Call) -> Reply:
        name = (await read_form(call)).text("name")
        return answer(
            _shape(
                await self.around.catalogue.write(
                    call.actor,
                    lambda tx: stores.create(
                        tx, StoreKind.CONFIG, name, owner=call.token.service_id
                    ),
                )
            )
        )

    async def get(self, call: Call) -> Reply:
        return answer(_shape(await self.around.catalogue.read(lambda tx: _store(tx, call))))

    async def rename(self, call: Call) -> Reply:
        name = (await read_form(call)).text("name")
        return answer(
            _shape(
                await self.around.catalogue.write(
                    call.actor, lambda tx: stores.rename(tx, _store(tx, call).id, name)
                )
            )
        )

    async def delete(self, call: Call) -> Reply:
        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            stores.delete(tx, store.id)
            return store, None

        await changed(self.around, call, work)
        return done()

    async def info(self, call: Call) -> Reply:
        store = await self.around.catalogue.read(lambda tx: _store(tx, call))
        return answer({"item_count": store.entries})

    async def services(self, call: Call) -> Reply:
        """Those of which any version links it."""

        def read(tx: Transaction) -> list[dict[str, object]]:
            linked = stores.linked(tx, _store(tx, call).id)
            return [
                service_shape(services.get(tx, service), ())
                for service in dict.fromkeys(service for service, _ in linked)
            ]

        return answer(await self.around.catalogue.read(read))

    async def items(self, call: Call) -> Reply:
        def read(tx: Transaction) -> Sequence[Entry]:
            return all_entries(tx, _store(tx, call))

        return stream(await self.around.catalogue.read(read), _item)

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

        return answer(_item(await changed(self.around, call, work)))

    async def get_item(self, call: Call) -> Reply:
        return answer(
            _item(
                await self.around.catalogue.read(
                    lambda tx: entries.get(tx, _store(tx, call), call.params["key"])
                )
            )
        )

    async def upsert_item(self, call: Call) -> Reply:
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store, value = _store(tx, call), form.text("item_value").encode()
            return store, entries.put(tx, store, call.params["key"], value)[0]

        return answer(_item(await changed(self.around, call, work)))

    async def update_item(self, call: Call) -> Reply:
        """Not where there is none."""
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store, value = _store(tx, call), form.text("item_value").encode()
            key = entries.get(tx, store, call.params["key"]).key
            return store, entries.put(tx, store, key, value)[0]

        return answer(_item(await changed(self.around, call, work)))

    async def delete_item(self, call: Call) -> Reply:
        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            entries.delete(tx, store, call.params["key"])
            return store, None

        await changed(self.around, call, work)
        return done()


def _store(tx: Transaction, call: Call) -> Store:
    return store_for(tx, call, StoreKind.CONFIG, call.params["store"])


def _shape(store: Store) -> dict[str, object]:
    return {
        "id": store.id,
        "name": store.name,
        **times(store.created_at, store.updated_at),
    }


def _item(entry: Entry) -> dict[str, object]:
    return {
        "store_id": entry.store_id,
        "item_key": entry.key,
        "item_value": entry.value.decode(),
        **times(entry.created_at, entry.updated_at),
    }

"""Fastly's config stores and their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.entry_calls import EntryCalls
from edge.admin.fastly.shape import answer, done, endpoint, read_form, service_shape, times
from edge.admin.fastly.store_endpoints import StoreEndpoints
from edge.admin.fastly.store_shape import all_entries, all_stores, encoded, item_changes, stream
from edge.catalogue import services, stores
from edge.catalogue.records import Entry, Scope, Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_STORES: Final = "/resources/stores/config"
_ONE: Final = f"{_STORES}/{{store}}"
MAX_BATCH: Final = 16 * 1024 * 1024  # bytes: 1,000 items of the greatest length, escaped


def routes(around: Around) -> list[Route]:
    """As the CLI's `config-store` and `config-store-entry` call them."""
    its = StoreEndpoints(around, StoreKind.CONFIG, _shape)
    do = _ConfigStores(around, its, EntryCalls(around, its.find))
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _STORES, do.listing, confined=True),
        endpoint("POST", _STORES, its.create, deploy, confined=True),
        endpoint("GET", _ONE, its.get, confined=True),
        endpoint("PUT", _ONE, its.rename, deploy, confined=True),
        endpoint("DELETE", _ONE, its.delete, deploy, confined=True),
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
    its: StoreEndpoints
    entries: EntryCalls

    async def listing(self, call: Call) -> Reply:
        name = call.asked("name")
        found = await self.around.catalogue.read(
            lambda tx: all_stores(tx, call, StoreKind.CONFIG, name)
        )
        return answer([_shape(store) for store in found])

    async def info(self, call: Call) -> Reply:
        return answer({"item_count": (await self.its.found(call)).entries})

    async def services(self, call: Call) -> Reply:
        """Those of which any version links it."""

        def read(tx: Transaction) -> list[dict[str, object]]:
            linked = stores.linked(tx, self.its.find(tx, call).id)
            return [
                service_shape(services.get(tx, service), ())
                for service in dict.fromkeys(service for service, _ in linked)
            ]

        return answer(await self.around.catalogue.read(read))

    async def items(self, call: Call) -> Reply:
        def read(tx: Transaction) -> Sequence[Entry]:
            return all_entries(tx, self.its.find(tx, call))

        return stream(await self.around.catalogue.read(read), _item)

    async def batch(self, call: Call) -> Reply:
        await self.entries.batch(call, await item_changes(call))
        return done()

    async def create_item(self, call: Call) -> Reply:
        form = await read_form(call)
        value = encoded(form.text("item_value"))
        return answer(_item(await self.entries.insert(call, form.text("item_key"), value)))

    async def get_item(self, call: Call) -> Reply:
        return answer(_item(await self.entries.get(call, call.params["key"])))

    async def upsert_item(self, call: Call) -> Reply:
        value = encoded((await read_form(call)).text("item_value"))
        return answer(_item((await self.entries.put(call, call.params["key"], value))[0]))

    async def update_item(self, call: Call) -> Reply:
        """Not where there is none."""
        value = encoded((await read_form(call)).text("item_value"))
        return answer(_item(await self.entries.update(call, call.params["key"], value)))

    async def delete_item(self, call: Call) -> Reply:
        await self.entries.delete(call, call.params["key"])
        return done()


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

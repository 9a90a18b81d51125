"""Endpoints that Fastly's stores of several kinds share: list, create, get, rename, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.admin.api import Call, Reply
from edge.admin.around import Around
from edge.admin.documents import one_more
from edge.admin.fastly.shape import answer, done, read_form
from edge.admin.fastly.store_shape import cursor_page, cursor_reply
from edge.admin.store_calls import changed, named_store, seen_by, store_for
from edge.catalogue import stores
from edge.catalogue.records import Store, StoreKind

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


@dataclass(frozen=True, slots=True)
class StoreEndpoints:
    """Those of one kind.  The kinds differ in what is told of a store, and of one that is gone."""

    around: Around
    kind: StoreKind
    shape: Callable[[Store], Mapping[str, object]]
    created: int = 200  # status of the answer to a create
    deleted: Callable[[], Reply] = done

    async def page(self, call: Call) -> Reply:
        """A part of the list, by cursor."""
        page, name = cursor_page(call), call.asked("name")

        def read(tx: Transaction) -> list[Store]:
            return stores.listing(tx, self.kind, one_more(page), name=name, owner=seen_by(call))

        found = await self.around.catalogue.read(read)
        return cursor_reply(found, page, self.shape, lambda store: store.name)

    async def create(self, call: Call) -> Reply:
        """A `location` is taken and means nothing: there is one."""
        name = (await read_form(call)).text("name")
        store = await self.around.catalogue.write(
            call.actor,
            lambda tx: stores.create(tx, self.kind, name, owner=call.token.service_id),
        )
        return answer(self.shape(store), self.created)

    async def get(self, call: Call) -> Reply:
        return answer(self.shape(await self.found(call)))

    async def rename(self, call: Call) -> Reply:
        name = (await read_form(call)).text("name")
        store = await self.around.catalogue.write(
            call.actor, lambda tx: stores.rename(tx, self.find(tx, call).id, name)
        )
        return answer(self.shape(store))

    async def delete(self, call: Call) -> Reply:
        """With all that is in it."""

        def work(tx: Transaction) -> tuple[Store, None]:
            store = self.find(tx, call)
            stores.delete(tx, store.id)
            return store, None

        await changed(self.around, call, work)
        return self.deleted()

    async def found(self, call: Call) -> Store:
        """The store that the path names.  ApiRefused NOT_FOUND."""
        return await named_store(self.around, call, self.kind)

    def find(self, tx: Transaction, call: Call) -> Store:
        """The same within a transaction."""
        return store_for(tx, call, self.kind, call.params["store"])

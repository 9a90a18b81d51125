"""Dictionaries and ACLs that versions of one service declare: the part, and the store behind it.

Versions that were cloned share a store; its contents have no versions.  The store goes with the
last version that declares it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import (
    Form,
    answer,
    done,
    endpoint,
    read_form,
    times,
    version_number,
)
from edge.admin.fastly.store_shape import service_of
from edge.catalogue import parts, stores
from edge.catalogue.ids import new_id
from edge.catalogue.records import Page, Part, PartKind, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_KINDS: Final = {PartKind.DICTIONARY: StoreKind.DICTIONARY, PartKind.ACL: StoreKind.SERVICE_ACL}


def _nothing(form: Form) -> None:
    """Every form may be sent."""


@dataclass(frozen=True, slots=True)
class Declared:
    """Endpoints of what versions declare, of one kind."""

    around: Around
    kind: PartKind
    check: Callable[[Form], None] = _nothing  # raises ApiRefused for forms that may not be sent
    more: Mapping[str, object] = field(default_factory=dict)  # that every answer says

    def routes(self, word: str) -> list[Route]:
        """`word` is what the kind is called in paths."""
        every = f"/service/{{service}}/version/{{number}}/{word}"
        one = f"{every}/{{name}}"
        return [
            endpoint("GET", every, self.listing),
            endpoint("POST", every, self.create, Scope.DEPLOY),
            endpoint("GET", one, self.get),
            endpoint("PUT", one, self.update, Scope.DEPLOY),
            endpoint("DELETE", one, self.delete, Scope.DEPLOY),
        ]

    async def listing(self, call: Call) -> Reply:
        def read(tx: Transaction) -> list[object]:
            service, number = service_of(tx, call), version_number(call)
            found = parts.listing(tx, service, number, self.kind)
            return [self._shape(part, service, number) for part in found]

        return answer(await self.around.catalogue.read(read))

    async def create(self, call: Call) -> Reply:
        form = await self._form(call)

        def work(tx: Transaction) -> object:
            service, number = service_of(tx, call), version_number(call)
            part = _declare(tx, service, number, self.kind, form.text("name"))
            return self._shape(part, service, number)

        return answer(await self.around.catalogue.write(call.actor, work))

    async def get(self, call: Call) -> Reply:
        def read(tx: Transaction) -> object:
            service, number = service_of(tx, call), version_number(call)
            part = parts.get(tx, service, number, self.kind, call.params["name"])
            return self._shape(part, service, number)

        return answer(await self.around.catalogue.read(read))

    async def update(self, call: Call) -> Reply:
        """Its store stays."""
        form = await self._form(call)

        def work(tx: Transaction) -> object:
            service, number = service_of(tx, call), version_number(call)
            before, name = call.params["name"], form.given("name")
            part = parts.update(tx, service, number, self.kind, before, name=name)
            return self._shape(part, service, number)

        return answer(await self.around.catalogue.write(call.actor, work))

    async def delete(self, call: Call) -> Reply:
        """From this version."""

        def work(tx: Transaction) -> None:
            service, number = service_of(tx, call), version_number(call)
            gone = parts.remove(tx, service, number, self.kind, call.params["name"])
            store = str(gone.data["store"])
            if not stores.linked(tx, store):
                stores.delete(tx, store)

        await self.around.catalogue.write(call.actor, work)
        return done()

    async def _form(self, call: Call) -> Form:
        form = await read_form(call)
        self.check(form)
        return form

    def _shape(self, part: Part, service: str, number: int) -> dict[str, object]:
        return {
            "id": part.data["store"],
            "name": part.name,
            "service_id": service,
            "version": number,
            **self.more,
            **times(part.created_at, part.updated_at),
        }


def _declare(tx: Transaction, service: str, number: int, kind: PartKind, name: str) -> Part:
    """A new one with an empty store, in a version that may still be changed."""
    for store in stores.owned(tx, service, _KINDS[kind]):
        if not stores.linked(tx, store.id):  # the last version that declared it was deleted
            stores.delete(tx, store.id)
    free = name
    if name and stores.listing(tx, _KINDS[kind], Page(1), name=name, owner=service):
        free = f"{name}~{new_id()[:8]}"  # another version has one of that name with other contents
    made = stores.create(tx, _KINDS[kind], free, owner=service)
    return parts.add(tx, service, number, kind, name, {"store": made.id})


def store_of(tx: Transaction, call: Call, kind: PartKind, wanted: str) -> Store:
    """The store with that id, of the service in the path."""
    service = service_of(tx, call)
    store = stores.find(tx, _KINDS[kind], wanted, service)
    if store.owner != service:
        raise ApiRefused(Refusal.NOT_FOUND, f"the service has no {kind.value} {wanted!r}")
    return store

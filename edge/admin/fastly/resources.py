"""Fastly's resource links: the names by which a version's program opens stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import answer, done, endpoint, read_form, times, version_number
from edge.admin.fastly.store_shape import service_of
from edge.catalogue import parts, stores
from edge.catalogue.records import Part, PartKind, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_ALL: Final = "/service/{service}/version/{number}/resource"
_ONE: Final = f"{_ALL}/{{link}}"
# Which stores can be linked: what Fastly calls the type of such a resource, and where it lies.
_TYPES: Final = {
    StoreKind.CONFIG: ("config", "/resources/stores/config/"),
    StoreKind.KV: ("kv-store", "/resources/stores/kv/"),
    StoreKind.SECRET: ("secret-store", "/resources/stores/secret/"),
    StoreKind.ACL: ("acl", "/resources/acls/"),
}


def routes(around: Around) -> list[Route]:
    """As the CLI's `service resource-link` calls them."""
    do = _Links(around)
    return [
        endpoint("GET", _ALL, do.listing),
        endpoint("POST", _ALL, do.create, Scope.DEPLOY),
        endpoint("GET", _ONE, do.get),
        endpoint("PUT", _ONE, do.rename, Scope.DEPLOY),
        endpoint("DELETE", _ONE, do.delete, Scope.DEPLOY),
    ]


@dataclass(frozen=True, slots=True)
class _Links:
    around: Around

    async def listing(self, call: Call) -> Reply:
        def read(tx: Transaction) -> list[object]:
            service, number = service_of(tx, call), version_number(call)
            found = parts.listing(tx, service, number, PartKind.LINK)
            return [_shape(tx, part, service, number) for part in found]

        return answer(await self.around.catalogue.read(read))

    async def create(self, call: Call) -> Reply:
        """Without a name it is that of the store."""
        form = await read_form(call)

        def work(tx: Transaction) -> object:
            service, number = service_of(tx, call), version_number(call)
            store = linkable(tx, call, service, form.text("resource_id"))
            part = parts.add(
                tx,
                service,
                number,
                PartKind.LINK,
                form.text("name") or store.name,
                {"store": store.id},
            )
            return _shape(tx, part, service, number)

        return answer(await self.around.catalogue.write(call.actor, work))

    async def get(self, call: Call) -> Reply:
        def read(tx: Transaction) -> object:
            service, number = service_of(tx, call), version_number(call)
            part = parts.get(tx, service, number, PartKind.LINK, call.params["link"])
            return _shape(tx, part, service, number)

        return answer(await self.around.catalogue.read(read))

    async def rename(self, call: Call) -> Reply:
        form = await read_form(call)

        def work(tx: Transaction) -> object:
            service, number, link = service_of(tx, call), version_number(call), call.params["link"]
            part = parts.update(tx, service, number, PartKind.LINK, link, name=form.given("name"))
            return _shape(tx, part, service, number)

        return answer(await self.around.catalogue.write(call.actor, work))

    async def delete(self, call: Call) -> Reply:
        def work(tx: Transaction) -> None:
            service, number = service_of(tx, call), version_number(call)
            parts.remove(tx, service, number, PartKind.LINK, call.params["link"])

        await self.around.catalogue.write(call.actor, work)
        return done()


def linkable(tx: Transaction, call: Call, service: str, wanted: str) -> Store:
    """A store that the service may link: its own, or one of nobody's.

    A token of one service links what it may see: a program gives away what is in its stores.
    """
    store = stores.get(tx, wanted)
    allowed = (service,) if call.token.service_id else (service, "")
    if store.kind not in _TYPES or store.owner not in allowed:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no store {wanted!r} that could be linked")
    return store


def _shape(tx: Transaction, part: Part, service: str, number: int) -> object:
    """A link to a store that has been deleted leads nowhere; its type is not known any more."""
    wanted = str(part.data["store"])
    try:
        kind, path = _TYPES[stores.get(tx, wanted).kind]
    except ApiRefused:
        kind, path = "", ""
    return {
        "id": part.id,
        "name": part.name,
        "resource_id": wanted,
        "resource_type": kind,
        "href": f"{path}{wanted}" if path else "",
        "service_id": service,
        "version": number,
        **times(part.created_at, part.updated_at),
    }

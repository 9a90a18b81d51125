"""Fastly's compute ACLs: lists of networks that services are linked to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.entry_calls import EntryCalls
from edge.admin.fastly.config_stores import MAX_BATCH
from edge.admin.fastly.shape import Form, answer, endpoint
from edge.admin.fastly.store_endpoints import StoreEndpoints
from edge.admin.fastly.store_shape import (
    all_entries,
    all_stores,
    batch_of,
    cursor_page,
    cursor_reply,
)
from edge.catalogue.records import Entry, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.acl import AclEntry
from edge.stores.acl import Acl

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_ACLS: Final = "/resources/acls"
_ONE: Final = f"{_ACLS}/{{store}}"


def routes(around: Around) -> list[Route]:
    """As the CLI's `compute acl` calls them."""
    its = StoreEndpoints(around, StoreKind.ACL, _shape, deleted=lambda: answer({}))
    do = _Acls(around, its, EntryCalls(around, its.find))
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _ACLS, do.listing, confined=True),
        endpoint("POST", _ACLS, its.create, deploy, confined=True),
        endpoint("GET", _ONE, its.get, confined=True),
        endpoint("DELETE", _ONE, its.delete, deploy, confined=True),
        endpoint("GET", f"{_ONE}/entries", do.page, confined=True),
        endpoint("PATCH", f"{_ONE}/entries", do.update, deploy, confined=True, max_body=MAX_BATCH),
        endpoint("GET", f"{_ONE}/entry/{{address}}", do.lookup, confined=True),
    ]


@dataclass(frozen=True, slots=True)
class _Acls:
    around: Around
    its: StoreEndpoints
    entries: EntryCalls

    async def listing(self, call: Call) -> Reply:
        found = await self.around.catalogue.read(lambda tx: all_stores(tx, call, StoreKind.ACL))
        return answer({"data": [_shape(one) for one in found], "meta": {"total": len(found)}})

    async def page(self, call: Call) -> Reply:
        page = cursor_page(call)
        found = await self.entries.page(call, page)
        return cursor_reply(found, page, _entry, lambda entry: entry.key, under="entries")

    async def update(self, call: Call) -> Reply:
        changes = []
        for one in await batch_of(call, "entries"):
            form = Form(one)
            value = json.dumps({"action": form.text("action")}).encode()
            changes.append((form.text("op"), form.text("prefix"), value))
        await self.entries.batch(call, changes)
        return Reply(202)

    async def lookup(self, call: Call) -> Reply:
        """204 where no network holds the address."""
        try:
            address = ip_address(call.params["address"]).packed
        except ValueError:
            raise ApiRefused(
                Refusal.INVALID, f"{call.params['address'][:64]!r} is not an address"
            ) from None

        def read(tx: Transaction) -> AclEntry | None:
            return Acl(
                AclEntry(ip_network(entry.key), _action(entry))
                for entry in all_entries(tx, self.its.find(tx, call))
            ).lookup(address)

        found = await self.around.catalogue.read(read)
        if found is None:
            return Reply(204)
        return answer({"prefix": str(found.prefix), "action": found.action})


def _shape(store: Store) -> dict[str, object]:
    return {"id": store.id, "name": store.name}


def _action(entry: Entry) -> str:
    return str(json.loads(entry.value)["action"])


def _entry(entry: Entry) -> dict[str, object]:
    return {"prefix": entry.key, "action": _action(entry)}

"""Dictionaries and ACLs that versions of one service declare: the part, and the store behind it.

Versions that were cloned share a store; its contents have no versions.  The store goes with the
last version that declares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.admin.api import Call
from edge.admin.fastly.shape import version_number
from edge.admin.fastly.store_shape import service_of
from edge.catalogue import parts, stores
from edge.catalogue.ids import new_id
from edge.catalogue.records import Page, Part, PartKind, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_KINDS = {PartKind.DICTIONARY: StoreKind.DICTIONARY, PartKind.ACL: StoreKind.SERVICE_ACL}


def declare(tx: Transaction, call: Call, kind: PartKind, name: str) -> Part:
    """A new one with an empty store, in a version that may still be changed."""
    service, number = service_of(tx, call), version_number(call)
    for store in stores.owned(tx, service, _KINDS[kind]):
        if not stores.linked(tx, store.id):  # the last version that declared it was deleted
            stores.delete(tx, store.id)
    free = name
    if name and stores.listing(tx, _KINDS[kind], Page(1), name=name, owner=service):
        free = f"{name}~{new_id()[:8]}"  # another version has one of that name with other contents
    made = stores.create(tx, _KINDS[kind], free, owner=service)
    return parts.add(tx, service, number, kind, name, {"store": made.id})


def declared(tx: Transaction, call: Call, kind: PartKind) -> list[Part]:
    """All of a version."""
    return parts.listing(tx, service_of(tx, call), version_number(call), kind)


def found(tx: Transaction, call: Call, kind: PartKind) -> Part:
    """The one whose name is in the path."""
    return parts.get(tx, service_of(tx, call), version_number(call), kind, call.params["name"])


def rename(tx: Transaction, call: Call, kind: PartKind, name: str | None) -> Part:
    """Its store stays."""
    service, number = service_of(tx, call), version_number(call)
    return parts.update(tx, service, number, kind, call.params["name"], name=name)


def withdraw(tx: Transaction, call: Call, kind: PartKind) -> None:
    """From this version."""
    service, number = service_of(tx, call), version_number(call)
    gone = parts.remove(tx, service, number, kind, call.params["name"])
    store = str(gone.data["store"])
    if not stores.linked(tx, store):
        stores.delete(tx, store)


def store_of(tx: Transaction, call: Call, kind: PartKind, wanted: str) -> Store:
    """The store with that id, of the service in the path."""
    service = service_of(tx, call)
    store = stores.find(tx, _KINDS[kind], wanted, service)
    if store.owner != service:
        raise ApiRefused(Refusal.NOT_FOUND, f"the service has no {kind.value} {wanted!r}")
    return store

"""Fastly's ACLs of a service: networks that versions of one service declare, and their entries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
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
    one_page,
    read_form,
    times,
)
from edge.admin.fastly.store_shape import PER_PAGE, all_entries, batch_of
from edge.admin.store_calls import changed
from edge.catalogue import entries
from edge.catalogue.records import Entry, PartKind, Scope, Store
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_ENTRIES: Final = "/service/{service}/acl/{store}/entries"
_ENTRY: Final = "/service/{service}/acl/{store}/entry"


def routes(around: Around) -> list[Route]:
    """As the CLI's `service acl` and `service acl-entry` call them."""
    do = _Entries(around, EntryCalls(around, _store))
    deploy = Scope.DEPLOY
    return [
        *owned_stores.Declared(around, PartKind.ACL).routes("acl"),
        endpoint("GET", _ENTRIES, do.listing),
        endpoint("PATCH", _ENTRIES, do.batch, deploy, max_body=MAX_BATCH),
        endpoint("POST", _ENTRY, do.create_entry, deploy),
        endpoint("GET", f"{_ENTRY}/{{id}}", do.get_entry),
        endpoint("PATCH", f"{_ENTRY}/{{id}}", do.update_entry, deploy),
        endpoint("DELETE", f"{_ENTRY}/{{id}}", do.delete_entry, deploy),
    ]


@dataclass(frozen=True, slots=True)
class _Entries:
    around: Around
    entries: EntryCalls

    async def listing(self, call: Call) -> Reply:
        found = await self.around.catalogue.read(lambda tx: all_entries(tx, _store(tx, call)))
        return one_page(call, found, lambda entry: _entry(entry, call), default=PER_PAGE)

    async def batch(self, call: Call) -> Reply:
        """Each change says what it does not want to stay as it is."""
        wanted = [Form(one) for one in await batch_of(call, "entries")]

        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            for form in wanted:
                _apply(tx, store, form)
            return store, None

        await changed(self.around, call, work)
        return done()

    async def create_entry(self, call: Call) -> Reply:
        form = await read_form(call)
        made = await self.entries.insert(call, _network(form), _value(form))
        return answer(_entry(made, call))

    async def get_entry(self, call: Call) -> Reply:
        return answer(_entry(await self.entries.get(call, call.params["id"]), call))

    async def update_entry(self, call: Call) -> Reply:
        form = await read_form(call)

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store = _store(tx, call)
            return store, _update(tx, store, call.params["id"], form)

        return answer(_entry(await changed(self.around, call, work), call))

    async def delete_entry(self, call: Call) -> Reply:
        await self.entries.delete(call, call.params["id"])
        return done()


def _apply(tx: Transaction, store: Store, form: Form) -> None:
    match form.text("op"):
        case "create":
            entries.insert(tx, store, _network(form), _value(form))
        case "update":
            _update(tx, store, form.text("id"), form)
        case "delete":
            entries.delete(tx, store, form.text("id"))
        case other:
            raise ApiRefused(Refusal.INVALID, f"{other[:64]!r} is not create, update or delete")


def _update(tx: Transaction, store: Store, wanted: str, form: Form) -> Entry:
    """What the form does not name stays.  An entry that gets another network gets another id."""
    old = entries.get(tx, store, wanted)
    key = _network(form, old) if "ip" in form or "subnet" in form else old.key
    if key != old.key:
        entries.delete(tx, store, old.key)
        return entries.insert(tx, store, key, _value(form, old))
    return entries.put(tx, store, key, _value(form, old))[0]


def _network(form: Form, old: Entry | None = None) -> str:
    address = form.text("ip")
    subnet = form.number("subnet")
    if old is not None:
        before = ip_network(old.key)
        if not address:
            address = str(before.network_address)
        if "subnet" not in form:
            subnet = before.prefixlen
    if not address:
        raise ApiRefused(Refusal.INVALID, "ip is missing: an address, with subnet for a network")
    return address if subnet is None or "/" in address else f"{address}/{subnet}"


def _value(form: Form, old: Entry | None = None) -> bytes:
    said: Mapping[str, object] = json.loads(old.value) if old else {"negated": False, "comment": ""}
    negated, comment = form.switch("negated"), form.given("comment")
    return json.dumps(
        {
            "negated": said["negated"] if negated is None else negated,
            "comment": said["comment"] if comment is None else comment,
        }
    ).encode()


def _store(tx: Transaction, call: Call) -> Store:
    return owned_stores.store_of(tx, call, PartKind.ACL, call.params["store"])


def _entry(entry: Entry, call: Call) -> dict[str, object]:
    """`subnet` is null for a single address."""
    network, said = ip_network(entry.key), json.loads(entry.value)
    return {
        "id": entry.id,
        "acl_id": entry.store_id,
        "service_id": call.params["service"],
        "ip": str(network.network_address),
        "subnet": None if network.num_addresses == 1 else network.prefixlen,
        "negated": "1" if said["negated"] else "0",
        "comment": said["comment"],
        **times(entry.created_at, entry.updated_at),
    }

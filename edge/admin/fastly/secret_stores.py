"""Fastly's secret stores.  Its CLI seals each secret to a key that it asks for first."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.client_keys import ClientKeys
from edge.admin.fastly.shape import Form, answer, endpoint, read_form, timestamp
from edge.admin.fastly.store_shape import cursor_page, cursor_reply
from edge.admin.store_calls import changed, seen_by, store_for
from edge.catalogue import entries, stores
from edge.catalogue.records import Entry, Page, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_STORES: Final = "/resources/stores/secret"
_ONE: Final = f"{_STORES}/{{store}}"


def routes(around: Around) -> list[Route]:
    """As the CLI's `secret-store` and `secret-store-entry` call them."""
    do = _SecretStores(around, ClientKeys(around.clock))
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _STORES, do.listing, confined=True),
        endpoint("POST", _STORES, do.create, deploy, confined=True),
        endpoint("POST", f"{_STORES}/client-key", do.client_key, deploy, confined=True),
        endpoint("GET", f"{_STORES}/signing-key", do.signing_key, confined=True),
        endpoint("GET", _ONE, do.get, confined=True),
        endpoint("DELETE", _ONE, do.delete, deploy, confined=True),
        endpoint("GET", f"{_ONE}/secrets", do.secrets, confined=True),
        endpoint("POST", f"{_ONE}/secrets", do.create_secret, deploy, confined=True),
        endpoint("PUT", f"{_ONE}/secrets", do.put_secret, deploy, confined=True),
        endpoint("PATCH", f"{_ONE}/secrets", do.recreate_secret, deploy, confined=True),
        endpoint("GET", f"{_ONE}/secrets/{{name}}", do.get_secret, confined=True),
        endpoint("DELETE", f"{_ONE}/secrets/{{name}}", do.delete_secret, deploy, confined=True),
    ]


@dataclass(frozen=True, slots=True)
class _SecretStores:
    around: Around
    keys: ClientKeys

    async def listing(self, call: Call) -> Reply:
        page, name = cursor_page(call), call.asked("name")

        def read(tx: Transaction) -> list[Store]:
            more = Page(page.limit + 1, page.after)
            return stores.listing(tx, StoreKind.SECRET, more, name=name, owner=seen_by(call))

        found = await self.around.catalogue.read(read)
        return cursor_reply(found, page, _shape, lambda store: store.name)

    async def create(self, call: Call) -> Reply:
        name = (await read_form(call)).text("name")
        store = await self.around.catalogue.write(
            call.actor,
            lambda tx: stores.create(tx, StoreKind.SECRET, name, owner=call.token.service_id),
        )
        return answer(_shape(store))

    async def get(self, call: Call) -> Reply:
        return answer(_shape(await self.around.catalogue.read(lambda tx: _store(tx, call))))

    async def delete(self, call: Call) -> Reply:
        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            stores.delete(tx, store.id)
            return store, None

        await changed(self.around, call, work)
        return Reply(204)

    async def client_key(self, call: Call) -> Reply:
        key = self.keys.current()
        return answer(
            {
                "public_key": _base64(key.public),
                "signature": _base64(key.signature),
                "expires_at": timestamp(key.expires_at),
            }
        )

    async def signing_key(self, call: Call) -> Reply:
        return answer({"signing_key": _base64(self.keys.signing_key)})

    async def secrets(self, call: Call) -> Reply:
        """Without values."""
        page = cursor_page(call)

        def read(tx: Transaction) -> list[Entry]:
            return entries.listing(tx, _store(tx, call), Page(page.limit + 1, page.after))

        found = await self.around.catalogue.read(read)
        return cursor_reply(found, page, _secret, lambda entry: entry.key)

    async def get_secret(self, call: Call) -> Reply:
        """Without the value."""
        return answer(
            _secret(
                await self.around.catalogue.read(
                    lambda tx: entries.get(tx, _store(tx, call), call.params["name"])
                )
            )
        )

    async def create_secret(self, call: Call) -> Reply:
        """Not where there is one."""
        name, value = self._sent(await read_form(call))

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store = _store(tx, call)
            return store, entries.insert(tx, store, name, value)

        return answer(_secret(await changed(self.around, call, work)))

    async def put_secret(self, call: Call) -> Reply:
        """Whether there is one or not."""
        name, value = self._sent(await read_form(call))

        def work(tx: Transaction) -> tuple[Store, tuple[Entry, bool]]:
            store = _store(tx, call)
            return store, entries.put(tx, store, name, value)

        entry, is_new = await changed(self.around, call, work)
        return answer({**_secret(entry), "recreated": not is_new})

    async def recreate_secret(self, call: Call) -> Reply:
        """Not where there is none."""
        name, value = self._sent(await read_form(call))

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store = _store(tx, call)
            entries.get(tx, store, name)
            return store, entries.put(tx, store, name, value)[0]

        return answer({**_secret(await changed(self.around, call, work)), "recreated": True})

    async def delete_secret(self, call: Call) -> Reply:
        def work(tx: Transaction) -> tuple[Store, None]:
            store = _store(tx, call)
            entries.delete(tx, store, call.params["name"])
            return store, None

        await changed(self.around, call, work)
        return Reply(204)

    def _sent(self, form: Form) -> tuple[str, bytes]:
        """Name and value.  What is wrong with a value is told without it."""
        value = _octets(form, "secret")
        if form.text("client_key"):
            value = self.keys.open(_octets(form, "client_key"), value)
        return form.text("name"), value


def _store(tx: Transaction, call: Call) -> Store:
    return store_for(tx, call, StoreKind.SECRET, call.params["store"])


def _octets(form: Form, name: str) -> bytes:
    try:
        return base64.b64decode(form.text(name), validate=True)
    except (binascii.Error, ValueError):
        raise ApiRefused(Refusal.INVALID, f"{name} is not base64") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shape(store: Store) -> Mapping[str, object]:
    return {"id": store.id, "name": store.name, "created_at": timestamp(store.created_at)}


def _secret(entry: Entry) -> Mapping[str, object]:
    return {
        "name": entry.key,
        "digest": _base64(entry.digest),
        "created_at": timestamp(entry.created_at),
        "recreated": False,
    }

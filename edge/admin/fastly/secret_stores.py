"""Fastly's secret stores.  Its CLI seals each secret to a key that it asks for first."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.entry_calls import EntryCalls
from edge.admin.fastly.client_keys import ClientKeys
from edge.admin.fastly.shape import Form, answer, endpoint, read_form, timestamp
from edge.admin.fastly.store_endpoints import StoreEndpoints
from edge.admin.fastly.store_shape import cursor_page, cursor_reply
from edge.catalogue.records import Entry, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal

_STORES: Final = "/resources/stores/secret"
_ONE: Final = f"{_STORES}/{{store}}"


def routes(around: Around) -> list[Route]:
    """As the CLI's `secret-store` and `secret-store-entry` call them."""
    its = StoreEndpoints(around, StoreKind.SECRET, _shape, deleted=lambda: Reply(204))
    do = _Secrets(EntryCalls(around, its.find), ClientKeys(around.clock))
    deploy = Scope.DEPLOY
    return [
        endpoint("GET", _STORES, its.page, confined=True),
        endpoint("POST", _STORES, its.create, deploy, confined=True),
        endpoint("POST", f"{_STORES}/client-key", do.client_key, deploy, confined=True),
        endpoint("GET", f"{_STORES}/signing-key", do.signing_key, confined=True),
        endpoint("GET", _ONE, its.get, confined=True),
        endpoint("DELETE", _ONE, its.delete, deploy, confined=True),
        endpoint("GET", f"{_ONE}/secrets", do.secrets, confined=True),
        endpoint("POST", f"{_ONE}/secrets", do.create_secret, deploy, confined=True),
        endpoint("PUT", f"{_ONE}/secrets", do.put_secret, deploy, confined=True),
        endpoint("PATCH", f"{_ONE}/secrets", do.recreate_secret, deploy, confined=True),
        endpoint("GET", f"{_ONE}/secrets/{{name}}", do.get_secret, confined=True),
        endpoint("DELETE", f"{_ONE}/secrets/{{name}}", do.delete_secret, deploy, confined=True),
    ]


@dataclass(frozen=True, slots=True)
class _Secrets:
    entries: EntryCalls
    keys: ClientKeys

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
        found = await self.entries.page(call, page)
        return cursor_reply(found, page, _secret, lambda entry: entry.key)

    async def get_secret(self, call: Call) -> Reply:
        """Without the value."""
        return answer(_secret(await self.entries.get(call, call.params["name"])))

    async def create_secret(self, call: Call) -> Reply:
        """Not where there is one."""
        name, value = self._sent(await read_form(call))
        return answer(_secret(await self.entries.insert(call, name, value)))

    async def put_secret(self, call: Call) -> Reply:
        """Whether there is one or not."""
        name, value = self._sent(await read_form(call))
        entry, is_new = await self.entries.put(call, name, value)
        return answer({**_secret(entry), "recreated": not is_new})

    async def recreate_secret(self, call: Call) -> Reply:
        """Not where there is none."""
        name, value = self._sent(await read_form(call))
        entry = await self.entries.update(call, name, value)
        return answer({**_secret(entry), "recreated": True})

    async def delete_secret(self, call: Call) -> Reply:
        await self.entries.delete(call, call.params["name"])
        return Reply(204)

    def _sent(self, form: Form) -> tuple[str, bytes]:
        """Name and value.  What is wrong with a value is told without it."""
        value = _octets(form, "secret")
        if form.text("client_key"):
            value = self.keys.open(_octets(form, "client_key"), value)
        return form.text("name"), value


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

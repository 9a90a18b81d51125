"""What endpoints about stores share, ours and Fastly's: finding a store, and who sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from edge.admin import schema
from edge.admin.api import Call
from edge.admin.around import Around
from edge.admin.documents import parse_json
from edge.admin.schema import Schema
from edge.catalogue import stores
from edge.catalogue.records import Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

T = TypeVar("T")

WORDS: Final[Mapping[StoreKind, str]] = {
    StoreKind.CONFIG: "config store",
    StoreKind.KV: "KV store",
    StoreKind.SECRET: "secret store",
    StoreKind.ACL: "access control list",
    StoreKind.DICTIONARY: "dictionary",
    StoreKind.SERVICE_ACL: "access control list",
}


def store_for(tx: Transaction, call: Call, kind: StoreKind, wanted: str) -> Store:
    """A store by its name or id.

    NOT_FOUND where the token is one of another service, as if the store did not exist.
    """
    store = stores.find(tx, kind, wanted)
    service = call.token.service_id
    if service and store.owner != service:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no {WORDS[kind]} {wanted!r}")
    return store


async def named_store(around: Around, call: Call, kind: StoreKind) -> Store:
    """The store that the path names.  NOT_FOUND."""
    return await around.catalogue.read(lambda tx: store_for(tx, call, kind, call.params["store"]))


def seen_by(call: Call) -> str | None:
    """Whose stores a list has: those of the token's service, or (None) all."""
    return call.token.service_id or None


async def changed(around: Around, call: Call, work: Callable[[Transaction], tuple[Store, T]]) -> T:
    """Change the contents of a store, and let the services that are linked to it see them soon."""
    store, result = await around.catalogue.write(call.actor, work)
    await around.control.stores_changed([store.id])
    return result


async def read_large(call: Call, wanted: Schema) -> Mapping[str, object]:
    """A body that is a JSON object and may be long: it is read and judged in a thread."""
    return await asyncio.to_thread(_read_object, await call.body.read(), wanted)


def _read_object(data: bytes, wanted: Schema) -> Mapping[str, object]:
    value = parse_json(data)
    schema.require(wanted, value, "the request body")
    assert isinstance(value, dict)  # every schema of ours for a body is that of an object
    return value


def utf8(data: bytes, what: str) -> str:
    """Text.  INVALID for what is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ApiRefused(Refusal.INVALID, f"{what} is not UTF-8") from None


def timestamp(at: float) -> str:
    """ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

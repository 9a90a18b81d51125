"""Routes that stores of every kind have: list, create, describe, rename, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import (
    PAGE,
    etag,
    is_yes,
    json_reply,
    list_of,
    list_reply,
    one_more,
    page_of,
    read_fields,
)
from edge.admin.store_calls import WORDS, named_store, seen_by, store_for, timestamp
from edge.catalogue import stores
from edge.catalogue.records import Page, Scope, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

NAME: Final = schema.text(1, 255)
STORE: Final = schema.obj(
    {
        "id": schema.text(),
        "name": schema.text(),
        "kind": schema.one_of("config", "kv", "secret", "acl"),
        "owner": schema.text(about="Id of the service that alone may link it; empty: any."),
        "created_at": schema.text(),
        "updated_at": schema.text(),
        "revision": schema.number(kind="integer"),
    },
    {
        "entries": schema.number(kind="integer", about="How many it has."),
        "bytes": schema.number(kind="integer", about="What counts against its limit."),
    },
)
_RENAME: Final = schema.obj({"name": NAME})

More = Callable[[Store], Awaitable[Mapping[str, object]]]


@dataclass(frozen=True, slots=True)
class StoreRoutes:
    """Endpoints of one kind below `path`, such as `/v1/kv`."""

    around: Around
    kind: StoreKind
    path: str
    tag: str
    more: More | None = None  # facts that a description has besides those of the catalogue

    def routes(self) -> list[Route]:
        """With what the OpenAPI document says of them."""
        word, one = WORDS[self.kind], f"{self.path}/{{store}}"
        what = self.tag.replace("-", "_")
        force = Parameter("force", "Delete it even if a served version links it.", schema.SWITCH)
        params = {"store": NAME}
        return [
            Route(
                "GET",
                self.path,
                self.listing,
                confined=True,
                operation=Operation(
                    f"list_{what}", f"List every {word}", self.tag, PAGE, {}, {200: list_of(STORE)}
                ),
            ),
            Route(
                "GET",
                one,
                self.describe,
                confined=True,
                operation=Operation(
                    f"describe_{what}",
                    f"Describe one {word}",
                    self.tag,
                    responses={200: STORE},
                    refusals=(404, 422),
                    params=params,
                ),
            ),
            Route(
                "PUT",
                one,
                self.create,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    f"create_{what}",
                    f"Create a {word} of that name, unless there is one",
                    self.tag,
                    responses={200: STORE, 201: STORE},
                    refusals=(409, 422),
                    params=params,
                ),
            ),
            Route(
                "PATCH",
                one,
                self.rename,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    f"rename_{what}",
                    f"Rename a {word}; links to it stay",
                    self.tag,
                    request={"application/json": _RENAME},
                    responses={200: STORE},
                    refusals=(404, 409, 422),
                    params=params,
                ),
            ),
            Route(
                "DELETE",
                one,
                self.delete,
                Scope.DEPLOY,
                confined=True,
                operation=Operation(
                    f"delete_{what}",
                    f"Delete a {word} and all that is in it",
                    self.tag,
                    (force,),
                    responses={204: None},
                    refusals=(404, 409, 422),
                    params=params,
                ),
            ),
        ]

    async def listing(self, call: Call) -> Reply:
        """All of them, or those of the token's service."""
        page = page_of(call)

        def read(tx: Transaction) -> Sequence[Store]:
            return stores.listing(tx, self.kind, one_more(page), owner=seen_by(call))

        found = await self.around.catalogue.read(read)
        return await asyncio.to_thread(
            list_reply, found, page, store_facts, lambda store: store.name
        )

    async def describe(self, call: Call) -> Reply:
        """One, by name or id."""
        return await self._reply(await named_store(self.around, call, self.kind))

    async def create(self, call: Call) -> Reply:
        """One that exists already is left as it is."""
        name = call.params["store"]
        owner = call.token.service_id

        def work(tx: Transaction) -> tuple[Store, bool]:
            there = stores.listing(tx, self.kind, Page(1), name=name)
            if not there:
                return stores.create(tx, self.kind, name, owner=owner), True
            if owner and there[0].owner != owner:
                raise ApiRefused(
                    Refusal.CONFLICT,
                    f"there is a {WORDS[self.kind]} {name!r} that is not of this token's service",
                )
            return there[0], False

        store, is_new = await self.around.catalogue.write(call.actor, work)
        return await self._reply(store, 201 if is_new else 200)

    async def rename(self, call: Call) -> Reply:
        """The id stays, and so do links."""
        name = str((await read_fields(call, _RENAME))["name"])

        def work(tx: Transaction) -> Store:
            store = store_for(tx, call, self.kind, call.params["store"])
            return stores.rename(tx, store.id, name)

        return await self._reply(await self.around.catalogue.write(call.actor, work))

    async def delete(self, call: Call) -> Reply:
        """Not while a served version links it, unless forced."""
        force = is_yes(call, "force")

        def work(tx: Transaction) -> Store:
            store = store_for(tx, call, self.kind, call.params["store"])
            stores.delete(tx, store.id, force=force)
            return store

        store = await self.around.catalogue.write(call.actor, work)
        if self.kind is StoreKind.KV:
            await self.around.control.store_deleted(store.id)
        # Not by force alone: one that is being activated may have read it already.
        await self.around.control.stores_changed([store.id])
        return Reply(204)

    async def _reply(self, store: Store, status: int = 200) -> Reply:
        facts = store_facts(store)
        if self.more is not None:
            facts |= await self.more(store)
        return json_reply(facts, status, (etag(store.revision),))


def store_facts(store: Store) -> dict[str, object]:
    """A store as `/v1` tells it."""
    facts: dict[str, object] = {
        "id": store.id,
        "name": store.name,
        "kind": store.kind.value,
        "owner": store.owner,
        "created_at": timestamp(store.created_at),
        "updated_at": timestamp(store.updated_at),
        "revision": store.revision,
    }
    if store.kind is not StoreKind.KV:
        facts["entries"] = store.entries
    return facts

"""What the endpoints of domains, backends and health checks share: five verbs over parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from edge.catalogue import parts, services, versions
from edge.catalogue.records import Part, PartKind, Scope

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

VERSION: Final = "/service/{service}/version/{number}"
Data = Mapping[str, object]


def _any(tx: Transaction, call: Call, service: str, data: Data) -> None:
    """Everybody may say it."""


class PartEndpoints:
    """One kind of part.  The two functions are pure: between Fastly's fields and a part's data."""

    def __init__(
        self,
        around: Around,
        kind: PartKind,
        changed: Callable[[str, Data, Form], tuple[str, Data]],
        shown: Callable[[str, Data], dict[str, object]],
        allowed: Callable[[Transaction, Call, str, Data], None] = _any,
    ) -> None:
        """`changed` takes name (as it will be) and data before, and says both after.

        It raises ApiRefused INVALID.  `allowed` raises ApiRefused for what the caller may not say
        of that service (an id).
        """
        self._around = around
        self._kind = kind
        self._changed = changed
        self._shown = shown
        self._allowed = allowed

    def routes(self, word: str) -> list[Route]:
        """`word` is what the kind is called in paths."""
        every, one = f"{VERSION}/{word}", f"{VERSION}/{word}/{{name}}"
        return [
            endpoint("GET", every, self.listing),
            endpoint("POST", every, self.create, Scope.DEPLOY),
            endpoint("GET", one, self.describe),
            endpoint("PUT", one, self.update, Scope.DEPLOY),
            endpoint("DELETE", one, self.delete, Scope.DEPLOY),
        ]

    async def listing(self, call: Call) -> Reply:
        number = version_number(call)

        def read(tx: Transaction) -> list[dict[str, object]]:
            service = services.find(tx, call.params["service"]).id
            versions.get(tx, service, number)
            found = parts.listing(tx, service, number, self._kind)
            return [self.shape(service, number, part) for part in found]

        return answer(await self._around.catalogue.read(read))

    async def create(self, call: Call) -> Reply:
        number, form = version_number(call), await read_form(call)
        name, data = self._changed(form.text("name"), {}, form)

        def write(tx: Transaction) -> dict[str, object]:
            service = services.find(tx, call.params["service"]).id
            self._allowed(tx, call, service, data)
            part = parts.add(tx, service, number, self._kind, name, data)
            return self.shape(service, number, part)

        return answer(await self._around.catalogue.write(call.actor, write))

    async def describe(self, call: Call) -> Reply:
        number = version_number(call)

        def read(tx: Transaction) -> dict[str, object]:
            service = services.find(tx, call.params["service"]).id
            part = parts.get(tx, service, number, self._kind, call.params["name"])
            return self.shape(service, number, part)

        return answer(await self._around.catalogue.read(read))

    async def update(self, call: Call) -> Reply:
        number, form = version_number(call), await read_form(call)

        def write(tx: Transaction) -> dict[str, object]:
            service = services.find(tx, call.params["service"]).id
            before = parts.get(tx, service, number, self._kind, call.params["name"])
            name, data = self._changed(form.given("name") or before.name, before.data, form)
            self._allowed(tx, call, service, data)
            part = parts.update(tx, service, number, self._kind, before.id, name=name, data=data)
            return self.shape(service, number, part)

        return answer(await self._around.catalogue.write(call.actor, write))

    async def delete(self, call: Call) -> Reply:
        number = version_number(call)

        def write(tx: Transaction) -> None:
            service = services.find(tx, call.params["service"]).id
            parts.remove(tx, service, number, self._kind, call.params["name"])

        await self._around.catalogue.write(call.actor, write)
        return done()

    def shape(self, service: str, number: int, part: Part) -> dict[str, object]:
        """A part as it is answered."""
        return {
            "service_id": service,
            "version": number,
            **self._shown(part.name, part.data),
            **times(part.created_at, part.updated_at),
        }

"""Services as Fastly's API has them: list, make, describe, rename, delete.

Those of the configuration file are not among them: they have no versions that could be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import (
    answer,
    done,
    endpoint,
    part_of,
    read_form,
    service_shape,
    version_shape,
)
from edge.admin.renaming import change_service
from edge.admin.v1.finding import refuse_file_service
from edge.catalogue import services, versions
from edge.catalogue.records import Page, Scope, ServiceRecord, VersionRecord
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

MOST_VERSIONS: Final = 1000  # of one service that are told, the newest
_CHUNK: Final = 1000
_FILTERS: Final = {"filter[versions.active]": "active", "filter[versions.staged]": "staged"}
_SORTS: Final[dict[str, Callable[[ServiceRecord], tuple[float, str]]]] = {
    "created": lambda service: (service.created_at, service.id),
    "updated": lambda service: (service.updated_at, service.id),
}


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = _Services(around)
    return [
        endpoint("GET", "/service", here.listing, confined=True),
        endpoint("POST", "/service", here.create, Scope.DEPLOY),
        endpoint("GET", "/service/search", here.search, confined=True),
        endpoint("GET", "/service/{service}", here.describe),
        endpoint("GET", "/service/{service}/details", here.details),
        endpoint("PUT", "/service/{service}", here.update, Scope.DEPLOY),
        endpoint("DELETE", "/service/{service}", here.delete, Scope.DEPLOY),
    ]


class _Services:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def listing(self, call: Call) -> Reply:
        """All of them; each with those of its versions that are in use, and the latest."""
        own = call.token.service_id

        def read(tx: Transaction) -> list[ServiceRecord]:
            if own:
                return [services.get(tx, own)]
            found: list[ServiceRecord] = []
            while len(chunk := services.listing(tx, Page(_CHUNK, _last(found)))) == _CHUNK:
                found += chunk
            return found + chunk

        found = await self._around.catalogue.read(read)
        key = _SORTS.get(call.asked("sort"))
        if key is not None:
            found.sort(key=key)
        if call.asked("direction").startswith("desc"):
            found.reverse()
        shown, headers = part_of(call, found)
        return answer(
            await self._around.catalogue.read(
                lambda tx: [service_shape(service, _in_use(tx, service)) for service in shown]
            ),
            headers=headers,
        )

    async def create(self, call: Call) -> Reply:
        """With its first version, which clients count on."""
        form = await read_form(call)
        kind = form.text("type", "wasm")
        if kind != "wasm":
            raise ApiRefused(
                Refusal.INVALID,
                f"a service of type {kind[:40]!r} cannot be served; Valid values for 'type' are: "
                "'wasm'",
            )
        name = form.text("name")
        refuse_file_service(self._around, name)

        def write(tx: Transaction) -> dict[str, object]:
            made = services.create(tx, name, form.text("comment"))
            versions.create(tx, made.id)
            return _whole(tx, services.get(tx, made.id))

        return answer(await self._around.catalogue.write(call.actor, write))

    async def search(self, call: Call) -> Reply:
        """The service of exactly this name."""
        name, own = call.asked("name"), call.token.service_id

        def read(tx: Transaction) -> dict[str, object]:
            found = services.by_name(tx, name)
            if found is None or (own and found.id != own):
                raise ApiRefused(Refusal.NOT_FOUND, f"there is no service named {name[:80]!r}")
            return _whole(tx, found)

        return answer(await self._around.catalogue.read(read))

    async def describe(self, call: Call) -> Reply:
        """With its versions."""
        return answer(
            await self._around.catalogue.read(
                lambda tx: _whole(tx, services.find(tx, call.params["service"]))
            )
        )

    async def details(self, call: Call) -> Reply:
        """With its versions, and two of them apart: the active one, and the one that is meant.

        That is the latest, or with the filter `versions.staged` the staged one.
        """
        only = next((kind for kind in _FILTERS if call.asked(kind) == "true"), None)

        def read(tx: Transaction) -> dict[str, object]:
            found = services.find(tx, call.params["service"])
            active = _version(tx, found, found.active)
            meant = versions.latest(tx, found.id)
            if only is None:
                facts = _whole(tx, found)
            else:
                kept = active if _FILTERS[only] == "active" else _version(tx, found, found.staged)
                facts = service_shape(found, [] if kept is None else [kept])
                meant = meant if _FILTERS[only] == "active" else kept
            facts["active_version"] = None if active is None else version_shape(active)
            facts["version"] = None if meant is None else version_shape(meant)
            return facts

        return answer(await self._around.catalogue.read(read))

    async def update(self, call: Call) -> Reply:
        """Its name and comment."""
        form = await read_form(call)
        found = await self._around.catalogue.read(
            lambda tx: services.find(tx, call.params["service"])
        )
        changed = await change_service(
            self._around, call, found, name=form.given("name"), comment=form.given("comment")
        )
        return answer(await self._around.catalogue.read(lambda tx: _whole(tx, changed)))

    async def delete(self, call: Call) -> Reply:
        """Once none of its versions is active; one that is staged does not keep it."""
        found = await self._around.catalogue.read(
            lambda tx: services.find(tx, call.params["service"])
        )
        if found.active is None and found.staged is not None:
            await self._around.control.unstage(call.actor, found.id)
        await self._around.control.delete_service(call.actor, found.id, force=False)
        self._around.tokens.forget_service(found.id)
        return done()


def _whole(tx: Transaction, service: ServiceRecord) -> dict[str, object]:
    page = Page(MOST_VERSIONS, str(max(0, service.latest - MOST_VERSIONS)))
    return service_shape(service, versions.listing(tx, service.id, page))


def _in_use(tx: Transaction, service: ServiceRecord) -> list[VersionRecord]:
    numbers = {service.active, service.staged, service.latest or None} - {None}
    return [versions.get(tx, service.id, number) for number in sorted(filter(None, numbers))]


def _version(tx: Transaction, service: ServiceRecord, number: int | None) -> VersionRecord | None:
    return None if number is None else versions.get(tx, service.id, number)


def _last(found: list[ServiceRecord]) -> str:
    return found[-1].name if found else ""

"""Versions as Fastly's API has them: numbered, cloned, locked, activated, staged, validated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.checking import problems_of
from edge.admin.fastly.services import MOST_VERSIONS
from edge.admin.fastly.shape import answer, endpoint, read_form, version_number, version_shape
from edge.catalogue import services, versions
from edge.catalogue.records import Page, Scope, VersionRecord
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_ONE = "/service/{service}/version/{number}"


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = _Versions(around)
    return [
        endpoint("GET", "/service/{service}/version", here.listing),
        endpoint("POST", "/service/{service}/version", here.create, Scope.DEPLOY),
        endpoint("GET", _ONE, here.describe),
        endpoint("PUT", _ONE, here.update, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/clone", here.clone, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/lock", here.lock, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/activate", here.activate, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/deactivate", here.deactivate, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/activate/staging", here.stage, Scope.DEPLOY),
        endpoint("PUT", f"{_ONE}/deactivate/staging", here.unstage, Scope.DEPLOY),
        endpoint("GET", f"{_ONE}/validate", here.validate),
    ]


class _Versions:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def listing(self, call: Call) -> Reply:
        """The newest thousand, the lowest number first."""

        def read(tx: Transaction) -> list[VersionRecord]:
            found = services.find(tx, call.params["service"])
            after = str(max(0, found.latest - MOST_VERSIONS))
            return versions.listing(tx, found.id, Page(MOST_VERSIONS, after))

        found = await self._around.catalogue.read(read)
        return answer([version_shape(version) for version in found])

    async def create(self, call: Call) -> Reply:
        """An empty draft."""
        form = await read_form(call)

        def write(tx: Transaction) -> VersionRecord:
            found = services.find(tx, call.params["service"])
            return versions.create(tx, found.id, comment=form.text("comment"))

        return answer(version_shape(await self._around.catalogue.write(call.actor, write)))

    async def describe(self, call: Call) -> Reply:
        return answer(version_shape(await self._find(call)))

    async def update(self, call: Call) -> Reply:
        """Its comment."""
        form = await read_form(call)
        number = version_number(call)

        def write(tx: Transaction) -> VersionRecord:
            found = services.find(tx, call.params["service"])
            comment = form.given("comment")
            if comment is None:
                return versions.get(tx, found.id, number)
            return versions.set_comment(tx, found.id, number, comment)

        return answer(version_shape(await self._around.catalogue.write(call.actor, write)))

    async def clone(self, call: Call) -> Reply:
        """A draft with the same parts and package."""
        number = version_number(call)

        def write(tx: Transaction) -> VersionRecord:
            found = services.find(tx, call.params["service"])
            before = versions.get(tx, found.id, number)
            return versions.create(tx, found.id, clone_of=number, comment=before.comment)

        return answer(version_shape(await self._around.catalogue.write(call.actor, write)))

    async def lock(self, call: Call) -> Reply:
        number = version_number(call)

        def write(tx: Transaction) -> VersionRecord:
            found = services.find(tx, call.params["service"])
            return versions.lock(tx, found.id, number)

        return answer(version_shape(await self._around.catalogue.write(call.actor, write)))

    async def activate(self, call: Call) -> Reply:
        """It serves in every worker when this is answered."""
        found = await self._find(call)
        await self._around.control.activate(call.actor, found.service_id, found.number)
        return answer(version_shape(await self._find(call)))

    async def deactivate(self, call: Call) -> Reply:
        """Only the one that is active."""
        found = await self._find(call)
        if not found.active:
            raise ApiRefused(Refusal.INVALID, f"version {found.number} is not active")
        await self._around.control.deactivate(call.actor, found.service_id)
        return answer(version_shape(await self._find(call)))

    async def stage(self, call: Call) -> Reply:
        """Workers load it; it is reached by `invoke` of our own API alone."""
        found = await self._find(call)
        await self._around.control.stage(call.actor, found.service_id, found.number)
        return answer(version_shape(await self._find(call)))

    async def unstage(self, call: Call) -> Reply:
        found = await self._find(call)
        if not found.staged:
            raise ApiRefused(Refusal.INVALID, f"version {found.number} is not staged")
        await self._around.control.unstage(call.actor, found.service_id)
        return answer(version_shape(await self._find(call)))

    async def validate(self, call: Call) -> Reply:
        """Whether it could be activated, as far as its definition tells."""
        number = version_number(call)

        def read(tx: Transaction) -> list[str]:
            found = services.find(tx, call.params["service"])
            return problems_of(tx, self._around, found.id, number)

        problems = await self._around.catalogue.read(read)
        facts = {
            "status": "error" if problems else "ok",
            "msg": problems[0] if problems else None,
            "errors": problems,
            "warnings": [],
            "messages": [],
        }
        return answer(facts)

    async def _find(self, call: Call) -> VersionRecord:
        number = version_number(call)

        def read(tx: Transaction) -> VersionRecord:
            return versions.get(tx, services.find(tx, call.params["service"]).id, number)

        return await self._around.catalogue.read(read)

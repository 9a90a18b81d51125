"""Versions: made, described, changed while they are drafts, deleted.  Serving one: `activation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from edge.admin import schema
from edge.admin.api import JSON, SMALL_BODY, Call, Endpoint, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.control import no_progress
from edge.admin.documents import (
    PAGE,
    etag,
    expected_revision,
    json_reply,
    list_of,
    list_reply,
    one_more,
    page_of,
    parse_json,
    read_fields,
    read_json,
)
from edge.admin.hosts import refuse_foreign_hosts
from edge.admin.schema import Schema
from edge.admin.v1.finding import find_service, number_of
from edge.admin.v1.settings import module_needs
from edge.admin.v1.uploads import FORMS, PACKAGE_MARGIN, look, refuse_unfit, stored, unpack
from edge.admin.v1.views import NUMBER, SERVICE_NAME, VERSION, version_view
from edge.catalogue import definition, parts, services, stores, versions
from edge.catalogue.database import Transaction
from edge.catalogue.records import PartKind, Scope, ServiceRecord, VersionRecord
from edge.catalogue.upload import Upload
from edge.errors import ApiRefused, Refusal

T = TypeVar("T")

ALL: Final = "/v1/services/{service}/versions"
ONE: Final = ALL + "/{number}"
_PARAMS: Final = {"service": SERVICE_NAME}
ONE_PARAMS: Final = {"service": SERVICE_NAME, "number": NUMBER}
_COMMENT: Final = schema.text(0, 4096)
_CLONE: Final = schema.obj(
    optional={
        "from": {**NUMBER, "description": "Which version to clone; the latest if left out."},
        "comment": _COMMENT,
    }
)
_CHANGE: Final = schema.obj({"comment": _COMMENT})
_SPACE: Final = 1024  # bytes in which a document begins, if it is one and no program
DEFINITION: Final[Schema] = {
    "type": "object",
    "description": "The keys of a service in the configuration except `module`; stores are named: "
    "`config_stores: [flags]` or `{NAME IN THE PROGRAM: STORE}`.",
}


def routes(around: Around) -> list[Route]:
    """Below `/v1/services/{service}/versions`."""
    its = _Versions(around)
    package = around.settings.admin.package_bytes + PACKAGE_MARGIN
    return [
        _route("GET", ALL, its.listing, "list_versions", "List versions", list_of(VERSION)),
        Route(
            "POST",
            ALL,
            its.create,
            Scope.DEPLOY,
            service="service",
            max_body=package,
            operation=Operation(
                "create_version",
                "Make a version: a clone, or with a program as the body, a clone with that program",
                "versions",
                request={JSON: _CLONE, **FORMS},
                body_required=False,
                responses={201: VERSION},
                refusals=(404, 409, 413, 422, 507),
                params=_PARAMS,
            ),
        ),
        _route("GET", ONE, its.describe, "describe_version", "Describe a version", VERSION),
        _change("PATCH", ONE, its.comment, "update_version", "Change its comment", _CHANGE),
        Route(
            "DELETE",
            ONE,
            its.delete,
            Scope.DEPLOY,
            service="service",
            operation=Operation(
                "delete_version",
                "Delete a version that is not served",
                "versions",
                responses={204: None},
                refusals=(404, 409, 412, 422, 507),
                params=ONE_PARAMS,
            ),
        ),
        _change("POST", ONE + "/lock", its.lock, "lock_version", "Let it change no more", None),
        Route(
            "PUT",
            ONE + "/package",
            its.put_package,
            Scope.DEPLOY,
            service="service",
            max_body=package,
            operation=Operation(
                "put_package",
                "Give a draft a program",
                "versions",
                request=FORMS,
                responses={200: VERSION},
                refusals=(404, 409, 412, 413, 422, 507),
                params=ONE_PARAMS,
            ),
        ),
        _route(
            "GET",
            ONE + "/definition",
            its.definition,
            "get_definition",
            "What it consists of besides its program",
            DEFINITION,
        ),
        _change(
            "PUT",
            ONE + "/definition",
            its.put_definition,
            "put_definition",
            "Make a draft what the document says; what it does not name goes",
            DEFINITION,
            DEFINITION,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Versions:
    around: Around

    async def listing(self, call: Call) -> Reply:
        page = page_of(call)
        if page.after and not (page.after.isascii() and page.after.isdigit()):
            raise ApiRefused(Refusal.INVALID, "after: must be `next` of the answer before")
        record = await find_service(self.around, call)
        found = await self.around.catalogue.read(
            lambda tx: versions.listing(tx, record.id, one_more(page))
        )
        return list_reply(found, page, version_view, lambda version: str(version.number))

    async def create(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        body = await call.body.read()
        if not body or body[:_SPACE].lstrip().startswith(b"{"):
            if len(body) > SMALL_BODY:
                raise ApiRefused(Refusal.TOO_LARGE, f"a document has at most {SMALL_BODY} bytes")
            wanted = parse_json(body) if body else {}
            schema.require(_CLONE, wanted, "the request body")
            assert isinstance(wanted, dict)
            return await self._clone(call, record, wanted)
        latest = await self.around.catalogue.read(lambda tx: versions.latest(tx, record.id))
        upload = await self._unpack(call, record, body, latest)
        number = None if latest is None else latest.number

        def work(tx: Transaction) -> VersionRecord:
            made = versions.create(tx, record.id, clone_of=number)
            return versions.set_package(tx, record.id, made.number, upload.package)

        async with stored(self.around, upload):
            return self._version(await self.around.catalogue.write(call.actor, work), 201)

    async def describe(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        number = number_of(call)
        found = await self.around.catalogue.read(lambda tx: versions.get(tx, record.id, number))
        loaded = self.around.control.is_loaded(record.name, number)
        return json_reply(version_view(found, loaded=loaded), headers=[etag(found.revision)])

    async def comment(self, call: Call) -> Reply:
        wanted = await read_fields(call, _CHANGE)
        text = str(wanted["comment"])
        expect = expected_revision(call)
        return await self._changed(
            call,
            lambda tx, service, number: versions.set_comment(
                tx, service, number, text, expect=expect
            ),
        )

    async def lock(self, call: Call) -> Reply:
        expect = expected_revision(call)
        return await self._changed(
            call,
            lambda tx, service, number: versions.lock(tx, service, number, expect=expect),
        )

    async def delete(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        number, expect = number_of(call), expected_revision(call)
        await self.around.catalogue.write(
            call.actor, lambda tx: versions.delete(tx, record.id, number, expect=expect)
        )
        return Reply(204)

    async def put_package(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        number, expect = number_of(call), expected_revision(call)
        draft = await self.around.catalogue.read(
            lambda tx: versions.changeable(tx, record.id, number, expect)
        )
        upload = await self._unpack(call, record, await call.body.read(), draft)
        async with stored(self.around, upload):
            return await self._changed(
                call,
                lambda tx, service, number: versions.set_package(
                    tx, service, number, upload.package, expect=expect
                ),
            )

    async def definition(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        number = number_of(call)

        def work(tx: Transaction) -> tuple[Mapping[str, object], int]:
            found = definition.read(tx, record.id, number)
            return found, versions.get(tx, record.id, number).revision

        found, revision = await self.around.catalogue.read(work)
        return json_reply(found, headers=[etag(revision)])

    async def put_definition(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        number, expect = number_of(call), expected_revision(call)
        wanted = await read_json(call, DEFINITION)

        def work(tx: Transaction) -> tuple[Mapping[str, object], int]:
            before = _linked(tx, record.id, number)
            definition.write(
                tx,
                record.id,
                number,
                wanted,
                defaults=self.around.limits,
                ceilings=self.around.ceilings,
                expect=expect,
            )
            _refuse_foreign(tx, call, _linked(tx, record.id, number) - before)
            refuse_foreign_hosts(tx, self.around, call, record.id, number)
            found = definition.read(tx, record.id, number)
            return found, versions.get(tx, record.id, number).revision

        found, revision = await self.around.catalogue.write(call.actor, work)
        return json_reply(found, headers=[etag(revision)])

    async def _clone(
        self, call: Call, record: ServiceRecord, wanted: Mapping[str, object]
    ) -> Reply:
        def work(tx: Transaction) -> VersionRecord:
            source = wanted.get("from") or services.get(tx, record.id).latest or None
            return versions.create(
                tx,
                record.id,
                clone_of=None if source is None else int(str(source)),
                comment=str(wanted.get("comment", "")),
            )

        return self._version(await self.around.catalogue.write(call.actor, work), 201)

    async def _unpack(
        self, call: Call, record: ServiceRecord, body: bytes, base: VersionRecord | None
    ) -> Upload:
        """A program that could be served with the settings of `base`."""
        upload = await unpack(self.around, call, body, no_progress)
        needs = module_needs(self.around, record.name, base.settings if base else {})
        refuse_unfit(await look(self.around, upload, no_progress, needs, label=record.name))
        return upload

    async def _changed(
        self, call: Call, change: Callable[[Transaction, str, int], VersionRecord]
    ) -> Reply:
        record = await find_service(self.around, call)
        number = number_of(call)
        return self._version(
            await self.around.catalogue.write(call.actor, lambda tx: change(tx, record.id, number))
        )

    def _version(self, found: VersionRecord, status: int = 200) -> Reply:
        return json_reply(version_view(found), status, [etag(found.revision)])


def _linked(tx: Transaction, service: str, number: int) -> frozenset[str]:
    """Ids of the stores that a version is linked to."""
    return frozenset(
        str(part.data["store"]) for part in parts.listing(tx, service, number, PartKind.LINK)
    )


def _refuse_foreign(tx: Transaction, call: Call, linked: frozenset[str]) -> None:
    """A token of one service links that service's own stores: others' contents are not its."""
    if not call.token.service_id:
        return
    for identity in linked:
        found = stores.get(tx, identity)
        if found.owner != call.token.service_id:
            raise ApiRefused(
                Refusal.FORBIDDEN,
                f"the token is for one service, and the store {found.name} is not that service's",
            )


def _route(
    method: str, pattern: str, endpoint: Endpoint, name: str, summary: str, found: Schema
) -> Route:
    """One that changes nothing."""
    return Route(
        method,
        pattern,
        endpoint,
        service="service",
        operation=Operation(
            name,
            summary,
            "versions",
            query=PAGE if pattern == ALL else (),
            responses={200: found},
            refusals=(404, 409, 422),
            params=_PARAMS if pattern == ALL else ONE_PARAMS,
        ),
    )


def _change(
    method: str,
    pattern: str,
    endpoint: Endpoint,
    name: str,
    summary: str,
    wanted: Schema | None,
    found: Schema = VERSION,
) -> Route:
    """One that changes a version."""
    return Route(
        method,
        pattern,
        endpoint,
        Scope.DEPLOY,
        service="service",
        max_body=SMALL_BODY,
        operation=Operation(
            name,
            summary,
            "versions",
            request={} if wanted is None else {JSON: wanted},
            responses={200: found},
            refusals=(404, 409, 412, 413, 422, 507),
            params=ONE_PARAMS,
        ),
    )

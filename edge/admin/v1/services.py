"""Services: list, describe, rename, delete.  Putting one there is in `deploy`."""

from __future__ import annotations

from dataclasses import dataclass

from edge.admin import schema
from edge.admin.api import JSON, Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import (
    PAGE,
    etag,
    expected_revision,
    is_yes,
    json_reply,
    list_of,
    list_reply,
    one_more,
    page_of,
    read_fields,
)
from edge.admin.renaming import change_service
from edge.admin.v1.finding import (
    describing_number,
    file_service,
    find_service,
)
from edge.admin.v1.views import (
    NEW_NAME,
    SERVICE,
    SERVICE_NAME,
    domains_of,
    file_service_view,
    service_view,
)
from edge.catalogue import parts, services
from edge.catalogue.database import Transaction
from edge.catalogue.records import Part, PartKind, Scope, ServiceRecord

_CHANGE = schema.obj(
    optional={
        "name": NEW_NAME,
        "comment": schema.text(0, 4096),
    }
)
_SERVICE = {"service": SERVICE_NAME}


def routes(around: Around) -> list[Route]:
    """Below `/v1/services`."""
    its = _Services(around)
    one = "/v1/services/{service}"
    force = Parameter("force", "Deactivate it first if it is served.", schema.SWITCH)
    return [
        Route(
            "GET",
            "/v1/services",
            its.listing,
            confined=True,
            operation=Operation(
                "list_services",
                "List services, those of the configuration file too",
                "services",
                query=PAGE,
                responses={200: list_of(SERVICE)},
                refusals=(422,),
            ),
        ),
        Route(
            "GET",
            one,
            its.describe,
            service="service",
            operation=Operation(
                "describe_service",
                "Describe a service",
                "services",
                responses={200: SERVICE},
                refusals=(404, 422),
                params=_SERVICE,
            ),
        ),
        Route(
            "PATCH",
            one,
            its.change,
            Scope.DEPLOY,
            service="service",
            operation=Operation(
                "update_service",
                "Rename a service or change its comment",
                "services",
                request={JSON: _CHANGE},
                responses={200: SERVICE},
                refusals=(404, 409, 412, 413, 422, 507),
                params=_SERVICE,
            ),
        ),
        Route(
            "DELETE",
            one,
            its.delete,
            Scope.DEPLOY,
            service="service",
            operation=Operation(
                "delete_service",
                "Delete a service, its versions and the stores it owns",
                "services",
                query=(force,),
                responses={204: None},
                refusals=(404, 409, 422, 507),
                params=_SERVICE,
            ),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Services:
    around: Around

    async def listing(self, call: Call) -> Reply:
        page, only = page_of(call), call.token.service_id

        def work(tx: Transaction) -> list[ServiceRecord]:
            if only:
                record = services.get(tx, only)
                return [record] if record.name > page.after else []
            return services.listing(tx, one_more(page))

        items = [service_view(record) for record in await self.around.catalogue.read(work)]
        if not only:
            items += [
                file_service_view(service)
                for service in self.around.control.file_services()
                if service.name > page.after
            ]
        items.sort(key=_name)
        return list_reply(items, page, dict, _name)

    async def describe(self, call: Call) -> Reply:
        owned = file_service(self.around, call.params["service"])
        if owned is not None:
            return json_reply(file_service_view(owned))
        return await self._description(call.params["service"])

    async def change(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        wanted = await read_fields(call, _CHANGE)
        name, comment = wanted.get("name"), wanted.get("comment")
        await change_service(
            self.around,
            call,
            record,
            name=None if name is None else str(name),
            comment=None if comment is None else str(comment),
            expect=expected_revision(call),
        )
        return await self._description(record.id)

    async def delete(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        await self.around.control.delete_service(call.actor, record.id, force=is_yes(call, "force"))
        self.around.tokens.forget_service(record.id)
        return Reply(204)

    async def _description(self, name_or_id: str) -> Reply:
        def work(tx: Transaction) -> tuple[ServiceRecord, list[Part]]:
            record = services.find(tx, name_or_id)
            number = describing_number(record)
            if not number:
                return record, []
            return record, parts.listing(tx, record.id, number, PartKind.DOMAIN)

        record, domains = await self.around.catalogue.read(work)
        shown = domains_of(record.name, domains, self.around)
        return json_reply(service_view(record, shown, self.around), headers=[etag(record.revision)])


def _name(item: dict[str, object]) -> str:
    return str(item["name"])

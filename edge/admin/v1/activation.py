"""Which version serves: activate, give to some clients, stage, roll back, and what was before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.admin import schema
from edge.admin.api import JSON, Call, Endpoint, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import json_reply, read_fields
from edge.admin.v1.canaries import CANARY_FIELDS, terms_of
from edge.admin.v1.finding import find_service, number_of
from edge.admin.v1.versions import ONE, ONE_PARAMS
from edge.admin.v1.views import (
    ACTIVATED,
    ACTIVATION,
    SERVICE_NAME,
    activated_view,
    activation_view,
)
from edge.catalogue import services
from edge.catalogue.records import Scope
from edge.errors import ApiRefused, Refusal

_SERVICE: Final = "/v1/services/{service}"
_TERMS: Final = schema.obj(optional=CANARY_FIELDS)
_HISTORY: Final = schema.obj({"items": schema.array(ACTIVATION)})
_LIMIT: Final = Parameter(
    "limit", "Most entries, newest first.", schema.number(1, 1000, kind="integer")
)


def routes(around: Around) -> list[Route]:
    """Below one service and its versions."""
    its = _Activation(around)
    return [
        Route(
            "POST",
            ONE + "/activate",
            its.activate,
            Scope.DEPLOY,
            service="service",
            operation=Operation(
                "activate_version",
                "Serve a version, or with `percent` give it to that share of clients",
                "activation",
                request={JSON: _TERMS},
                body_required=False,
                responses={200: ACTIVATED},
                refusals=(404, 409, 413, 422, 507),
                params=ONE_PARAMS,
            ),
        ),
        _plain(ONE + "/deactivate", its.deactivate, "deactivate_version", "Serve it no longer"),
        _plain(
            ONE + "/stage", its.stage, "stage_version", "Load it, to be reached by `invoke` alone"
        ),
        _plain(ONE + "/unstage", its.unstage, "unstage_version", "Unload a staged version"),
        Route(
            "POST",
            _SERVICE + "/rollback",
            its.rollback,
            Scope.DEPLOY,
            service="service",
            operation=Operation(
                "rollback_service",
                "Serve the version that served before; with a canary, end that instead",
                "activation",
                responses={200: ACTIVATED},
                refusals=(404, 409, 422, 507),
                params={"service": SERVICE_NAME},
            ),
        ),
        Route(
            "GET",
            _SERVICE + "/activations",
            its.history,
            service="service",
            operation=Operation(
                "list_activations",
                "Which versions served when, newest first",
                "activation",
                query=(_LIMIT,),
                responses={200: _HISTORY},
                refusals=(404, 409, 422),
                params={"service": SERVICE_NAME},
            ),
        ),
    ]


def _plain(pattern: str, endpoint: Endpoint, name: str, summary: str) -> Route:
    return Route(
        "POST",
        pattern,
        endpoint,
        Scope.DEPLOY,
        service="service",
        operation=Operation(
            name,
            summary,
            "activation",
            responses={204: None},
            refusals=(404, 409, 422, 507),
            params=ONE_PARAMS,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Activation:
    around: Around

    async def activate(self, call: Call) -> Reply:
        wanted = await read_fields(call, _TERMS, optional=True)
        terms = terms_of(wanted)
        record = await find_service(self.around, call)
        number, control = number_of(call), self.around.control
        if terms is None:
            done = await control.activate(call.actor, record.id, number)
        else:
            done = await control.canary(call.actor, record.id, number, **terms.arguments())
        return json_reply(activated_view(done))

    async def deactivate(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        _refuse_other(number_of(call), record.active, "active")
        await self.around.control.deactivate(call.actor, record.id)
        return Reply(204)

    async def stage(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        await self.around.control.stage(call.actor, record.id, number_of(call))
        return Reply(204)

    async def unstage(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        _refuse_other(number_of(call), record.staged, "staged")
        await self.around.control.unstage(call.actor, record.id)
        return Reply(204)

    async def rollback(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        return json_reply(activated_view(await self.around.control.rollback(call.actor, record.id)))

    async def history(self, call: Call) -> Reply:
        record = await find_service(self.around, call)
        limit = int(call.asked("limit", "50"))
        found = await self.around.catalogue.read(
            lambda tx: services.activations(tx, record.id, limit)
        )
        return json_reply({"items": [activation_view(one) for one in found]})


def _refuse_other(number: int, present: int | None, word: str) -> None:
    if present != number:
        there = "none is" if present is None else f"version {present} is"
        raise ApiRefused(Refusal.CONFLICT, f"version {number} is not {word}; {there}")

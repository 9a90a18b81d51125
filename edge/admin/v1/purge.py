"""`/v1/purge`: there is no cache, and that is what it says; it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import json_reply, read_fields
from edge.catalogue import services
from edge.catalogue.records import Scope
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_WANTED: Final = schema.obj(
    optional={
        "service": schema.text(1, 63),
        "keys": schema.array(schema.text(1, 1024), 256),
        "url": schema.text(1, 8192),
        "all": schema.YES_OR_NO,
    }
)
_PURGED: Final = schema.obj(
    {
        "purged": schema.number(kind="integer"),
        "cache": schema.one_of("none"),
        "detail": schema.text(),
    }
)
_DETAIL: Final = (
    "this server keeps no responses: every request runs its service, so nothing is stale"
)


def routes(around: Around) -> list[Route]:
    """One."""

    async def purge(call: Call) -> Reply:
        wanted = await read_fields(call, _WANTED, optional=True)
        service, own = wanted.get("service"), call.token.service_id

        def read(tx: Transaction) -> str:
            return services.find(tx, str(service)).id

        if service is None:
            if own:
                raise ApiRefused(
                    Refusal.FORBIDDEN, "this token is of one service: name it as `service`"
                )
        elif own not in ("", await around.catalogue.read(read)):
            raise ApiRefused(Refusal.FORBIDDEN, "this token is of another service")
        return json_reply({"purged": 0, "cache": "none", "detail": _DETAIL})

    return [
        Route(
            "POST",
            "/v1/purge",
            purge,
            Scope.PURGE,
            confined=True,
            operation=Operation(
                "purge",
                "Drop cached responses, of which there are none",
                "purge",
                request={"application/json": _WANTED},
                body_required=False,
                responses={200: _PURGED},
                refusals=(404, 422),
            ),
        )
    ]

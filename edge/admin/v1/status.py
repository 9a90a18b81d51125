"""`GET /v1/status`: the server at this instant, as probes and people ask for it."""

from __future__ import annotations

from edge.admin.api import Call, Operation, Reply, Route
from edge.admin.app import status_document
from edge.admin.around import Around
from edge.admin.documents import json_reply
from edge.admin.schema import FREE


def routes(around: Around) -> list[Route]:
    """One."""

    async def status(call: Call) -> Reply:
        return json_reply(status_document(around.report()))

    return [
        Route(
            "GET",
            "/v1/status",
            status,
            operation=Operation(
                "status",
                "Workers, services, and whether all is well",
                "server",
                responses={200: FREE},
                refusals=(422,),
            ),
        )
    ]

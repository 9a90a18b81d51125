"""The server itself: its nodes (there is one) and the settings in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import json_reply
from edge.catalogue.records import Scope

_NODES: Final = schema.obj({"items": schema.array(schema.FREE)})


def routes(around: Around) -> list[Route]:
    """Two."""
    its = _Node(around)
    return [
        Route(
            "GET",
            "/v1/nodes",
            its.nodes,
            operation=Operation(
                "list_nodes",
                "This node, its workers and what it serves",
                "server",
                responses={200: _NODES},
                refusals=(422,),
            ),
        ),
        Route(
            "GET",
            "/v1/config",
            its.config,
            Scope.ADMIN,
            operation=Operation(
                "read_config",
                "The settings in force, secrets masked; durations in seconds, sizes in bytes",
                "server",
                responses={200: schema.FREE},
                refusals=(422,),
            ),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Node:
    around: Around

    async def nodes(self, call: Call) -> Reply:
        return json_reply({"items": list(self.around.control.nodes())})

    async def config(self, call: Call) -> Reply:
        return json_reply(self.around.control.configuration())

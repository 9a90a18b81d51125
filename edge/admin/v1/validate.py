"""`POST /v1/validate`: what a program is and needs, and whether it could be served.

Stores nothing.  A program with problems is a 200 with `ok: false`: to look at it is what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.admin import schema
from edge.admin.api import Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.control import no_progress
from edge.admin.documents import json_reply
from edge.admin.v1.settings import module_needs
from edge.admin.v1.uploads import FORMS, PACKAGE_MARGIN, look, unpack
from edge.admin.v1.views import INSPECTION, inspection_view
from edge.catalogue.records import Scope

_TRAP = Parameter(
    "unknown_imports",
    "As in the configuration: whether imports that this server does not have are a problem.",
    schema.one_of("refuse", "trap"),
)


def routes(around: Around) -> list[Route]:
    """One."""
    return [
        Route(
            "POST",
            "/v1/validate",
            _Validate(around).validate,
            Scope.DEPLOY,  # it takes a compiler's time
            confined=True,
            max_body=around.settings.admin.package_bytes + PACKAGE_MARGIN,
            operation=Operation(
                "validate_program",
                "Compile a program and compare it with what this server has and allows",
                "services",
                query=(_TRAP,),
                request=FORMS,
                responses={200: INSPECTION},
                refusals=(413, 422),
            ),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Validate:
    around: Around

    async def validate(self, call: Call) -> Reply:
        settings = {"unknown_imports": call.asked("unknown_imports", "refuse")}
        needs = module_needs(self.around, "program", settings)
        upload = await unpack(self.around, call, await call.body.read(), no_progress)
        inspection = await look(self.around, upload, no_progress, needs, label="validate")
        return json_reply(inspection_view(inspection, upload.package.language))

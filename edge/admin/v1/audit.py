"""`/v1/audit`: every change of the catalogue, newest first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edge.admin import schema
from edge.admin.api import Call, Operation, Parameter, Reply, Route
from edge.admin.around import Around
from edge.admin.documents import PAGE, list_of, list_reply, one_more, page_of
from edge.admin.store_calls import timestamp
from edge.catalogue import audit
from edge.catalogue.records import AuditRecord, Scope

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_RECORD: Final = schema.obj(
    {
        "id": schema.number(kind="integer"),
        "at": schema.text(),
        "actor": schema.text(about="Name of the token."),
        "token_id": schema.text(),
        "remote": schema.text(about="Address of the client."),
        "request_id": schema.text(),
        "action": schema.text(about="`version.activate`, `store.create` ..."),
        "subject": schema.text(about="`services/ID/versions/3` ..."),
        "before": schema.ANY,
        "after": schema.ANY,
    }
)


def routes(around: Around) -> list[Route]:
    """One."""

    async def listing(call: Call) -> Reply:
        page = page_of(call)

        def read(tx: Transaction) -> Sequence[AuditRecord]:
            return audit.listing(
                tx,
                one_more(page),
                subject_prefix=call.asked("subject"),
                actor=call.asked("actor"),
            )

        found = await around.catalogue.read(read)
        return await asyncio.to_thread(
            list_reply, found, page, _facts, lambda record: str(record.id)
        )

    return [
        Route(
            "GET",
            "/v1/audit",
            listing,
            Scope.ADMIN,
            operation=Operation(
                "list_audit",
                "List changes, newest first",
                "audit",
                (
                    *PAGE,
                    Parameter("subject", "What subjects begin with.", schema.text(0, 512)),
                    Parameter("actor", "Name of the token that did it.", schema.text(0, 255)),
                ),
                responses={200: list_of(_RECORD)},
            ),
        )
    ]


def _facts(record: AuditRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "at": timestamp(record.at),
        "actor": record.actor,
        "token_id": record.token_id,
        "remote": record.remote,
        "request_id": record.request_id,
        "action": record.action,
        "subject": record.subject,
        "before": record.before,
        "after": record.after,
    }

"""Changing a service, for both APIs: what is served goes by a new name at once, or keeps the old.

A name is a route as well, below `deploy.domain`, so workers and their conflicts decide about it.
"""

from __future__ import annotations

from edge.admin.api import Call
from edge.admin.around import Around
from edge.admin.v1.finding import refuse_file_service
from edge.catalogue import services
from edge.catalogue.records import ServiceRecord


async def change_service(
    around: Around,
    call: Call,
    record: ServiceRecord,
    *,
    name: str | None,
    comment: str | None,
    expect: int | None = None,
) -> ServiceRecord:
    """`record` as it is afterwards; what is None stays.

    ApiRefused as `services.update` and `ControlPlane.refresh`, and OWNED_BY_FILE; then all stays.
    """
    if name is not None:
        refuse_file_service(around, name)
    changed = await around.catalogue.write(
        call.actor,
        lambda tx: services.update(tx, record.id, name=name, comment=comment, expect=expect),
    )
    if changed.name == record.name:
        return changed
    try:
        await around.control.refresh(call.actor, record.id)
    except BaseException:
        await around.catalogue.write(
            call.actor, lambda tx: services.update(tx, record.id, name=record.name)
        )
        raise
    return changed

"""Room for the modules of one service, so that no tenant fills the disk with its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.catalogue import services
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


def make_room(tx: Transaction, service: str, number: int) -> None:
    """Delete what was before version `number`, which has got a module, until all modules fit.

    The oldest go first; none that is in use goes, nor one whose module stays anyway.  Where that is
    not enough: ApiRefused QUOTA, unless its module was there before and takes no room.
    """
    found, most = services.get(tx, service), tx.limits.service_bytes
    rows = tx.all(
        "SELECT number, sha256, size FROM version JOIN package ON package.id = version.package "
        "WHERE service = ? ORDER BY number",
        service,
    )
    sizes = {row["sha256"]: row["size"] for row in rows}
    total = sum(sizes.values())
    if total <= most:
        return
    used = services.in_use(tx, found)
    stay = {row["sha256"] for row in rows if row["number"] >= number or row["number"] in used}
    holders: dict[str, list[int]] = {}  # of modules that may go; those used last are the last
    for row in reversed(rows):
        if row["sha256"] not in stay:
            holders.setdefault(row["sha256"], []).append(row["number"])
    (new,) = (row["sha256"] for row in rows if row["number"] == number)
    if any(row["sha256"] == new and row["number"] != number for row in rows):
        return
    gone: list[int] = []
    for sha256 in reversed(holders):
        if total <= most:
            break
        total -= sizes[sha256]
        gone += holders[sha256]
    if total > most:
        raise ApiRefused(
            Refusal.QUOTA,
            f"the programs of {found.name} would take {total} bytes even without those that are "
            f"not in use, and deploy.service_bytes is {most}; delete versions, or raise it",
        )
    services.remove_versions(tx, service, gone)

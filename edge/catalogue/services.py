"""Services: their names, and which of their versions are served."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge.catalogue.checks import expect_revision, read, read_comment
from edge.catalogue.ids import new_id
from edge.catalogue.records import Activation, Canary, Page, ServiceRecord
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_service_name

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_SELECT = (
    "SELECT service.*, coalesce((SELECT max(number) FROM version WHERE version.service = "
    "service.id), 0) AS latest FROM service "
)
ACTIVATIONS = 1000  # that are remembered of one service


def create(tx: Transaction, name: str, comment: str = "") -> ServiceRecord:
    """A service without a version.  ApiRefused CONFLICT, INVALID, LIMIT."""
    read("name", name, read_service_name)
    read_comment(comment)
    if by_name(tx, name) is not None:
        raise _taken(name)
    if tx.count("SELECT count(*) FROM service") >= tx.limits.services:
        raise ApiRefused(
            Refusal.LIMIT,
            f"there are {tx.limits.services} services; delete one, or raise deploy.services",
        )
    made = new_id()
    tx.run(
        "INSERT INTO service (id, name, comment, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
        made, name, comment, tx.now, tx.now,
    )  # fmt: skip
    tx.record("service.create", f"services/{name}", None, {"id": made, "comment": comment})
    return get(tx, made)


def get(tx: Transaction, service: str) -> ServiceRecord:
    """By id.  ApiRefused NOT_FOUND."""
    row = tx.one(_SELECT + "WHERE id = ?", service)
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no service with the id {service!r}")
    return _service(row)


def find(tx: Transaction, name_or_id: str) -> ServiceRecord:
    """By id or by name.  ApiRefused NOT_FOUND.

    Ids come first: whoever names a service like the id of another does not get its place.
    """
    row = tx.one(_SELECT + "WHERE id = ?", name_or_id)
    if row is None:
        row = tx.one(_SELECT + "WHERE name = ?", name_or_id)
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no service {name_or_id!r}")
    return _service(row)


def by_name(tx: Transaction, name: str) -> ServiceRecord | None:
    row = tx.one(_SELECT + "WHERE name = ?", name)
    return None if row is None else _service(row)


def listing(tx: Transaction, page: Page) -> list[ServiceRecord]:
    """By name."""
    rows = tx.all(_SELECT + "WHERE name > ? ORDER BY name LIMIT ?", page.after, page.limit)
    return [_service(row) for row in rows]


def served(tx: Transaction) -> list[ServiceRecord]:
    """All of which a version is active, staged or a canary, by name."""
    rows = tx.all(
        _SELECT + "WHERE active IS NOT NULL OR staged IS NOT NULL OR canary IS NOT NULL "
        "ORDER BY name"
    )
    return [_service(row) for row in rows]


def update(
    tx: Transaction,
    service: str,
    *,
    name: str | None = None,
    comment: str | None = None,
    expect: int | None = None,
) -> ServiceRecord:
    """Change what is given.  ApiRefused NOT_FOUND, CONFLICT, INVALID, PRECONDITION_FAILED."""
    found = get(tx, service)
    expect_revision(f"the service {found.name}", expect, found.revision)
    new_name = found.name if name is None else read("name", name, read_service_name)
    new_comment = found.comment if comment is None else read_comment(comment)
    if (new_name, new_comment) == (found.name, found.comment):
        return found
    if new_name != found.name and by_name(tx, new_name) is not None:
        raise _taken(new_name)
    tx.run("UPDATE service SET name = ?, comment = ? WHERE id = ?", new_name, new_comment, service)
    tx.record(
        "service.update",
        f"services/{found.name}",
        {"name": found.name, "comment": found.comment},
        {"name": new_name, "comment": new_comment},
    )
    return _touched(tx, service)


def delete(tx: Transaction, service: str) -> None:
    """With its versions, tokens, and the stores that it owns.

    ApiRefused NOT_FOUND; VERSION_ACTIVE while any version is served.  Ask `stores.owned` first for
    KV stores, whose data lies elsewhere.
    """
    found = get(tx, service)
    if found.active or found.staged or found.canary:
        raise ApiRefused(
            Refusal.VERSION_ACTIVE, f"the service {found.name} is served; deactivate it first"
        )
    packages = tx.all(
        "SELECT DISTINCT package FROM version WHERE service = ? AND package IS NOT NULL", service
    )
    tx.run("DELETE FROM service WHERE id = ?", service)
    for row in packages:
        forget_package(tx, row["package"])
    tx.record(
        "service.delete",
        f"services/{found.name}",
        {"id": service, "comment": found.comment, "latest": found.latest},
        None,
    )


def set_active(tx: Transaction, service: str, number: int | None, *, reason: str) -> ServiceRecord:
    """Remember which version serves; it is locked from now on.  A canary ends if it was it.

    None deactivates, and ends a canary as well.  ApiRefused NOT_FOUND, NO_PACKAGE.
    """
    found = get(tx, service)
    if number is not None:
        _lock(tx, found, number)
    canary = found.canary.number if found.canary else None
    if canary is not None and number in (None, canary):
        _clear_canary(tx, service)
    tx.run("UPDATE service SET active = ? WHERE id = ?", number, service)
    _remember(tx, service, number, reason, whole=True)
    tx.record(
        "service.deactivate" if number is None else "version.activate",
        f"services/{found.name}" + ("" if number is None else f"/versions/{number}"),
        {"active": found.active, "canary": canary},
        {"active": number, "reason": reason},
    )
    return _touched(tx, service)


def set_staged(tx: Transaction, service: str, number: int | None) -> ServiceRecord:
    """Which version can be invoked beside the active one; it is locked.  NOT_FOUND, NO_PACKAGE."""
    found = get(tx, service)
    if number == found.staged:
        return found
    if number is not None:
        _lock(tx, found, number)
    tx.run("UPDATE service SET staged = ? WHERE id = ?", number, service)
    tx.record(
        "version.unstage" if number is None else "version.stage",
        f"services/{found.name}/versions/{found.staged if number is None else number}",
        {"staged": found.staged},
        {"staged": number},
    )
    return _touched(tx, service)


def set_canary(
    tx: Transaction, service: str, canary: Canary | None, *, reason: str = ""
) -> ServiceRecord:
    """Give a share of the clients another version, or none.  NOT_FOUND, NO_PACKAGE, INVALID."""
    found = get(tx, service)
    if canary is None:
        if found.canary is None:
            return found
        _clear_canary(tx, service)
        _remember(tx, service, found.active, reason or "canary_rollback", whole=False)
    else:
        if found.active is None or found.active == canary.number:
            raise ApiRefused(
                Refusal.INVALID,
                f"a canary stands beside another active version; {found.name} has "
                + ("none active" if found.active is None else f"{found.active} active"),
            )
        if not 1 <= canary.share <= 9999:
            raise ApiRefused(Refusal.INVALID, "a canary gets more than none and less than all")
        _lock(tx, found, canary.number)
        tx.run(
            "UPDATE service SET canary = ?, canary_share = ?, canary_since = ?, "
            "canary_max_error_rate = ?, canary_max_limit_rate = ?, canary_min_requests = ? "
            "WHERE id = ?",
            canary.number, canary.share, canary.since, canary.max_error_rate,
            canary.max_limit_rate, canary.min_requests, service,
        )  # fmt: skip
        if found.canary is None or found.canary.number != canary.number:
            _remember(tx, service, canary.number, reason or "canary", whole=False)
    tx.record(
        "service.canary",
        f"services/{found.name}",
        _canary_facts(found.canary),
        _canary_facts(canary) or {"reason": reason},
    )
    return _touched(tx, service)


def activations(tx: Transaction, service: str, limit: int = 50) -> list[Activation]:
    """Newest first."""
    rows = tx.all(
        "SELECT * FROM activation WHERE service = ? ORDER BY id DESC LIMIT ?", service, limit
    )
    return [
        Activation(row["service"], row["number"], row["at"], row["actor"], row["reason"])
        for row in rows
    ]


def previous_active(tx: Transaction, service: str) -> int | None:
    """The last other version that served all clients and still exists."""
    row = tx.one(
        "SELECT number FROM activation JOIN version USING (service, number) WHERE service = ?1 "
        "AND whole AND number IS NOT (SELECT active FROM service WHERE id = ?1) "
        "ORDER BY activation.id DESC LIMIT 1",
        service,
    )
    return None if row is None else int(row["number"])


def prune(tx: Transaction, service: str, keep: int) -> list[str]:
    """Delete old versions beyond the newest `keep`, but none that is served or served before.

    Returns the SHA-256 of modules that no version of any service has any more.
    """
    used = in_use(tx, get(tx, service))
    rows = tx.all(
        "SELECT number FROM version WHERE service = ? ORDER BY number DESC LIMIT -1 OFFSET ?",
        service, keep,
    )  # fmt: skip
    return remove_versions(tx, service, [n for (n,) in rows if n not in used])


def in_use(tx: Transaction, found: ServiceRecord) -> set[int | None]:
    """Versions that are served, or were before, which is what a rollback returns to."""
    canary = found.canary.number if found.canary else None
    return {found.active, found.staged, canary, previous_active(tx, found.id)}


def remove_versions(tx: Transaction, service: str, numbers: Sequence[int]) -> list[str]:
    """Delete old versions, in use or not.  Returns the modules that nothing has any more."""
    if not numbers:
        return []
    modules = set()
    for number in numbers:
        row = tx.one(
            "DELETE FROM version WHERE service = ? AND number = ? RETURNING package",
            service, number,
        )  # fmt: skip
        if row is not None and row["package"] is not None:
            modules |= forget_package(tx, row["package"])
    name = get(tx, service).name
    tx.record("version.prune", f"services/{name}", {"versions": sorted(numbers)}, None)
    return sorted(modules)


def forget_package(tx: Transaction, package: int) -> set[str]:
    """Delete a package that no version has any more; its module, where no other package has it."""
    row = tx.one("SELECT sha256 FROM package WHERE id = ?", package)
    gone = tx.run(
        "DELETE FROM package WHERE id = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM version WHERE package = ?1)",
        package,
    )
    if row is None or not gone:
        return set()
    modules = unreferenced(tx, {row["sha256"]})
    tx.orphans |= modules
    return modules


def unreferenced(tx: Transaction, modules: set[str]) -> set[str]:
    """Those that no version has."""
    return {
        sha256
        for sha256 in modules
        if tx.one("SELECT 1 FROM package WHERE sha256 = ?", sha256) is None
    }


def referenced_packages(tx: Transaction) -> set[str]:
    """SHA-256 of the modules of all versions."""
    return {row["sha256"] for row in tx.all("SELECT DISTINCT sha256 FROM package")}


def _lock(tx: Transaction, service: ServiceRecord, number: int) -> None:
    row = tx.one(
        "SELECT locked, package FROM version WHERE service = ? AND number = ?", service.id, number
    )
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"the service {service.name} has no version {number}")
    if row["package"] is None:
        raise ApiRefused(
            Refusal.NO_PACKAGE, f"version {number} of {service.name} has no package; upload one"
        )
    if not row["locked"]:
        tx.run(
            "UPDATE version SET locked = 1, updated_at = ?, revision = revision + 1 "
            "WHERE service = ? AND number = ?",
            tx.now, service.id, number,
        )  # fmt: skip


def _clear_canary(tx: Transaction, service: str) -> None:
    tx.run(
        "UPDATE service SET canary = NULL, canary_share = NULL, canary_since = NULL, "
        "canary_max_error_rate = NULL, canary_max_limit_rate = NULL, canary_min_requests = NULL "
        "WHERE id = ?",
        service,
    )


def _remember(
    tx: Transaction, service: str, number: int | None, reason: str, *, whole: bool
) -> None:
    tx.run(
        "INSERT INTO activation (service, number, whole, at, actor, reason) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        service, number, whole, tx.now, tx.actor.name, reason,
    )  # fmt: skip
    tx.run(
        "DELETE FROM activation WHERE service = ?1 AND id <= (SELECT id FROM activation "
        "WHERE service = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        service, ACTIVATIONS,
    )  # fmt: skip


def _touched(tx: Transaction, service: str) -> ServiceRecord:
    tx.run(
        "UPDATE service SET revision = revision + 1, updated_at = ? WHERE id = ?", tx.now, service
    )
    return get(tx, service)


def _taken(name: str) -> ApiRefused:
    return ApiRefused(Refusal.CONFLICT, f"there is a service {name!r} already")


def _canary_facts(canary: Canary | None) -> dict[str, object] | None:
    if canary is None:
        return None
    return {
        "number": canary.number,
        "share": canary.share,
        "max_error_rate": canary.max_error_rate,
        "max_limit_rate": canary.max_limit_rate,
        "min_requests": canary.min_requests,
    }


def _service(row: sqlite3.Row) -> ServiceRecord:
    canary = None
    if row["canary"] is not None:
        canary = Canary(
            number=row["canary"],
            share=row["canary_share"],
            since=row["canary_since"],
            max_error_rate=row["canary_max_error_rate"],
            max_limit_rate=row["canary_max_limit_rate"],
            min_requests=row["canary_min_requests"],
        )
    return ServiceRecord(
        id=row["id"],
        name=row["name"],
        comment=row["comment"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        active=row["active"],
        staged=row["staged"],
        canary=canary,
        latest=row["latest"],
    )

"""Versions of a service: drafts that change, and locked ones that never do again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge.catalogue import part_rows, services
from edge.catalogue.checks import expect_revision, from_json, read_comment, read_text, to_json
from edge.catalogue.records import Package, Page, PartKind, VersionRecord
from edge.catalogue.room import make_room
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

_SELECT = (
    "SELECT version.*, service.active, service.staged, service.canary, package.sha256, "
    "package.size, package.name, package.description, package.authors, package.language, "
    "package.archive_sha512, package.files_hash FROM version "
    "JOIN service ON service.id = version.service "
    "LEFT JOIN package ON package.id = version.package "
)
_LARGEST = 2**62
_DESCRIPTION_CHARS = 64 * 1024
_MOST_AUTHORS = 100


def create(
    tx: Transaction, service: str, *, clone_of: int | None = None, comment: str = ""
) -> VersionRecord:
    """A draft with the next number; a clone has the parts (with their ids), settings and package.

    Where a service has more than `keep_versions` besides those in use, the oldest go.
    ApiRefused NOT_FOUND, INVALID.
    """
    found = services.get(tx, service)
    read_comment(comment)
    if clone_of is not None:
        get(tx, service, clone_of)
    row = tx.one(
        "UPDATE service SET numbers = numbers + 1, revision = revision + 1, updated_at = ? "
        "WHERE id = ? RETURNING numbers",
        tx.now, service,
    )  # fmt: skip
    assert row is not None
    number = int(row["numbers"])
    tx.run(
        "INSERT INTO version (service, number, comment, package, settings, created_at, updated_at) "
        "SELECT ?1, ?2, ?3, (SELECT package FROM version WHERE service = ?1 AND number = ?4), "
        "coalesce((SELECT settings FROM version WHERE service = ?1 AND number = ?4), '{}'), ?5, ?5",
        service, number, comment, clone_of, tx.now,
    )  # fmt: skip
    if clone_of is not None:
        part_rows.copy(tx, service, clone_of, number)
    tx.record(
        "version.create",
        _subject(found.name, number),
        None,
        {"clone_of": clone_of, "comment": comment},
    )
    services.prune(tx, service, tx.limits.keep_versions)
    return get(tx, service, number)


def get(tx: Transaction, service: str, number: int) -> VersionRecord:
    """ApiRefused NOT_FOUND."""
    row = tx.one(
        _SELECT + "WHERE version.service = ? AND version.number = ?",
        service, min(number, _LARGEST),
    )  # fmt: skip
    if row is None:
        name = services.get(tx, service).name
        raise ApiRefused(Refusal.NOT_FOUND, f"the service {name} has no version {number}")
    return _version(row)


def listing(tx: Transaction, service: str, page: Page) -> list[VersionRecord]:
    """By number, the lowest first; `page.after` is a number as text."""
    after = int(page.after) if page.after.isascii() and page.after.isdigit() else 0
    rows = tx.all(
        _SELECT + "WHERE version.service = ? AND version.number > ? "
        "ORDER BY version.number LIMIT ?",
        service, min(after, _LARGEST), page.limit,
    )  # fmt: skip
    return [_version(row) for row in rows]


def latest(tx: Transaction, service: str) -> VersionRecord | None:
    """The one with the highest number."""
    row = tx.one(
        _SELECT + "WHERE version.service = ? ORDER BY version.number DESC LIMIT 1", service
    )
    return None if row is None else _version(row)


def set_comment(
    tx: Transaction, service: str, number: int, comment: str, *, expect: int | None = None
) -> VersionRecord:
    """ApiRefused NOT_FOUND, VERSION_LOCKED, INVALID, PRECONDITION_FAILED; so for all below."""
    found = changeable(tx, service, number, expect)
    read_comment(comment)
    tx.run(
        "UPDATE version SET comment = ? WHERE service = ? AND number = ?", comment, service, number
    )
    return _changed(tx, found, "version.comment", {"comment": found.comment}, {"comment": comment})


def set_package(
    tx: Transaction, service: str, number: int, package: Package, *, expect: int | None = None
) -> VersionRecord:
    """Give it a program, whose module must lie in the package store before.

    Where the service's modules take more than `service_bytes`, the oldest versions go; QUOTA
    where that is not enough.
    """
    found = changeable(tx, service, number, expect)
    read_text("the name of the package", package.name, 255, least=0)
    read_text("the language of the package", package.language, 255, least=0)
    if len(package.description) > _DESCRIPTION_CHARS:
        raise ApiRefused(
            Refusal.INVALID, f"the package's description is over {_DESCRIPTION_CHARS} characters"
        )
    if len(package.authors) > _MOST_AUTHORS:
        raise ApiRefused(Refusal.INVALID, f"the package has more than {_MOST_AUTHORS} authors")
    for author in package.authors:
        read_text("an author of the package", author, 255, least=0)
    before = tx.one("SELECT package FROM version WHERE service = ? AND number = ?", service, number)
    assert before is not None
    made = tx.db.execute(
        "INSERT INTO package (sha256, size, name, description, authors, language, archive_sha512, "
        "files_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (package.sha256, package.size, package.name,
         package.description.encode(errors="replace").decode(), json.dumps(package.authors),
         package.language, package.archive_sha512, package.files_hash),
    ).lastrowid  # fmt: skip
    tx.run("UPDATE version SET package = ? WHERE service = ? AND number = ?", made, service, number)
    if before["package"] is not None:
        services.forget_package(tx, before["package"])
    make_room(tx, service, number)
    return _changed(
        tx,
        found,
        "version.package",
        {"sha256": found.package.sha256} if found.package else None,
        {"sha256": package.sha256, "size": package.size},
    )


def set_settings(
    tx: Transaction,
    service: str,
    number: int,
    settings: Mapping[str, object],
    *,
    expect: int | None = None,
) -> VersionRecord:
    """Replace the settings."""
    found = changeable(tx, service, number, expect)
    tx.run(
        "UPDATE version SET settings = ? WHERE service = ? AND number = ?",
        to_json("the settings", settings), service, number,
    )  # fmt: skip
    return _changed(tx, found, "version.settings", dict(found.settings), dict(settings))


def replace_parts(
    tx: Transaction,
    service: str,
    number: int,
    kind: PartKind,
    wanted: Sequence[tuple[str, Mapping[str, object]]],
    *,
    expect: int | None = None,
) -> VersionRecord:
    """All parts of a kind; those that keep their name keep their id.  CONFLICT, LIMIT as well."""
    found = changeable(tx, service, number, expect)
    before = part_rows.replace(tx, service, number, kind, wanted)
    return _changed(
        tx,
        found,
        f"{kind.value}.replace",
        {part.name: dict(part_rows.told(kind, part.data)) for part in before},
        {name: dict(part_rows.told(kind, data)) for name, data in wanted},
    )


def lock(tx: Transaction, service: str, number: int, *, expect: int | None = None) -> VersionRecord:
    """It does not change again.  Of a locked one: nothing.  NOT_FOUND, PRECONDITION_FAILED."""
    found = get(tx, service, number)
    expect_revision(f"version {number}", expect, found.revision)
    if found.locked:
        return found
    tx.run("UPDATE version SET locked = 1 WHERE service = ? AND number = ?", service, number)
    return _changed(tx, found, "version.lock", {"locked": False}, {"locked": True})


def delete(tx: Transaction, service: str, number: int, *, expect: int | None = None) -> None:
    """Locked or not; its number is not given out again.  VERSION_ACTIVE while it is served."""
    found = get(tx, service, number)
    expect_revision(f"version {number}", expect, found.revision)
    owner = services.get(tx, service)
    canary = owner.canary.number if owner.canary else None
    if number in (owner.active, owner.staged, canary):
        raise ApiRefused(
            Refusal.VERSION_ACTIVE, f"version {number} of {owner.name} is served; end that first"
        )
    row = tx.one(
        "DELETE FROM version WHERE service = ? AND number = ? RETURNING package", service, number
    )
    if row is not None and row["package"] is not None:
        services.forget_package(tx, row["package"])
    tx.record(
        "version.delete",
        _subject(owner.name, number),
        {"locked": found.locked, "sha256": found.package.sha256 if found.package else None},
        None,
    )


def changeable(
    tx: Transaction, service: str, number: int, expect: int | None = None
) -> VersionRecord:
    """A draft of that revision.  NOT_FOUND, VERSION_LOCKED, PRECONDITION_FAILED."""
    found = get(tx, service, number)
    if found.locked:
        raise ApiRefused(
            Refusal.VERSION_LOCKED,
            f"version {number} is locked and does not change; clone it and change the clone",
        )
    expect_revision(f"version {number}", expect, found.revision)
    return found


def touch(tx: Transaction, service: str, number: int) -> None:
    """It has changed."""
    tx.run(
        "UPDATE version SET revision = revision + 1, updated_at = ? "
        "WHERE service = ? AND number = ?",
        tx.now, service, number,
    )  # fmt: skip


def subject(tx: Transaction, service: str, number: int) -> str:
    """What the audit log calls it."""
    return _subject(services.get(tx, service).name, number)


def _subject(name: str, number: int) -> str:
    return f"services/{name}/versions/{number}"


def _changed(
    tx: Transaction, found: VersionRecord, action: str, before: object, after: object
) -> VersionRecord:
    service, number = found.service_id, found.number
    touch(tx, service, number)
    tx.record(action, subject(tx, service, number), before, after)
    return get(tx, service, number)


def _version(row: sqlite3.Row) -> VersionRecord:
    package = None
    if row["package"] is not None:
        package = Package(
            sha256=row["sha256"],
            size=row["size"],
            name=row["name"],
            description=row["description"],
            authors=tuple(json.loads(row["authors"])),
            language=row["language"],
            archive_sha512=row["archive_sha512"],
            files_hash=row["files_hash"],
        )
    return VersionRecord(
        service_id=row["service"],
        number=row["number"],
        locked=bool(row["locked"]),
        active=row["number"] == row["active"],
        staged=row["number"] == row["staged"],
        comment=row["comment"],
        package=package,
        settings=from_json(row["settings"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
    )

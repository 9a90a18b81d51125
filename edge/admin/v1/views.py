"""What services, versions and activations look like in `/v1`, and the schemas that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from edge.admin import schema
from edge.admin.around import Around
from edge.admin.control import Activated, FileService, Inspection
from edge.catalogue.records import (
    Activation,
    Canary,
    Package,
    Part,
    PartKind,
    ServiceRecord,
    VersionRecord,
)
from edge.model.names import DEFAULT_HOST, read_one_host

WHOLE: Final = 10_000  # shares are clients in so many
_NAME_RULE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_NAME_WORDS: Final = "letters, digits, `.`, `_` and `-`, a letter or digit first"
NEW_NAME: Final = schema.text(1, 63, _NAME_RULE, f"Name of the service: {_NAME_WORDS}.")
SERVICE_NAME: Final = schema.text(
    1, 63, _NAME_RULE, f"Name of the service ({_NAME_WORDS}), or its id."
)
NUMBER: Final = schema.number(1, 2**31 - 1, kind="integer", about="Number of a version.")
WHEN: Final = schema.text(about="ISO 8601, UTC.")
WORDS: Final = schema.array(schema.text())
_INTEGER: Final = schema.number(kind="integer")

CANARY: Final = schema.obj(
    {
        "version": NUMBER,
        "percent": schema.number(),
        "since": WHEN,
        "max_error_rate": schema.number(),
        "max_limit_rate": schema.number(),
        "min_requests": _INTEGER,
    }
)
SERVICE: Final = schema.obj(
    {
        "name": schema.text(),
        "owner": schema.one_of("api", "file"),
        "active": schema.maybe(NUMBER),
    },
    {
        "id": schema.text(),
        "comment": schema.text(),
        "staged": schema.maybe(NUMBER),
        "canary": schema.maybe(CANARY),
        "latest": _INTEGER,
        "created_at": WHEN,
        "updated_at": WHEN,
        "revision": _INTEGER,
        "domains": WORDS,
        "url": schema.maybe(schema.text()),
        "sha256": schema.text(),
        "state": schema.text(),
        "reason": schema.text(),
    },
)
PACKAGE: Final = schema.obj(
    {
        "sha256": schema.text(),
        "size": _INTEGER,
        "name": schema.text(),
        "description": schema.text(),
        "authors": WORDS,
        "language": schema.text(),
        "archive_sha512": schema.text(),
        "files_hash": schema.text(),
    }
)
VERSION: Final = schema.obj(
    {
        "version": NUMBER,
        "locked": schema.YES_OR_NO,
        "active": schema.YES_OR_NO,
        "staged": schema.YES_OR_NO,
        "comment": schema.text(),
        "package": schema.maybe(PACKAGE),
        "created_at": WHEN,
        "updated_at": WHEN,
        "revision": _INTEGER,
    },
    {"loaded": schema.YES_OR_NO},
)
ACTIVATION: Final = schema.obj(
    {
        "version": schema.maybe(NUMBER),
        "at": WHEN,
        "actor": schema.text(),
        "reason": schema.text(),
    }
)
ACTIVATED: Final = schema.obj(
    {
        "service": schema.text(),
        "version": NUMBER,
        "previous": schema.maybe(NUMBER),
        "percent": schema.number(),
        "activation_ms": schema.number(),
        "generation": _INTEGER,
        "warnings": WORDS,
    }
)
INSPECTION: Final = schema.obj(
    {
        "ok": schema.YES_OR_NO,
        "sha256": schema.text(),
        "size": _INTEGER,
        "language": schema.text(),
        "imports": WORDS,
        "unknown_imports": WORDS,
        "exports": WORDS,
        "memory_bytes": _INTEGER,
        "memory_max_bytes": schema.maybe(_INTEGER),
        "table_elements": _INTEGER,
        "compile_ms": schema.number(),
        "code_bytes": _INTEGER,
        "problems": WORDS,
        "warnings": WORDS,
    }
)


def service_view(
    record: ServiceRecord, domains: Sequence[str] | None = None, around: Around | None = None
) -> dict[str, object]:
    """A service of the catalogue; with the domains of the version it is described by."""
    facts: dict[str, object] = {
        "name": record.name,
        "id": record.id,
        "owner": "api",
        "comment": record.comment,
        "active": record.active,
        "staged": record.staged,
        "canary": None if record.canary is None else canary_view(record.canary),
        "latest": record.latest,
        "created_at": when(record.created_at),
        "updated_at": when(record.updated_at),
        "revision": record.revision,
    }
    if domains is not None and around is not None:
        facts["domains"] = list(domains)
        facts["url"] = url_of(domains, around)
    return facts


def file_service_view(service: FileService) -> dict[str, object]:
    """A service of the configuration file."""
    return {
        "name": service.name,
        "owner": "file",
        "active": service.number,
        "sha256": service.sha256,
        "state": service.state,
        "reason": service.reason,
        "domains": list(service.routes),
    }


def canary_view(canary: Canary) -> dict[str, object]:
    """A canary; `percent` of clients."""
    return {
        "version": canary.number,
        "percent": canary.share * 100 / WHOLE,
        "since": when(canary.since),
        "max_error_rate": canary.max_error_rate,
        "max_limit_rate": canary.max_limit_rate,
        "min_requests": canary.min_requests,
    }


def version_view(record: VersionRecord, *, loaded: bool | None = None) -> dict[str, object]:
    """A version; `loaded`: whether workers have it."""
    facts: dict[str, object] = {
        "version": record.number,
        "locked": record.locked,
        "active": record.active,
        "staged": record.staged,
        "comment": record.comment,
        "package": None if record.package is None else package_view(record.package),
        "created_at": when(record.created_at),
        "updated_at": when(record.updated_at),
        "revision": record.revision,
    }
    if loaded is not None:
        facts["loaded"] = loaded
    return facts


def package_view(package: Package) -> dict[str, object]:
    """What was uploaded."""
    return {
        "sha256": package.sha256,
        "size": package.size,
        "name": package.name,
        "description": package.description,
        "authors": list(package.authors),
        "language": package.language,
        "archive_sha512": package.archive_sha512,
        "files_hash": package.files_hash,
    }


def activation_view(activation: Activation) -> dict[str, object]:
    """One entry of a service's history."""
    return {
        "version": activation.number,
        "at": when(activation.at),
        "actor": activation.actor,
        "reason": activation.reason,
    }


def activated_view(activated: Activated) -> dict[str, object]:
    """What has just begun to serve."""
    return {
        "service": activated.service,
        "version": activated.number,
        "previous": activated.previous,
        "percent": activated.share * 100 / WHOLE,
        "activation_ms": milliseconds(activated.seconds),
        "generation": activated.generation,
        "warnings": list(activated.warnings),
    }


def inspection_view(inspection: Inspection, language: str = "") -> dict[str, object]:
    """What a module is and needs."""
    return {
        "ok": not inspection.problems,
        "sha256": inspection.sha256,
        "size": inspection.size,
        "language": language,
        "imports": list(inspection.imports),
        "unknown_imports": list(inspection.unknown_imports),
        "exports": list(inspection.exports),
        "memory_bytes": inspection.memory_bytes,
        "memory_max_bytes": inspection.memory_max_bytes,
        "table_elements": inspection.table_elements,
        "compile_ms": milliseconds(inspection.compile_seconds),
        "code_bytes": inspection.code_bytes,
        "problems": list(inspection.problems),
        "warnings": list(inspection.warnings),
    }


def domains_of(name: str, parts: Sequence[Part], around: Around) -> list[str]:
    """Where a version answers: its domains, or the one that the server makes up."""
    own = [part.name for part in parts if part.kind is PartKind.DOMAIN]
    default = around.settings.deploy.domain
    if own or default is None:
        return own
    try:
        return [read_one_host(f"{name}.{default}")]
    except ValueError:  # `shop-` is a name of a service and no name of a host
        return []


def url_of(domains: Sequence[str], around: Around) -> str | None:
    """A URL that leads to the first domain from this machine, if one can be told."""
    listens = around.listens()
    if not listens or not domains:
        return None
    host, slash, path = domains[0].partition("/")
    port = listens[0].port
    if host == DEFAULT_HOST:
        bare = listens[0].host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(bare, bare)  # noqa: S104 - a look-up
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    elif host.startswith("*."):
        host = "www" + host[1:]
    return f"http://{host}{'' if port == 80 else f':{port}'}/{path if slash else ''}"


def when(at: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def plain_parts(parts: Sequence[Part]) -> list[tuple[str, str, Mapping[str, object]]]:
    """Parts without what differs between equal versions: times, and ids."""
    return sorted((part.kind.value, part.name, part.data) for part in parts)

"""A version's definition, to and from what the catalogue keeps: settings, and parts by kind.

The control API has both sides: `/v1` writes a whole definition, Fastly's API one part at a time.
What only the latter knows of a part stays when a definition is written that does not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edge.catalogue import parts, services, stores, versions
from edge.catalogue.records import Part, PartKind, Store, StoreKind, VersionRecord
from edge.errors import ApiRefused, Problem, Refusal
from edge.model.definition import LINKS, Definition, read_definition, refused
from edge.model.limits import DEFAULT_CEILINGS, DEFAULT_LIMITS, Limits
from edge.model.route import Route
from edge.model.yaml_lines import join

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

# In place of a private key when a definition is read; written back, it leaves the key as it was.
HIDDEN: Final = "(hidden)"
_KIND_OF: Final[Mapping[str, StoreKind]] = {
    "config_stores": StoreKind.CONFIG,
    "kv_stores": StoreKind.KV,
    "secret_stores": StoreKind.SECRET,
    "acls": StoreKind.ACL,
}
_KEY_OF: Final = {kind: key for key, kind in _KIND_OF.items()}
_OF_PARTS: Final = frozenset(("routes", "backends", *LINKS))
Named = tuple[str, Mapping[str, object]]


def read(tx: Transaction, service: str, number: int) -> dict[str, object]:
    """The definition of a version.  Private keys are `HIDDEN`.  ApiRefused NOT_FOUND.

    Links to stores that have been deleted are left out.
    """
    found = fields(tx, service, number)
    found["backends"] = {
        name: _masked(data) for name, data in _tables(found.get("backends")).items()
    }
    for part in parts.listing(tx, service, number, PartKind.LINK):
        store = linked(tx, part)
        if store is not None:
            table = found.setdefault(_KEY_OF[store.kind], {})
            assert isinstance(table, dict)
            table[part.name] = store.name
    return {key: value for key, value in found.items() if value not in ({}, [])}


def fields(tx: Transaction, service: str, number: int) -> dict[str, object]:
    """The definition without links, private keys as they are: what a version is served from."""
    record = versions.get(tx, service, number)
    routes = [_route_fields(part) for part in parts.listing(tx, service, number, PartKind.DOMAIN)]
    checks = {
        part.name: part.data for part in parts.listing(tx, service, number, PartKind.HEALTH_CHECK)
    }
    backends = {
        part.name: _backend_fields(part.data, checks)
        for part in parts.listing(tx, service, number, PartKind.BACKEND)
    }
    return {**record.settings, "routes": routes, "backends": backends}


def write(
    tx: Transaction,
    service: str,
    number: int,
    wanted: object,
    *,
    defaults: Limits = DEFAULT_LIMITS,
    ceilings: Limits = DEFAULT_CEILINGS,
    expect: int | None = None,
) -> VersionRecord:
    """Make a draft what `wanted` says; what it does not name goes.

    Dictionaries and ACLs that a Fastly client declared stay.  ApiRefused INVALID with every
    problem, NOT_FOUND, VERSION_LOCKED, PRECONDITION_FAILED, LIMIT.
    """
    versions.changeable(tx, service, number, expect)
    given, found, links = _checked(tx, service, number, wanted, defaults, ceilings)
    settings = {key: value for key, value in given.items() if key not in _OF_PARTS}
    if settings != versions.get(tx, service, number).settings:
        versions.set_settings(tx, service, number, settings)
    for kind, named in (
        (PartKind.DOMAIN, _domains(tx, service, number, found.service.routes)),
        (PartKind.BACKEND, _backends(tx, service, number, given)),
        (PartKind.LINK, links),
    ):
        present = {part.name: part.data for part in parts.listing(tx, service, number, kind)}
        if present != dict(named) or len(named) != len(present):  # two of one name: refused there
            versions.replace_parts(tx, service, number, kind, named)
    return versions.get(tx, service, number)


def check(
    tx: Transaction,
    service: str,
    number: int,
    wanted: object,
    *,
    defaults: Limits = DEFAULT_LIMITS,
    ceilings: Limits = DEFAULT_CEILINGS,
) -> Definition:
    """What `write` would say, without writing."""
    return _checked(tx, service, number, wanted, defaults, ceilings)[1]


def domain_part(route: Route, comment: str = "") -> Named:
    """A route as a part of a version."""
    path = "" if route.path == "/" else route.path
    name = f"{route.host}={route.path}" if route.exact else f"{route.host}{path}"
    return name, {
        "host": route.host,
        "path": route.path,
        "exact": route.exact,
        "comment": comment,
    }


def _checked(
    tx: Transaction,
    service: str,
    number: int,
    wanted: object,
    defaults: Limits,
    ceilings: Limits,
) -> tuple[dict[str, object], Definition, list[Named]]:
    name = services.get(tx, service).name
    given = _with_keys(tx, service, number, wanted)
    found = read_definition(name, given, defaults=defaults, ceilings=ceilings)
    return given, found, _links(tx, service, found)


def _links(tx: Transaction, service: str, found: Definition) -> list[Named]:
    """Links as parts; ApiRefused INVALID names every store that is not there."""
    problems: list[Problem] = []
    made: list[Named] = []
    for key, name, wanted in found.links.each():
        try:
            store = stores.find(tx, _KIND_OF[key], wanted)
        except ApiRefused as error:
            problems.append(Problem(join(key, name), error.detail))
            continue
        if store.owner not in ("", service):  # told like one that is not there
            told = f"there is no {store.kind.value} store {wanted!r}"
            problems.append(Problem(join(key, name), told))
            continue
        made.append((name, {"store": store.id}))
    if problems:
        raise refused(problems)
    return made


def linked(tx: Transaction, part: Part) -> Store | None:
    """The store that a link, a dictionary or an ACL leads to; None when it has been deleted."""
    try:
        return stores.get(tx, str(part.data.get("store")))
    except ApiRefused:
        return None


def _domains(tx: Transaction, service: str, number: int, routes: tuple[Route, ...]) -> list[Named]:
    comments = {
        part.name: str(part.data.get("comment", ""))
        for part in parts.listing(tx, service, number, PartKind.DOMAIN)
    }
    named = [domain_part(route) for route in routes]
    return [(name, {**data, "comment": comments.get(name, "")}) for name, data in named]


def _backends(
    tx: Transaction, service: str, number: int, given: Mapping[str, object]
) -> list[Named]:
    """Backends as parts; one that is as it was keeps what Fastly's API said of it."""
    present = {p.name: p for p in parts.listing(tx, service, number, PartKind.BACKEND)}
    checks = {
        part.name: part.data for part in parts.listing(tx, service, number, PartKind.HEALTH_CHECK)
    }
    made: list[Named] = []
    for name, data in _tables(given.get("backends")).items():
        before = present.get(name)
        if before is not None and _backend_fields(before.data, checks) == data:
            made.append((name, before.data))
        else:
            made.append((name, data))
    return made


def _backend_fields(
    data: Mapping[str, object], checks: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    """A backend as a definition has it: with the health check that Fastly's API names beside it."""
    found = {key: value for key, value in data.items() if key != "fastly"}
    theirs = data.get("fastly")
    named = theirs.get("healthcheck") if isinstance(theirs, dict) else None
    if "health_check" not in found and isinstance(named, str) and named in checks:
        check = checks[named]
        found["health_check"] = {key: value for key, value in check.items() if key != "fastly"}
    return found


def _route_fields(part: Part) -> dict[str, object]:
    data = part.data
    path = data.get("path", "/")
    return {
        "host": data.get("host", part.name),
        "path": {"exact": path} if data.get("exact") else path,
    }


def _masked(data: Mapping[str, object]) -> dict[str, object]:
    shown = data.get("client_certificate")
    if not isinstance(shown, dict) or "key" not in shown:
        return dict(data)
    return {**data, "client_certificate": {**shown, "key": HIDDEN}}


def _with_keys(tx: Transaction, service: str, number: int, wanted: object) -> dict[str, object]:
    """`wanted` with the private keys that it leaves as they were."""
    if not isinstance(wanted, dict):
        raise ApiRefused(Refusal.INVALID, "a definition is a JSON object")
    backends = wanted.get("backends")
    if not isinstance(backends, dict):
        return wanted
    present = {
        part.name: part.data for part in parts.listing(tx, service, number, PartKind.BACKEND)
    }
    kept = {name: _with_key(name, data, present.get(name, {})) for name, data in backends.items()}
    return {**wanted, "backends": kept}


def _with_key(name: str, data: object, before: Mapping[str, object]) -> object:
    shown = data.get("client_certificate") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(shown, dict) or shown.get("key") != HIDDEN:
        return data
    certificate = before.get("client_certificate")
    if not isinstance(certificate, dict):
        where = f"backends.{name}.client_certificate.key"
        raise refused([Problem(where, "is hidden here, and there is none to keep; write it out")])
    return {**data, "client_certificate": {**shown, "key": certificate["key"]}}


def _tables(value: object) -> dict[str, Mapping[str, object]]:
    return value if isinstance(value, dict) else {}

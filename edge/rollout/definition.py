"""From the catalogue's rows to the service that workers run: stores filled, secrets opened.

What is read here was checked when it was written; it is checked again, because ceilings and the
egress policy may have changed since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge.catalogue import definition, entries, parts, services, versions
from edge.catalogue.database import Transaction
from edge.catalogue.entry_rules import STORE_BYTES
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Part, PartKind, Store, StoreKind
from edge.errors import ApiRefused, Refusal
from edge.model.acl import AclEntry
from edge.model.backend import Backend
from edge.model.definition import read_definition
from edge.model.limits import Limits
from edge.model.names import read_network, read_one_host
from edge.model.route import Route
from edge.model.secret import Secret
from edge.model.service import Service
from edge.settings import Settings
from edge.upstream.egress import EgressPolicy
from edge.upstream.fetch import UpstreamFailed

# Keys and values of all stores that one version opens, which every worker holds in memory, a store
# as often as it is linked.  Values that are longer or more belong into a KV store.
MAX_CONTENTS: Final = STORE_BYTES

# What a program is told of an entry of a list that Fastly's API has no actions for: an address of
# it is blocked, and a negated entry is an exception from a larger one.
_BLOCK, _ALLOW = "BLOCK", "ALLOW"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version as it would be served."""

    service: Service
    warnings: tuple[str, ...] = ()  # for whoever activates it


def load(
    tx: Transaction,
    service_id: str,
    number: int,
    *,
    packages: PackageStore,
    settings: Settings,
    defaults: Limits,
    ceilings: Limits,
    routed: bool = True,
    stores: bool = True,
) -> Loaded:
    """A version with the `stores` that it opens.  Blocks for as long as its stores are large.

    ApiRefused NOT_FOUND, NO_PACKAGE, INVALID with every problem, NO_ROUTE when there is no domain
    and `routed` wants one, STORAGE when a secret cannot be opened, LIMIT above MAX_CONTENTS.
    """
    name = services.get(tx, service_id).name
    record = versions.get(tx, service_id, number)
    if record.package is None:
        raise ApiRefused(
            Refusal.NO_PACKAGE, f"version {number} of {name} has no package; upload one first"
        )
    found = read_definition(
        name,
        definition.fields(tx, service_id, number),
        defaults=defaults,
        ceilings=ceilings,
        module=packages.path(record.package.sha256),
    ).service
    contents = _Contents()
    for kind in (PartKind.LINK, PartKind.DICTIONARY, PartKind.ACL) if stores else ():
        for part in parts.listing(tx, service_id, number, kind):
            contents.add(tx, service_id, part)
    routes = found.routes or default_routes(name, settings)
    if routed and not routes:
        raise ApiRefused(
            Refusal.NO_ROUTE,
            f"version {number} of {name} has no domain, and there is none to give it; add one",
        )
    service = replace(
        found,
        routes=routes,
        config_stores=contents.config_stores,
        secret_stores=contents.secret_stores,
        kv_stores=contents.kv_stores,
        acls=contents.acls,
    )
    warnings = [*contents.warnings, *egress_warnings(service.backends, settings)]
    return Loaded(service, tuple(warnings))


def default_routes(name: str, settings: Settings) -> tuple[Route, ...]:
    """Where a service without domains answers: on its name below `deploy.domain`, if it can be."""
    domain = settings.deploy.domain
    if domain is None:
        return ()
    try:
        return (Route(read_one_host(f"{name}.{domain}")),)
    except ValueError:  # `shop-` is a name of a service and no name of a host
        return ()


def egress_warnings(backends: Mapping[str, Backend], settings: Settings) -> list[str]:
    """Backends that no request will reach, because the operator's policy does not allow them."""
    policy = EgressPolicy(settings.egress)
    found: list[str] = []
    for name, backend in backends.items():
        try:
            policy.check_name(backend)
        except UpstreamFailed:
            found.append(
                f"backend {name}: {backend.url.authority} is not in the operator's egress.allow; "
                "requests to it will fail"
            )
    return found


class _Contents:
    """What the stores that a version opens hold, by the names its program knows."""

    def __init__(self) -> None:
        self.config_stores: dict[str, Mapping[str, str]] = {}
        self.secret_stores: dict[str, Mapping[str, Secret]] = {}
        self.kv_stores: dict[str, str] = {}
        self.acls: dict[str, tuple[AclEntry, ...]] = {}
        self.warnings: list[str] = []
        self._bytes = 0

    def add(self, tx: Transaction, service: str, part: Part) -> None:
        store = definition.linked(tx, part)
        if store is None or store.owner not in ("", service):
            self.warnings.append(f"{part.name}: its store is gone; the program will not find it")
            return
        taken = self._table(store.kind)
        if part.name in taken:
            self.warnings.append(
                f"{part.name} is a {part.kind.value} as well as a link, which wins"
            )
            return
        self._count(tx, part, store)
        match store.kind:
            case StoreKind.CONFIG | StoreKind.DICTIONARY:
                self.config_stores[part.name] = _texts(tx, store)
            case StoreKind.SECRET:
                revealed = entries.reveal(tx, store)
                self.secret_stores[part.name] = {
                    key: Secret(value) for key, value in revealed.items()
                }
            case StoreKind.KV:
                self.kv_stores[part.name] = store.id
            case StoreKind.ACL | StoreKind.SERVICE_ACL:
                self.acls[part.name] = _networks(tx, store)

    def _count(self, tx: Transaction, part: Part, store: Store) -> None:
        """Before they are read: what is refused for its size must not fill our memory first."""
        if store.kind is not StoreKind.KV:
            self._bytes += entries.total_bytes(tx, store)
        if self._bytes > MAX_CONTENTS:
            raise ApiRefused(
                Refusal.LIMIT,
                f"with {part.name}, the stores that the version opens hold {self._bytes} bytes; "
                f"{MAX_CONTENTS} are allowed besides those in KV stores",
            )

    def _table(self, kind: StoreKind) -> Mapping[str, object]:
        match kind:
            case StoreKind.CONFIG | StoreKind.DICTIONARY:
                return self.config_stores
            case StoreKind.SECRET:
                return self.secret_stores
            case StoreKind.KV:
                return self.kv_stores
            case _:
                return self.acls


def _texts(tx: Transaction, store: Store) -> dict[str, str]:
    return {key: value.decode() for key, value in entries.contents(tx, store).items()}


def _networks(tx: Transaction, store: Store) -> tuple[AclEntry, ...]:
    found: list[AclEntry] = []
    for prefix, value in entries.contents(tx, store).items():
        told = json.loads(value)
        action = told.get("action") or (_ALLOW if told.get("negated") else _BLOCK)
        found.append(AclEntry(read_network(prefix), action))
    return tuple(found)

"""From a snapshot to what a worker serves: loads, links and equips what is new, keeps the rest.

Decides nothing about requests, and changes nothing that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from edge.abi.capabilities import NO_CAPABILITIES, Capabilities
from edge.abi.sandbox import LogLine, sandbox_maker
from edge.dispatch.deployed import Deployed, Tenant
from edge.errors import ConfigError, ModuleRefused, Problem
from edge.http.body import Ledger
from edge.model.route import RouteTable
from edge.model.service import Role, Service, UnknownImports, Version
from edge.model.snapshot import Snapshot
from edge.runtime.driver import Runtime
from edge.runtime.template import Template
from edge.settings import Settings
from edge.telemetry.service_block import ServiceBlock
from edge.telemetry.shared import WorkerCells

ArtifactCheck = Callable[[Version], str]  # the path to map, once we know that we wrote it
Equip = Callable[[Version, ServiceBlock], Capabilities]


def no_equipment(version: Version, block: ServiceBlock) -> Capabilities:
    """For guests that reach nothing but their client."""
    return NO_CAPABILITIES


@dataclass(frozen=True, slots=True)
class Prepared:
    """A snapshot built beside the one that serves; nothing has changed yet."""

    generation: int
    settings: Settings
    routes: RouteTable
    deployed: tuple[Deployed, ...]
    by_number: Mapping[tuple[str, int], Deployed]  # the same, by service and version
    clock_resolution_ns: int

    @property
    def public(self) -> list[Service]:
        """Services whose guests clients reach: what their backends are worth checking for."""
        return [
            each.service
            for each in self.deployed
            if each.runs and each.version.role is not Role.STAGED
        ]


EMPTY = Prepared(0, Settings(), RouteTable([]), (), {}, 0)


class Hosts(Protocol):
    """Who keeps what all sandboxes of a worker share: the dispatcher."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def log_line(self) -> LogLine: ...


class Linker:
    """One per worker."""

    def __init__(
        self, hosts: Hosts, cells: WorkerCells, equip: Equip, *, exact_codes: bool
    ) -> None:
        """`equip` tells what guests of a version can reach besides their client."""
        self._hosts = hosts
        self._cells = cells
        self._equip = equip
        self._exact_codes = exact_codes
        # By service; one lives as long as some version of it.
        self._tenants: WeakValueDictionary[str, Tenant] = WeakValueDictionary()

    def link(
        self, snapshot: Snapshot, artifact_of: ArtifactCheck, served: Prepared, *, keep: bool
    ) -> Prepared:
        """Everything of a snapshot, beside what is `served`.  ConfigError for what does not load.

        `keep`: `equip` would give what it gave before, so that what the same object says of a
        version stays as it is, its idle sandboxes included.
        """
        problems: list[Problem] = []
        deployed = []
        clock_resolution_ns = max(1, int(snapshot.settings.wasm.clock_resolution * 1e9))
        keep = keep and clock_resolution_ns == served.clock_resolution_ns
        kept = {id(each.version): each for each in served.deployed} if keep else {}
        for version in snapshot.versions:
            same = kept.get(id(version))
            if same is not None:
                deployed.append(same)
                continue
            try:
                deployed.append(self._deploy(version, artifact_of, served, clock_resolution_ns))
            except ModuleRefused as refused:
                problems.append(Problem(f"services.{version.label}", str(refused)))
        if problems:
            raise ConfigError(*problems)
        return Prepared(
            snapshot.generation,
            snapshot.settings,
            snapshot.routes,
            tuple(deployed),
            _by_number(deployed),
            clock_resolution_ns,
        )

    def _deploy(
        self,
        version: Version,
        artifact_of: ArtifactCheck,
        served: Prepared,
        clock_resolution_ns: int,
    ) -> Deployed:
        hosts, service = self._hosts, version.service
        template: Template | None = None
        if version.artifact is not None and not version.refused:
            template = template_in_use(version, served)
            if template is None:
                template = hosts.runtime.load(
                    artifact_of(version),
                    service=service.name,
                    limits=service.limits,
                    series=version.series,
                    trap_unknown=service.unknown_imports is UnknownImports.TRAP,
                )
        block = self._cells.block(version.series, exact_codes=self._exact_codes)
        make_sandbox = sandbox_maker(
            service=service,
            version=version.number,
            limits=service.limits,
            ledger=hosts.ledger,
            log_line=hosts.log_line,
            clock_resolution_ns=clock_resolution_ns,
            capabilities=self._equip(version, block),
            service_id=version.id,
            staged=version.role is Role.STAGED,
        )
        tenant = self._tenants.setdefault(service.name, Tenant())
        return Deployed(version, template, block, hosts.runtime.pool.slots, make_sandbox, tenant)


def template_in_use(version: Version, served: Prepared) -> Template | None:
    """The template of the version as it is served, if nothing about that has changed."""
    deployed = served.by_number.get((version.service.name, version.number))
    if deployed is None:
        return None
    old = deployed.version
    same = (
        old.sha256 == version.sha256
        and old.series == version.series
        and old.service.limits == version.service.limits
        and old.service.unknown_imports is version.service.unknown_imports
    )
    return deployed.template if same else None


def _by_number(deployed: Sequence[Deployed]) -> dict[tuple[str, int], Deployed]:
    return {(each.name, each.version.number): each for each in deployed}

"""The world that workers serve: from a configuration and module files to a snapshot and artifacts.

Building one reads files and compiles; nothing is served from it until the fleet has published it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import ModuleRefused
from edge.model.service import Service, UnknownImports, Version
from edge.model.snapshot import Snapshot
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler
from edge.runtime.inspect import check
from edge.settings import Settings
from edge.supervisor.breaker import VersionKey
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.supervisor_counters import SupervisorCounters


@dataclass(frozen=True, slots=True)
class World:
    """One generation: what is sent to workers."""

    snapshot: Snapshot
    artifacts: Mapping[str, Artifact]  # by service; refused services have none

    @property
    def generation(self) -> int:
        """That of the snapshot; higher ones replace lower ones."""
        return self.snapshot.generation

    @property
    def refused(self) -> dict[str, str]:
        """Services that are not served, and why."""
        return {v.service.name: v.refused for v in self.snapshot.versions if v.refused}

    @property
    def series(self) -> frozenset[Series]:
        """What telemetry counts for its versions."""
        return frozenset(map(series_of, self.snapshot.versions))

    def numbered(self, generation: int) -> World:
        """The same under another number."""
        return World(replace(self.snapshot, generation=generation), self.artifacts)

    def with_refused(self, reasons: Mapping[str, str]) -> World:
        """The same, without the services that workers could not load."""
        versions = tuple(
            replace(v, artifact=None, refused=reasons[v.service.name], quarantined=False)
            if v.service.name in reasons
            else v
            for v in self.snapshot.versions
        )
        artifacts = {n: a for n, a in self.artifacts.items() if n not in reasons}
        return World(replace(self.snapshot, versions=versions), artifacts)

    def with_artifacts(self, artifacts: Mapping[str, Artifact]) -> World:
        """The same programs from other files; `artifacts` is by module hash."""
        found = {n: artifacts.get(a.info.sha256, a) for n, a in self.artifacts.items()}
        return World(self.snapshot, found)

    def with_quarantined(self, keys: Iterable[VersionKey]) -> World:
        """The same, with exactly these versions in quarantine."""
        stopped = set(keys)
        versions = tuple(
            replace(v, quarantined=not v.refused and key_of(v) in stopped)
            for v in self.snapshot.versions
        )
        return World(replace(self.snapshot, versions=versions), self.artifacts)


def key_of(version: Version) -> VersionKey:
    """What the breaker knows a version by."""
    return VersionKey(version.service.name, version.number)


def series_of(version: Version) -> Series:
    """What telemetry knows a version by."""
    return Series(version.service.name, str(version.number), version.sha256)


def empty_world(settings: Settings) -> World:
    """No service at all: before the first one is built."""
    return World(Snapshot(0, settings, ()), {})


class WorldBuilder:
    """Makes worlds.  One at a time: the caller awaits each."""

    def __init__(
        self,
        compiler: Compiler,
        directory: BlockDirectory,
        counters: SupervisorCounters,
        *,
        known_imports: Mapping[tuple[str, str], str],
        max_module_bytes: int,
    ) -> None:
        """`known_imports` maps (module, name) to a signature such as `iiI->i`."""
        self._compiler = compiler
        self._directory = directory
        self._counters = counters
        self._known_imports = known_imports
        self._max_module_bytes = max_module_bytes

    async def build(
        self, services: Iterable[Service], settings: Settings, *, before: World
    ) -> World:
        """Read, compile and check every module.  A module that fails is refused alone.

        A service that did not change keeps its version number and its counters.  The world has
        no generation yet: `numbered`, when it is published.
        """
        versions: list[Version] = []
        artifacts: dict[str, Artifact] = {}
        previous = {v.service.name: v for v in before.snapshot.versions}
        for service in services:
            old = previous.get(service.name)
            try:
                artifact = await self._artifact(service)
            except ModuleRefused as refusal:
                self._counters.deploys.add(service.name, "refused")
                version = _next(old, Version(service, 1, refused=str(refusal)))
            else:
                artifacts[service.name] = artifact
                version = _next(
                    old, Version(service, 1, sha256=artifact.info.sha256, artifact=artifact.path)
                )
                if version.number != (old.number if old else 0):
                    self._counters.deploys.add(service.name, "ok")
            series = self._directory.assign(series_of(version))
            slots = self._directory.backend_slots(service.name, service.backends)
            versions.append(replace(version, series=series, backend_slots=slots))
        return World(Snapshot(0, settings, tuple(versions)), artifacts)

    async def repair(self, world: World) -> tuple[dict[str, Artifact], dict[str, str]]:
        """Compile again what the cache has lost: artifacts by module hash, and reasons by service.

        A module file that has changed in the meantime is not taken: that is a reload's to do.
        """
        found: dict[str, Artifact] = {}
        lost: dict[str, str] = {}
        for version in world.snapshot.versions:
            if version.artifact is None:
                continue
            artifact = await self._compiler.stored(version.sha256)
            if artifact is None:
                try:
                    artifact = await self._artifact(version.service)
                    if artifact.info.sha256 != version.sha256:
                        raise ModuleRefused(
                            "its compiled form was lost and its file has changed: reload to take it"
                        )
                except ModuleRefused as refusal:
                    lost[version.service.name] = str(refusal)
                    continue
            found[version.sha256] = artifact
        return found, lost

    def pin(self, world: World) -> None:
        """Keep what this world is made of in the cache."""
        self._compiler.pin(frozenset(a.info.sha256 for a in world.artifacts.values()))

    async def _artifact(self, service: Service) -> Artifact:
        data = await asyncio.to_thread(read_module, service.module, self._max_module_bytes)
        compiled = self._compiler.compiled
        begin = time.perf_counter_ns()
        try:
            artifact = await self._compiler.artifact_of(data, service.name)
        except OSError as error:
            raise ModuleRefused(f"its compiled form cannot be kept: {error}") from error
        if self._compiler.compiled != compiled:
            self._counters.compile.observe(time.perf_counter_ns() - begin)
        check(
            artifact.info,
            memory=service.limits.memory,
            table_elements=service.limits.table_elements,
            known_imports=self._known_imports,
            trap_unknown=service.unknown_imports is UnknownImports.TRAP,
        )
        return artifact


def _next(old: Version | None, new: Version) -> Version:
    """`new` with its number: the old one's when nothing but the reason of a refusal differs."""
    if old is None:
        return new
    same = (old.service, old.sha256, bool(old.refused)) == (
        new.service,
        new.sha256,
        bool(new.refused),
    )
    return replace(new, number=old.number if same else old.number + 1)


def read_module(path: Path, limit: int) -> bytes:
    """A module file, at most one byte more than `limit`.  ModuleRefused when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ModuleRefused(f"{path}: {error.strerror}") from error

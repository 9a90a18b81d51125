"""The world that workers serve: versions of services, and the compiled modules they are made of.

Building one reads files and compiles; nothing is served from it until the fleet has published it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import ModuleRefused
from edge.model.service import Role, Service, UnknownImports, Version
from edge.model.snapshot import Snapshot
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler, Progress, no_progress
from edge.runtime.inspect import check
from edge.settings import Settings
from edge.supervisor.breaker import VersionKey
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.supervisor_counters import SupervisorCounters


@dataclass(frozen=True, slots=True)
class World:
    """One generation: what is sent to workers.

    Versions of the configuration file and of the catalogue stand side by side in it.
    """

    snapshot: Snapshot
    artifacts: Mapping[str, Artifact]  # by module hash; two versions may share one

    @property
    def generation(self) -> int:
        """That of the snapshot; higher ones replace lower ones."""
        return self.snapshot.generation

    @property
    def refused(self) -> dict[str, str]:
        """Versions that are not served, by label, and why."""
        return {v.label: v.refused for v in self.snapshot.versions if v.refused}

    @property
    def series(self) -> frozenset[Series]:
        """What telemetry counts for its versions."""
        return frozenset(map(series_of, self.snapshot.versions))

    def numbered(self, generation: int) -> World:
        """The same under another number."""
        snapshot = self.snapshot
        return World(
            Snapshot(generation, snapshot.settings, snapshot.versions, like=snapshot),
            self.artifacts,
        )

    def versions_of(self, owner: str) -> tuple[Version, ...]:
        """All versions of one service; `owner` is what `owner_of` says."""
        return tuple(v for v in self.snapshot.versions if owner_of(v) == owner)

    def with_service(
        self, owner: str, versions: Sequence[Version], artifacts: Mapping[str, Artifact]
    ) -> World:
        """The same with exactly these versions of one service, where those of before stood.

        `owner`: the id of a service of the catalogue, the name of one of the file (see `owner_of`).
        `artifacts` by module hash.  Raises ConfigError when another has its name or a route.
        """
        present = self.snapshot.versions
        at = next((n for n, v in enumerate(present) if owner_of(v) == owner), len(present))
        after = tuple(v for v in present[at:] if owner_of(v) != owner)
        return self._with_versions(
            (*present[:at], *versions, *after), {**self.artifacts, **artifacts}
        )

    def without_service(self, owner: str) -> World:
        """The same without any version of one service."""
        return self.with_service(owner, (), {})

    def with_refused(self, reasons: Mapping[str, str]) -> World:
        """The same, without the versions that workers could not load; `reasons` by label."""
        return self._with_versions(
            tuple(
                replace(v, artifact=None, refused=reasons[v.label], quarantined=False)
                if v.label in reasons
                else v
                for v in self.snapshot.versions
            ),
            self.artifacts,
        )

    def with_artifacts(self, artifacts: Mapping[str, Artifact]) -> World:
        """The same programs from other files; `artifacts` is by module hash."""
        return World(self.snapshot, {**self.artifacts, **_some(artifacts, self.artifacts)})

    def with_quarantined(self, keys: Iterable[VersionKey]) -> World:
        """The same, with exactly these versions in quarantine."""
        stopped = set(keys)
        return self._with_versions(
            tuple(
                v if v.quarantined is wanted else replace(v, quarantined=wanted)
                for v in self.snapshot.versions
                for wanted in (not v.refused and key_of(v) in stopped,)
            ),
            self.artifacts,
        )

    def _with_versions(
        self, versions: tuple[Version, ...], artifacts: Mapping[str, Artifact]
    ) -> World:
        """These versions, and of the artifacts those that they are made of."""
        before = self.snapshot
        snapshot = Snapshot(before.generation, before.settings, versions, like=before)
        used = {v.sha256 for v in versions if v.artifact is not None}
        return World(snapshot, _some(artifacts, used))


def _some(artifacts: Mapping[str, Artifact], wanted: Iterable[str]) -> dict[str, Artifact]:
    return {sha256: artifacts[sha256] for sha256 in wanted if sha256 in artifacts}


def owner_of(version: Version) -> str:
    """Whose version it is: the id of a service of the catalogue, the name of one of the file.

    Not names throughout: a developer may name a service like another one's id.
    """
    return version.id or version.service.name


def key_of(version: Version) -> VersionKey:
    """What the breaker knows a version by."""
    return VersionKey(version.service.name, version.number, version.id)


def series_of(version: Version) -> Series:
    """What telemetry knows a version by."""
    return Series(version.service.name, str(version.number), version.sha256, version.id)


def empty_world(settings: Settings) -> World:
    """No service at all: before the first one is built."""
    return World(Snapshot(0, settings, ()), {})


class WorldBuilder:
    """Makes worlds of the file's services, and single versions for the catalogue's.

    Worlds one at a time, the caller awaits each; versions of several services at once.
    """

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
        self._pinned = World(Snapshot(-1, Settings(), ()), {})  # the newest that was published

    async def build(
        self, services: Iterable[Service], settings: Settings, *, before: World
    ) -> World:
        """Read, compile and check every module of the file.  One that fails is refused alone.

        A service that did not change keeps its version number and its counters.  Versions of the
        catalogue stay as they are, out of quarantine.  The world has no generation yet: `numbered`,
        when it is published.  Raises ConfigError when a service has a name or route of the
        catalogue's.
        """
        versions: list[Version] = []
        artifacts: dict[str, Artifact] = {}
        previous = {v.service.name: v for v in before.snapshot.versions if not v.id}
        for service in services:
            old = previous.get(service.name)
            try:
                artifact = await self._artifact_of_file(service)
            except ModuleRefused as refusal:
                self._counters.deploys.add(service.name, "refused")
                version = _next(old, Version(service, 1, refused=str(refusal)))
            else:
                artifacts[artifact.info.sha256] = artifact
                version = _next(
                    old, Version(service, 1, sha256=artifact.info.sha256, artifact=artifact.path)
                )
                if version.number != (old.number if old else 0):
                    self._counters.deploys.add(service.name, "ok")
            versions.append(_same(old, self._counted(version)))
        for version in before.snapshot.versions:
            if version.id:
                free = replace(version, quarantined=False) if version.quarantined else version
                versions.append(free)
                artifacts.update(_some(before.artifacts, (version.sha256,)))
        return World(Snapshot(0, settings, tuple(versions), like=before.snapshot), artifacts)

    async def build_version(
        self,
        service: Service,
        *,
        id: str,  # noqa: A002 - the word of the catalogue
        number: int,
        role: Role,
        share: int,
        sha256: str,
        read: Callable[[], bytes],
        progress: Progress = no_progress,
    ) -> tuple[Version, Artifact]:
        """One version of a service of the catalogue, ready to be published.

        `read` gives its module and is called, in a thread, only when the cache does not have it.
        Raises ModuleRefused, and OSError when it cannot be read or its compiled form not kept.
        Whoever does not publish it has `Fleet.discard` forget its counters.
        """
        artifact = self._pinned.artifacts.get(sha256)  # its bytes have been checked
        if artifact is None or not await asyncio.to_thread(_is_there, artifact):
            artifact = await self._compiler.artifact_named(
                sha256, read, service.name, self._observed(progress)
            )
        self._check(service, artifact)
        version = Version(
            service, number, sha256=sha256, artifact=artifact.path, id=id, role=role, share=share
        )
        return self._counted(version), artifact

    async def repair(self, world: World) -> tuple[dict[str, Artifact], dict[str, str]]:
        """Compile again what the cache has lost: artifacts by module hash, and reasons by label.

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
                    artifact = await self._artifact_of_file(version.service)
                    if artifact.info.sha256 != version.sha256:
                        raise ModuleRefused(
                            "its compiled form was lost and its file has changed: reload to take it"
                        )
                except ModuleRefused as refusal:
                    lost[version.label] = str(refusal)
                    continue
            found[version.sha256] = artifact
        return found, lost

    def pin(self, world: World) -> None:
        """Keep what this world is made of in the cache: it has been published."""
        if world.generation > self._pinned.generation:  # callers need not come in order
            self._pinned = world
            self._compiler.pin(frozenset(world.artifacts))

    def _counted(self, version: Version) -> Version:
        """The same with the places of its counters."""
        service = version.service
        return replace(
            version,
            series=self._directory.assign(series_of(version)),
            backend_slots=self._directory.backend_slots(service.name, service.backends),
        )

    async def _artifact_of_file(self, service: Service) -> Artifact:
        data = await asyncio.to_thread(read_module, service.module, self._max_module_bytes)
        try:
            artifact = await self._compiler.artifact_of(
                data, service.name, self._observed(no_progress)
            )
        except OSError as error:
            raise ModuleRefused(f"its compiled form cannot be kept: {error}") from error
        self._check(service, artifact)
        return artifact

    def _check(self, service: Service, artifact: Artifact) -> None:
        check(
            artifact.info,
            memory=service.limits.memory,
            table_elements=service.limits.table_elements,
            known_imports=self._known_imports,
            trap_unknown=service.unknown_imports is UnknownImports.TRAP,
        )

    def _observed(self, progress: Progress) -> Progress:
        """The same, and compilations are timed in the metrics."""

        def observed(event: str, facts: Mapping[str, object]) -> None:
            seconds = facts.get("seconds")
            if event == "compiled" and isinstance(seconds, float) and seconds > 0:
                self._counters.compile.observe(int(seconds * 1e9))
            progress(event, facts)

        return observed


def _is_there(artifact: Artifact) -> bool:
    try:
        return artifact.path.stat().st_size == artifact.size
    except OSError:
        return False


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


def _same(old: Version | None, new: Version) -> Version:
    """The old object where it is equal: what workers have is known by its identity."""
    return old if old is not None and old == new else new


def read_module(path: Path, limit: int) -> bytes:
    """A module file, at most one byte more than `limit`.  ModuleRefused when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ModuleRefused(f"{path}: {error.strerror}") from error

"""Worlds of services from the file and from the catalogue, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from edge.errors import ConfigError, ModuleRefused
from edge.model.route import Miss, Route
from edge.model.service import Role, Service, Version
from edge.runtime.artifacts import Artifact
from edge.runtime.compile import Compiler, Progress, no_progress
from edge.runtime.inspect import ModuleInfo
from edge.settings import Settings
from edge.supervisor.breaker import VersionKey
from edge.supervisor.world import World, WorldBuilder, empty_world, series_of
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

INFO = ModuleInfo("a" * 64, 1, "wasi", (), 0, (), start_function=False)


def artifact(sha256: str, **info: object) -> Artifact:
    facts = replace(INFO, sha256=sha256, **info)  # type: ignore[arg-type]  # fields by name
    return Artifact(Path(f"/{sha256}.code"), "d", 1, facts)


def service(name: str, host: str = "") -> Service:
    return Service(name, Path(f"/{name}.wasm"), (Route(host or f"{name}.test"),))


def version(name: str, number: int, *, host: str = "", **parts: object) -> Version:
    made = Version(service(name, host), number, f"{name}{number}", Path("/code"), id=f"id-{name}")
    return replace(made, **parts)  # type: ignore[arg-type]  # fields by name


@dataclass
class FakeCompiler:
    """Modules that are their own hashes."""

    asked: list[str] = field(default_factory=list)
    stores: dict[str, Artifact] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()

    async def artifact_of(
        self, data: bytes, service: str = "", progress: Progress = no_progress
    ) -> Artifact:
        if data.startswith(b"bad"):
            raise ModuleRefused(data.decode())
        return artifact(data.decode())

    async def artifact_named(
        self, sha256: str, read: Callable[[], bytes], service: str, progress: Progress
    ) -> Artifact:
        self.asked.append(sha256)
        found = self.stores.get(sha256)
        if found is None:
            progress("compiling", {})
            found = self.stores[sha256] = artifact(read().decode())
        return found

    def pin(self, sha256s: frozenset[str]) -> None:
        self.pinned = sha256s


class Town:
    """A builder over fakes."""

    def __init__(self) -> None:
        self.compiler = FakeCompiler()
        self.cells = SharedCells.create(1, 32)
        self.directory = BlockDirectory(self.cells)
        self.builder = WorldBuilder(
            cast("Compiler", self.compiler),
            self.directory,
            SupervisorCounters(),
            known_imports={},
            max_module_bytes=1000,
        )

    def version(self, name: str, number: int, **parts: Any) -> tuple[Version, Artifact]:
        wanted: dict[str, Any] = {
            "id": f"id-{name}",
            "number": number,
            "role": Role.ACTIVE,
            "share": 0,
            "sha256": f"{name}{number}",
            "read": lambda: f"{name}{number}".encode(),
        } | parts
        return asyncio.run(self.builder.build_version(service(name), **wanted))

    def file(self, folder: Path, *names: str, before: World) -> World:
        found = []
        for name in names:
            path = folder / f"{name}.wasm"
            path.write_bytes(name.encode())
            found.append(replace(service(name), module=path))
        return asyncio.run(self.builder.build(found, Settings(), before=before))


@pytest.fixture
def town() -> Iterator[Town]:
    made = Town()
    yield made
    made.cells.close()


def test_only_the_active_version_has_routes_and_they_lead_to_it() -> None:
    world = empty_world(Settings()).with_service("id-a", (version("a", 1),), {})
    staged = version("b", 2, role=Role.STAGED)
    canary = version("b", 3, role=Role.CANARY, share=1)
    active = version("b", 1)
    world = world.with_service("id-b", (staged, canary, active), {})
    assert world.snapshot.lookup(b"b.test", b"/") is active
    only_staged = world.with_service("id-b", (staged,), {})
    assert only_staged.snapshot.lookup(b"b.test", b"/") is Miss.HOST
    assert [v.label for v in world.snapshot.versions] == ["a", "b@2", "b@3", "b"]


def test_a_service_is_replaced_where_it_stood_and_takes_its_artifacts_along() -> None:
    world = empty_world(Settings())
    for name in "abc":
        first = version(name, 1)
        world = world.with_service(f"id-{name}", (first,), {first.sha256: artifact(first.sha256)})
    second = version("b", 2)
    after = world.with_service("id-b", (second,), {"b2": artifact("b2")})
    assert [v.label for v in after.snapshot.versions] == ["a", "b", "c"]
    assert set(after.artifacts) == {"a1", "b2", "c1"}
    assert after.snapshot.versions[0] is world.snapshot.versions[0]
    gone = after.without_service("id-b")
    assert set(gone.artifacts) == {"a1", "c1"}
    assert gone.snapshot.lookup(b"b.test", b"/") is Miss.HOST
    assert set(world.artifacts) == {"a1", "b1", "c1"}


def test_an_artifact_that_two_versions_share_stays_until_both_have_gone() -> None:
    same = {"same": artifact("same")}
    world = empty_world(Settings())
    world = world.with_service("id-a", (version("a", 1, sha256="same"),), same)
    world = world.with_service("id-b", (version("b", 1, sha256="same"),), same)
    assert set(world.without_service("id-a").artifacts) == {"same"}
    assert not world.without_service("id-a").without_service("id-b").artifacts


def test_a_service_named_like_the_id_of_another_replaces_nothing_of_it() -> None:
    victim = version("shop", 1)
    evil = version(victim.id, 1, host="evil.test")
    world = empty_world(Settings()).with_service(victim.id, (victim,), {})
    world = world.with_service(evil.id, (evil,), {})
    assert world.versions_of(victim.id) == (victim,)
    assert world.without_service(victim.id).snapshot.versions == (evil,)


def test_names_and_routes_are_nobody_elses_and_the_refusal_names_both(
    town: Town, tmp_path: Path
) -> None:
    world = town.file(tmp_path, "a", before=empty_world(Settings()))
    with pytest.raises(ConfigError, match=r"services\.a: two services have this name"):
        world.with_service("id-a", (version("a", 1, host="other.test"),), {})
    with pytest.raises(ConfigError, match=r"services\.b.*two routes for a\.test.*a's"):
        world.with_service("id-b", (version("b", 1, host="a.test"),), {})
    taken = empty_world(Settings()).with_service("id-b", (version("b", 1, host="a.test"),), {})
    with pytest.raises(ConfigError, match=r"two routes for a\.test"):
        town.file(tmp_path, "a", before=taken)


def test_reasons_and_quarantines_find_the_version_they_are_of() -> None:
    canary = version("a", 2, role=Role.CANARY, share=1)
    world = empty_world(Settings()).with_service("id-a", (version("a", 1), canary), {})
    refused = world.with_refused({"a@2": "broken"})
    assert refused.refused == {"a@2": "broken"}
    assert refused.snapshot.versions[0] is world.snapshot.versions[0]
    stopped = world.with_quarantined([VersionKey("a", 2, "id-a")])
    assert [v.quarantined for v in stopped.snapshot.versions] == [False, True]
    assert stopped.snapshot.versions[0] is world.snapshot.versions[0]


def test_a_reload_keeps_what_is_the_catalogues_and_what_has_not_changed(
    town: Town, tmp_path: Path
) -> None:
    first = town.file(tmp_path, "a", "b", before=empty_world(Settings()))
    own = version("shop", 4, quarantined=True)
    world = first.with_service("id-shop", (own,), {own.sha256: artifact(own.sha256)})
    again = town.file(tmp_path, "b", "c", before=world)
    assert [v.label for v in again.snapshot.versions] == ["b", "c", "shop"]
    assert again.snapshot.versions[0] is first.snapshot.versions[1]
    assert again.snapshot.versions[2] == replace(own, quarantined=False)
    assert set(again.artifacts) == {"b", "c", own.sha256}


def test_a_version_is_built_without_its_module_when_that_is_compiled(town: Town) -> None:
    def read() -> bytes:
        raise AssertionError("nobody needs it")

    town.compiler.stores["a1"] = artifact("a1")
    built, its = town.version("a", 1, read=read, role=Role.CANARY, share=300)
    assert (built.id, built.number, built.role, built.share) == ("id-a", 1, Role.CANARY, 300)
    assert (built.artifact, built.sha256) == (its.path, "a1")
    assert built.series == town.directory.assigned[series_of(built)]


def test_what_is_published_is_not_looked_up_again_while_it_is_there(
    town: Town, tmp_path: Path
) -> None:
    its = replace(artifact("a1"), path=tmp_path / "code")
    its.path.write_bytes(b"x" * its.size)
    town.compiler.stores["a1"] = its
    built, _ = town.version("a", 1)
    world = empty_world(Settings()).with_service("id-a", (built,), {"a1": its}).numbered(5)
    town.builder.pin(world)
    assert town.compiler.pinned == {"a1"}
    town.builder.pin(empty_world(Settings()).numbered(4))  # of a publication that was overtaken
    assert town.compiler.pinned == {"a1"}
    assert town.version("a", 2, sha256="a1")[1] is its
    assert town.compiler.asked == ["a1"]
    its.path.unlink()
    town.version("a", 3, sha256="a1")
    assert town.compiler.asked == ["a1", "a1"]


def test_the_same_number_with_other_contents_counts_in_the_same_place(town: Town) -> None:
    assert town.version("a", 1)[0].series == town.version("a", 1)[0].series
    assert town.version("a", 2)[0].series != town.version("a", 1)[0].series


def test_a_version_that_needs_more_than_its_service_may_have_is_refused(town: Town) -> None:
    town.compiler.stores["a1"] = artifact("a1", memory_bytes=1 << 40)
    before = set(town.directory.assigned)
    with pytest.raises(ModuleRefused, match="memory"):
        town.version("a", 1)
    assert set(town.directory.assigned) == before


def test_who_watches_is_told_of_the_compilation_and_nobody_of_a_cached_one(town: Town) -> None:
    events: list[str] = []
    town.version("a", 1, progress=lambda event, facts: events.append(event))
    town.version("a", 1, progress=lambda event, facts: events.append(event))
    assert events == ["compiling"]

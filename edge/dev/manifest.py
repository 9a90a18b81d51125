"""A `fastly.toml` as values: what `[local_server]` says, read as Viceroy reads it, and more.

Ours alone are `limits`, `services`, `kv_directory` and a backend's `inject`: the fastly CLI, which
reads the same file, leaves alone what it does not know.  Every problem is reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from edge.dev import backends, shared, stores
from edge.dev.tables import Table, Tables
from edge.errors import ConfigError, Problem
from edge.local.faults import Fault
from edge.local.world import OPEN_EGRESS, LocalWorld, Seed
from edge.model import names
from edge.model.limits import Limits
from edge.model.reader import Reader
from edge.model.route import Route, find_conflicts
from edge.model.service import Service, UnknownImports
from edge.model.yaml_lines import node_from_plain
from edge.settings import (
    GIB,
    Settings,
    Wasm,
)

MAX_MANIFEST_VERSION: Final = 3
MAX_BYTES: Final = 4 * 1024 * 1024

# A program that is being written may be a debug build, and nobody else's: only what would freeze
# the machine is bounded.  `[local_server.limits]` has production's, where they are wanted.
LOCAL_LIMITS: Final = Limits(
    cpu=30.0,
    wall=600.0,
    memory=1 * GIB,
    host_memory=512 * 1024 * 1024,
    log_bytes=16 * 1024 * 1024,
    slots=1.0,
    queue_wait=30.0,
)
# A program that is run serves nobody, and nobody waits for it but who started it.
MAX_RUN_LIMITS: Final = replace(LOCAL_LIMITS, cpu=3600.0, wall=86400.0)
# Names that differ between versions of the file; each pair is one table.
_OLDER: Final = {
    "dictionaries": "config_stores",
    "object_stores": "kv_stores",
    "object_store": "kv_stores",
}
_OF_A_SERVICE: Final = ("backends", "config_stores", "kv_stores", "secret_stores", "acls", "limits")
_OF_ALL: Final = (
    "geolocation", "device_detection", "shielding_sites", "fake_valid_fastly_keys", "services",
    "kv_directory", "viceroy_version",
)  # fmt: skip
# The CLI's own, for programs that we do not start.
_OF_PUSHPIN: Final = ("pushpin", "websockets_passthrough")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document that has been read."""

    world: LocalWorld
    files: frozenset[Path]  # what it was read from, modules included
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Parts:
    """What one service reaches."""

    given: dict[str, Any]  # fields of Service
    faults: dict[str, Fault]


def read_manifest(
    path: Path | None,
    module: Path,
    env: Mapping[str, str],
    *,
    unknown_imports: UnknownImports = UnknownImports.REFUSE,
    exceptions: bool = False,
) -> Manifest:
    """The manifest at `path` (None: an empty one) for the program `module`.

    Raises ConfigError with every problem found.
    """
    base = Path.cwd() if path is None else path.absolute().parent
    document = {} if path is None else _document(path)
    start = Settings(egress=OPEN_EGRESS, wasm=Wasm(exceptions=exceptions))
    reader = _ManifestReader(Tables(base, env), module.absolute(), unknown_imports, start)
    manifest = reader.read(document)
    if reader.tables.problems:
        raise ConfigError(*reader.tables.problems)
    own = {module.absolute()} if path is None else {module.absolute(), path.absolute()}
    return replace(manifest, files=manifest.files | own)


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(Problem("", f"has more than {MAX_BYTES} bytes"))
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(Problem("", f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise ConfigError(Problem("", f"is not UTF-8 at byte {error.start}")) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(Problem("", f"is not TOML: {error}")) from error
    except RecursionError:
        raise ConfigError(Problem("", "nests too deep")) from None


class _ManifestReader:
    def __init__(
        self, tables: Tables, module: Path, unknown_imports: UnknownImports, start: Settings
    ) -> None:
        self.tables = tables
        self._module = module
        self._unknown_imports = unknown_imports
        self._start = start
        self._seeds: dict[str, dict[str, Seed]] = {}

    def read(self, document: Table) -> Manifest:
        tables = self.tables
        self._check_version(document)
        path = "local_server"
        local = self._one_spelling(tables.part(document, path, ""), path)
        local_path = "local_server"
        for key in local:
            if key in _OF_PUSHPIN:
                tables.warnings.append(f"{path}.{key} is left alone: there is no Pushpin here")
            elif key not in _OF_A_SERVICE and key not in _OF_ALL:
                tables.warnings.append(f"{path}.{key} is not a key that is known here")
        first = self._parts(local, local_path, "")
        found = [self._service(_name_of(document), self._module, (Route(),), first)]
        faults = {found[0].name: first.faults}
        for name, value in tables.part(local, "services", path).items():
            self._further(name, value, f"{path}.services.{name}", first, found, faults)
        self._check_services(found, path)
        geolocation = tables.part(local, "geolocation", path)
        settings = replace(
            self._start,
            geolocation=shared.geolocation(tables, geolocation, f"{path}.geolocation"),
            device_detection=shared.device_detection(tables, local, path),
            shielding_sites=shared.shielding_sites(tables, local, path),
        )
        directory = tables.text(local, "kv_directory", path)
        world = LocalWorld(
            services=tuple(found),
            settings=settings,
            faults=faults,
            seeds=self._seeds,
            default_loopback=tables.switch(
                geolocation, "use_default_loopback", f"{path}.geolocation", default=True
            ),
            valid_keys=frozenset(tables.texts(local, "fake_valid_fastly_keys", path)),
            kv_directory=tables.base / directory if directory else None,
        )
        files = frozenset(tables.files | {service.module for service in found})
        return Manifest(world, files, tuple(tables.warnings))

    def _check_version(self, document: Table) -> None:
        version = document.get("manifest_version")
        if isinstance(version, int) and version > MAX_MANIFEST_VERSION:
            self.tables.problem(
                "manifest_version",
                f"{version} is newer than {MAX_MANIFEST_VERSION}, the newest that is understood",
            )

    def _one_spelling(self, local: Table, path: str) -> dict[str, Any]:
        """Older names of tables put under their present one."""
        found = {key: value for key, value in local.items() if key not in _OLDER}
        for older, name in _OLDER.items():
            if older not in local:
                continue
            table = self.tables.part(local, older, path)
            present = self.tables.table(found.get(name, {}), f"{path}.{name}")
            for key in table.keys() & present.keys():
                self.tables.problem(f"{path}.{older}.{key}", f"is also one of {name}")
            found[name] = {**present, **table}
        return found

    # Services ---------------------------------------------------------------------------------

    def _parts(self, table: Table, path: str, owner: str) -> _Parts:
        """What a service's tables say; `owner` keeps its KV stores apart from those of others."""
        tables = self.tables

        def each(key: str) -> list[tuple[str, Any, str]]:
            part = tables.part(table, key, path)
            return [(name, value, f"{path}.{key}.{name}") for name, value in part.items()]

        given: dict[str, Any] = {}
        faults: dict[str, Fault] = {}
        if "backends" in table:
            given["backends"] = {}
            for name, value, where in each("backends"):
                backend = backends.backend(tables, name, value, where)
                if backend is not None:
                    given["backends"][name] = backend
                if isinstance(value, Mapping) and "inject" in value:
                    fault = backends.fault(tables, value["inject"], f"{where}.inject")
                    if fault is not None:
                        faults[name] = fault
        if "config_stores" in table:
            given["config_stores"] = {
                name: stores.config_store(tables, value, where)
                for name, value, where in each("config_stores")
            }
        if "secret_stores" in table:
            given["secret_stores"] = {
                name: stores.secret_store(tables, value, where)
                for name, value, where in each("secret_stores")
            }
        if "acls" in table:
            given["acls"] = {
                name: stores.acl(tables, value, where) for name, value, where in each("acls")
            }
        if "kv_stores" in table:
            given["kv_stores"] = {}
            for name, value, where in each("kv_stores"):
                shared = f"{owner}.{name}" if owner else name
                given["kv_stores"][name] = shared
                self._seeds[shared] = stores.kv_store(tables, value, where)
        if "limits" in table:
            given["limits"] = self._limits(table["limits"], f"{path}.limits")
        return _Parts(given, faults)

    def _service(
        self, name: str, module: Path, routes: tuple[Route, ...], parts: _Parts
    ) -> Service:
        given = {"limits": LOCAL_LIMITS, **parts.given}
        return Service(name, module, routes, unknown_imports=self._unknown_imports, **given)

    def _further(
        self,
        name: str,
        value: object,
        path: str,
        first: _Parts,
        found: list[Service],
        faults: dict[str, dict[str, Fault]],
    ) -> None:
        """A further service: its own program and hosts; what it does not give is the first's."""
        tables = self.tables
        table = self._one_spelling(tables.table(value, path), path)
        tables.check_keys(table, ("file", "hosts", "path", *_OF_A_SERVICE), path)
        tables.attempt(path, lambda: names.read_service_name(name))
        file = tables.required(table, "file", path)
        hosts = tables.texts(table, "hosts", path)
        if not hosts:
            tables.problem(f"{path}.hosts", 'is missing; write hosts = ["api.localhost"]')
        prefix = tables.text(table, "path", path) or "/"
        routes = []
        for host in hosts:
            route = tables.attempt(path, partial(_route, host, prefix))
            if route is not None:
                routes.append(route)
        parts = self._parts(table, path, name)
        own = _Parts(
            {**first.given, **parts.given},
            parts.faults if "backends" in table else first.faults,
        )
        if file is not None and routes:
            found.append(self._service(name, tables.base / file, tuple(routes), own))
            faults[name] = own.faults

    def _check_services(self, found: list[Service], path: str) -> None:
        seen: set[str] = set()
        for service in found:
            if service.name in seen:
                self.tables.problem(f"{path}.services.{service.name}", "is the main service's name")
            seen.add(service.name)
        for conflict in find_conflicts([service.routes for service in found]):
            name = found[conflict.second[0]].name
            self.tables.problem(
                f"{path}.services.{name}",
                f"{conflict.route} already leads to {found[conflict.first[0]].name}",
            )

    def _limits(self, value: object, path: str) -> Limits:
        """The keys of `limits` in an `edge.yaml`, as text with units or as plain counts."""
        table = self.tables.table(value, path)
        reader = Reader(self.tables.base)
        node = node_from_plain({key: str(item) for key, item in table.items()})
        limits = reader.group(LOCAL_LIMITS, node, path)
        self.tables.problems += reader.problems
        return limits


def _route(host: str, path: str) -> Route:
    return Route(names.read_host(host), names.read_path(path))


def _name_of(document: Table) -> str:
    """The project's name where it can be a service's."""
    name = document.get("name")
    try:
        return names.read_service_name(name) if isinstance(name, str) else "app"
    except ValueError:
        return "app"

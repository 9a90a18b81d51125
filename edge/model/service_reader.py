"""Reads services from a document tree: their routes, stores, secrets and limits.

Secrets come from the document, from the environment or, through a function that the caller hands
in, from files; nothing here opens one.  Messages never quote what a secret holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.model import names
from edge.model.acl import AclEntry
from edge.model.backend import Backend
from edge.model.backend_reader import BackendReader, Trust
from edge.model.documented import documented
from edge.model.limits import Limits, above_ceiling
from edge.model.platform_reader import acl_from_json, read_acl_entry
from edge.model.reader import Reader, parsed, text_of
from edge.model.route import Route, find_conflicts
from edge.model.secret import Secret
from edge.model.service import Service
from edge.model.units import write_bytes, write_duration, write_share
from edge.model.yaml_lines import PRIVATE_VARIABLES, Entries, Items, Node, Scalar, join
from edge.settings import Kind

# What the Fastly secret store takes as one value, and far above any key or token.
MAX_SECRET_BYTES = 64 * 1024
# Of certificates or of a key: a distribution's whole bundle, about 220 KB, with one's own added.
MAX_PEM_BYTES = 256 * 1024

ReadFile = Callable[[Path], bytes]

_WRITERS: Mapping[Kind, Callable[..., str]] = {
    Kind.DURATION: write_duration,
    Kind.BYTES: write_bytes,
    Kind.SHARE: write_share,
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services are read against."""

    defaults: Limits
    ceilings: Limits
    env: Mapping[str, str]
    read_file: ReadFile | None = None
    trusted: bool = False  # the operator's own document: its backends may lead anywhere


class ServiceReader(Reader):
    """Reads services; `problems` has what is wrong with them."""

    def __init__(self, base: Path, around: Surroundings) -> None:
        special = {
            Kind.ROUTES: self._routes,
            Kind.LIMITS: self._limits,
            Kind.STORES: self._stores,
            Kind.SECRETS: self._secret_stores,
            Kind.BACKENDS: self._backends,
            Kind.KV_STORES: self._kv_stores,
            Kind.ACLS: self._acls,
        }
        super().__init__(base, special)
        self._around = around

    def services(self, node: Node, path: str = "services") -> tuple[Service, ...]:
        """Every service that could be read, checked for routes that repeat one another."""
        found: list[tuple[Service, Node]] = []
        entries = self.entries(node, path)
        for name, child in entries.entries.items():
            service = self.service(name, child, join(path, name))
            if service is not None:
                found.append((service, child))
        for conflict in find_conflicts([service.routes for service, _ in found]):
            (first, first_at), (second, second_at) = conflict.first, conflict.second
            there = join(path, f"{found[first][0].name}.routes[{first_at}]")
            here = join(path, f"{found[second][0].name}.routes[{second_at}]")
            line = _route_line(found[second][1], second_at)
            self.problem(here, f"{conflict.route} is already the route {there}", line)
        return tuple(service for service, _ in found)

    def service(self, name: str, node: Node, path: str) -> Service | None:
        """One service, or None when what it cannot do without is missing or bad."""
        try:
            names.read_service_name(name)
        except ValueError as error:
            self.problem(path, str(error), node.line)
        values = self.changes(Service, self._one_spelling(node, path), path)
        if "module" not in values or "routes" not in values:
            return None
        values.setdefault("limits", self._around.defaults)
        return Service(name, **values)  # type: ignore[arg-type]

    def _one_spelling(self, node: Node, path: str) -> Node:
        """`dictionaries` merged into `config_stores`: the ABI has both over one namespace."""
        if not isinstance(node, Entries) or "dictionaries" not in node.entries:
            return node
        rest = dict(node.entries)
        first = self.entries(rest.pop("dictionaries"), join(path, "dictionaries"))
        line = node.lines["dictionaries"]
        if "config_stores" not in rest:
            merged = first
        else:
            second = self.entries(rest["config_stores"], join(path, "config_stores"))
            for name in first.entries.keys() & second.entries.keys():
                where = join(join(path, "dictionaries"), name)
                self.problem(where, "is also one of config_stores", first.lines[name])
            merged = Entries(
                {**second.entries, **first.entries}, {**second.lines, **first.lines}, line
            )
        rest["config_stores"] = merged
        return Entries(rest, {**node.lines, "config_stores": line}, node.line)

    def _routes(self, node: Node, path: str) -> tuple[Route, ...]:
        if not isinstance(node, Items):
            raise ValueError("must be a list of routes such as [{host: example.com, path: /}]")
        if not node.items:
            raise ValueError("is empty; nothing would reach the service")
        found: list[Route] = []
        for position, one in enumerate(node.items):
            where = join(path, position)
            entries = self.entries(one, where)
            self.check_keys(entries, ("host", "path"), where)
            host = self._part(entries, where, "host", names.read_host, names.DEFAULT_HOST)
            shape, exact = entries, False
            at = where
            if isinstance(inner := entries.entries.get("path"), Entries):
                at = join(where, "path")
                self.check_keys(inner, ("exact",), at)
                if "exact" not in inner.entries:
                    self.problem(at, "must be a path or {exact: PATH}", inner.line)
                shape, exact = inner, True
            key = "exact" if exact else "path"
            found.append(Route(host, self._part(shape, at, key, names.read_path, "/"), exact))
        return tuple(found)

    def _part(
        self, node: Entries, path: str, key: str, read: Callable[[str], str], default: str
    ) -> str:
        child = node.entries.get(key)
        if child is None:
            return default
        try:
            return parsed(child, read)
        except ValueError as error:
            self.problem(join(path, key), str(error), child.line)
            return default

    def _limits(self, node: Node, path: str) -> Limits:
        limits = self.group(self._around.defaults, node, path)
        entries = self.entries(node, path)
        ceilings = self._around.ceilings
        kinds = {item.name: item.about.kind for item in documented(Limits)}
        for name in above_ceiling(limits, ceilings):
            if name not in entries.entries:
                continue  # the default itself is too high: reported once, where it is written
            write = _WRITERS.get(kinds[name], str)
            value, ceiling = write(getattr(limits, name)), write(getattr(ceilings, name))
            self.problem(
                join(path, name),
                f"{value} is above the operator's ceiling of {ceiling} (ceilings.{name})",
                entries.lines[name],
            )
        return limits

    def _stores(self, node: Node, path: str) -> dict[str, dict[str, str]]:
        return {
            name: self.text_map(child, join(path, name), names.read_name)
            for name, child in self._named(node, path)
        }

    def _secret_stores(self, node: Node, path: str) -> dict[str, dict[str, Secret]]:
        stores: dict[str, dict[str, Secret]] = {}
        for name, child in self._named(node, path):
            store = stores.setdefault(name, {})
            for key, secret in self._named(child, join(path, name)):
                try:
                    store[key] = self._secret(secret)
                except ValueError as error:
                    self.problem(join(join(path, name), key), str(error), secret.line)
        return stores

    def _backends(self, node: Node, path: str) -> dict[str, Backend]:
        trust = Trust(self._pem, dynamic=not self._around.trusted)
        reader = BackendReader(self.base, trust)
        found = reader.backends(node, path)
        self.problems += reader.problems
        return found

    def _kv_stores(self, node: Node, path: str) -> dict[str, str]:
        if isinstance(node, Items):
            return dict.fromkeys(self.each(node, path, names.read_name), "")
        return {
            name: "" if isinstance(child, Scalar) and child.null else parsed(child, names.read_name)
            for name, child in self._named(node, path)
        }

    def _acls(self, node: Node, path: str) -> dict[str, tuple[AclEntry, ...]]:
        found: dict[str, tuple[AclEntry, ...]] = {}
        for name, child in self._named(node, path):
            where = join(path, name)
            try:
                found[name] = self._acl(child, where)
            except ValueError as error:
                self.problem(where, str(error), child.line)
        return found

    def _acl(self, node: Node, path: str) -> tuple[AclEntry, ...]:
        if isinstance(node, Entries) and list(node.entries) == ["file"]:
            return acl_from_json(parsed(node.entries["file"], self._from_file))
        if not isinstance(node, Items):
            raise ValueError("must be a list of {prefix: NETWORK, action: TEXT} or {file: PATH}")
        found = []
        for position, one in enumerate(node.items):
            where = join(path, position)
            entries = self.entries(one, where)
            self.check_keys(entries, ("prefix", "action"), where)
            try:
                if not {"prefix", "action"} <= entries.entries.keys():
                    raise ValueError("needs both prefix and action")
                prefix, action = (text_of(entries.entries[key]) for key in ("prefix", "action"))
                found.append(read_acl_entry(prefix, action))
            except ValueError as error:
                self.problem(where, str(error), one.line)
        return tuple(found)

    def _named(self, node: Node, path: str) -> list[tuple[str, Node]]:
        """The entries whose keys can be names; the others are noted."""
        found: list[tuple[str, Node]] = []
        for key, child in self.entries(node, path).entries.items():
            try:
                found.append((names.read_name(key), child))
            except ValueError as error:
                self.problem(path, str(error), child.line)
        return found

    def _secret(self, node: Node) -> Secret:
        return Secret(self._material(node, MAX_SECRET_BYTES))

    def _pem(self, node: Node) -> bytes:
        return self._material(node, MAX_PEM_BYTES)

    def _material(self, node: Node, most: int) -> bytes:
        """What must not be quoted: text, a variable's value, or what a file holds."""
        if isinstance(node, Scalar):
            value = text_of(node).encode("utf-8", "surrogateescape")
        elif isinstance(node, Entries) and list(node.entries) == ["env"]:
            value = parsed(node.entries["env"], self._from_environment)
        elif isinstance(node, Entries) and list(node.entries) == ["file"]:
            value = parsed(node.entries["file"], self._from_file)
        else:
            raise ValueError("must be text, {env: NAME} or {file: PATH}")
        if len(value) > most:
            raise ValueError(f"is larger than {write_bytes(most)}")
        return value

    def _from_environment(self, name: str) -> bytes:
        if name in PRIVATE_VARIABLES:
            raise ValueError(f"{name} is the server's own and is never given to a guest")
        if name not in self._around.env:
            raise ValueError(f"the environment variable {name} is not set")
        return self._around.env[name].encode("utf-8", "surrogateescape")

    def _from_file(self, text: str) -> bytes:
        path = self.path(text)
        if self._around.read_file is None:
            raise ValueError("cannot be read from a file here; give the text itself")
        try:
            value = self._around.read_file(path)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
        # editors and `echo` end a file with a line break that is no part of the secret
        return value.removesuffix(b"\n").removesuffix(b"\r")


def _route_line(service: Node, position: int) -> int | None:
    routes = service.entries["routes"] if isinstance(service, Entries) else service
    return routes.items[position].line if isinstance(routes, Items) else routes.line

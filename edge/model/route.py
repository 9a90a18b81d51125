"""Which service answers a host and a path: the most specific host, then the most specific path.

Paths are compared as they came, byte for byte: dot segments and `%2f` mean nothing here, so no
rewriting on the way can carry a request across a route.  Not here: Host parsing (the caller gives
the host in lower case, without port and trailing dot) and the query (the caller leaves it out).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from edge.errors import ConfigError, Problem
from edge.model.names import DEFAULT_HOST
from edge.settings import About, Kind


@dataclass(frozen=True, slots=True)
class Route:
    """One way to a service.  A prefix covers its path and everything below it, by segments."""

    host: Annotated[
        str,
        About(
            Kind.HOST,
            "The host: exact, `*.example.com` for every name below it at any depth (not "
            '`example.com` itself), or `"*"` for hosts that no other route names.',
        ),
    ] = DEFAULT_HOST
    path: Annotated[
        str,
        About(
            Kind.URL_PATH,
            "A prefix on segment borders: `/api` covers `/api` and `/api/x`, not `/apix`; a "
            "trailing slash makes no difference. `{exact: /x}` is that path alone.",
        ),
    ] = "/"
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.host} {'exactly ' if self.exact else ''}{self.path}"

    @property
    def key(self) -> tuple[str, str, bool]:
        """Two routes with the same key cannot be told apart by any request."""
        return self.host, self.path if self.exact else self.path.rstrip("/"), self.exact


class Miss(Enum):
    """Why no service answers."""

    HOST = "no service has this host"  # answered 421
    PATH = "the host has no service for this path"  # answered 404


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two routes that no request can tell apart, each as (target, position among its routes)."""

    first: tuple[int, int]
    second: tuple[int, int]
    route: Route


def find_conflicts(routes: Sequence[Sequence[Route]]) -> list[Conflict]:
    """Every route that repeats an earlier one, given the routes of each target in order."""
    seen: dict[tuple[str, str, bool], tuple[int, int]] = {}
    conflicts: list[Conflict] = []
    for target, its in enumerate(routes):
        for position, route in enumerate(its):
            here = (target, position)
            first = seen.setdefault(route.key, here)
            if first != here:
                conflicts.append(Conflict(first, here, route))
    return conflicts


class _Paths:
    """The paths of one host."""

    __slots__ = ("exact", "lengths", "prefixes", "root")

    def __init__(self) -> None:
        self.exact: dict[bytes, int] = {}
        self.prefixes: dict[bytes, int] = {}
        self.lengths: tuple[int, ...] = ()
        self.root: int | Miss = Miss.PATH

    def add(self, route: Route, target: int) -> None:
        if route.exact:
            self.exact[route.path.encode()] = target
        elif prefix := route.path.rstrip("/").encode():
            self.prefixes[prefix] = target
            self.lengths = tuple(sorted({len(known) for known in self.prefixes}, reverse=True))
        else:
            self.root = target


class RouteTable:
    """Maps host and path to the position of a target in the sequence it was built from.

    Immutable once built; raises ConfigError when two routes are the same.  A lookup is a few
    dictionary probes: one for the host (for a name that no route names, one per label), one for
    the exact path, one per *distinct length* of that host's prefixes.  So its cost is bounded by
    the configuration and not by what a client sends.
    """

    __slots__ = ("_default", "_exact", "_wildcards")

    def __init__(self, routes: Iterable[Sequence[Route]]) -> None:
        targets = list(routes)
        if conflicts := find_conflicts(targets):
            raise ConfigError(
                *(Problem("", f"two routes for {conflict.route}") for conflict in conflicts)
            )
        self._exact: dict[bytes, _Paths] = {}
        self._wildcards: dict[bytes, _Paths] = {}  # keyed `.example.com`
        self._default: _Paths | None = None
        for target, its in enumerate(targets):
            for route in its:
                self._paths(route.host).add(route, target)

    def _paths(self, host: str) -> _Paths:
        if host == DEFAULT_HOST:
            if self._default is None:
                self._default = _Paths()
            return self._default
        if host.startswith("*."):
            return self._wildcards.setdefault(host[1:].encode(), _Paths())
        return self._exact.setdefault(host.encode(), _Paths())

    def match(self, host: bytes, path: bytes) -> int | Miss:
        """The target for a request, or why there is none.

        `host` is in lower case, without port and trailing dot, an IPv6 address in its brackets
        and shortest form; `path` is raw and has no query.

        A host that has routes of its own never falls back to a wildcard or to the default: its
        unmatched paths are 404 and not another tenant's.
        """
        paths = self._exact.get(host)
        if paths is None:
            paths = self._below(host) if self._wildcards else self._default
            if paths is None:
                return Miss.HOST
        if paths.exact:
            found = paths.exact.get(path)
            if found is not None:
                return found
        for length in paths.lengths:
            # the byte after a prefix is "/" or the end: `/api` is not `/apix`
            if path[length : length + 1] in _BORDER:
                found = paths.prefixes.get(path[:length])
                if found is not None:
                    return found
        # `*` of "OPTIONS *" (RFC 9112 §3.2.4) is below no path
        return paths.root if path[:1] == b"/" else Miss.PATH

    def _below(self, host: bytes) -> _Paths | None:
        """The longest wildcard above a host, at any depth as in the Kubernetes Gateway API."""
        wildcards = self._wildcards
        dot = host.find(b".", 1)  # `*` stands for at least one character
        while dot > 0:
            paths = wildcards.get(host[dot:])
            if paths is not None:
                return paths
            dot = host.find(b".", dot + 1)
        return self._default


_BORDER = (b"/", b"")

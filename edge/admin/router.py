"""Which route a request takes: a tree of path segments, built once from all declared routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from edge.admin.api import Route
from edge.errors import ApiRefused, Refusal

MAX_SEGMENTS: Final = 32  # far above any route; a longer path is none
_TAIL: Final = "...}"  # ends a last segment that stands for all that is left, slashes included
_READS: Final = {"HEAD": "GET"}  # HEAD is answered by GET's endpoint, without the body


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, and the parts of its path that have names."""

    route: Route
    params: Mapping[str, str]  # percent-decoded


class NoMethod(ApiRefused):
    """The path exists, and is asked for in a way it does not know."""

    def __init__(self, method: str, path: str, allowed: Sequence[str], *, fastly: bool) -> None:
        known = ", ".join(allowed)
        super().__init__(
            Refusal.METHOD_NOT_ALLOWED, f"{method} cannot be done to {path}; it knows {known}"
        )
        self.allowed = known
        self.fastly = fastly


@dataclass(slots=True)
class _Node:
    """What may follow a beginning of a path."""

    literal: dict[str, _Node] = field(default_factory=dict)
    named: _Node | None = None
    tail: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)  # by method, of a path that ends here


class Router:
    """Literal segments win over named ones.  Not changed once it is built."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError when two routes are the same."""
        self._root = _Node()
        self.routes: list[Route] = []
        for route in routes:
            self._add(route)
        self.max_body = max((route.max_body for route in self.routes), default=0)

    def match(self, method: str, path: str) -> Match:
        """The route of `path` as it was received, without the query.

        Raises ApiRefused NOT_FOUND, NoMethod, BAD_REQUEST for an escape that is not UTF-8, INVALID
        for one that is NUL.
        """
        segments = path.split("/")[1:]
        if len(segments) > MAX_SEGMENTS:
            raise ApiRefused(Refusal.NOT_FOUND, "the path has more segments than any route")
        taken: list[str] = []
        node = _walk(self._root, segments, 0, taken)
        if node is None:
            raise ApiRefused(
                Refusal.NOT_FOUND, "there is no such path; /v1/openapi.json lists those there are"
            )
        wanted = _READS.get(method, method)
        route = node.routes.get(wanted)
        if route is None:
            fastly = next(iter(node.routes.values())).fastly
            raise NoMethod(method, path, _methods(node), fastly=fastly)
        names = _names(route.pattern)
        return Match(route, dict(zip(names, map(_decoded, taken), strict=True)))

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.pattern.split("/")[1:]:
            if segment.endswith(_TAIL):
                node.tail = node = node.tail or _Node()
            elif _is_named(segment):
                if node.named is None:
                    node.named = _Node()
                node = node.named
            else:
                node = node.literal.setdefault(segment, _Node())
        if route.method in node.routes:
            raise ValueError(f"{route.method} {route.pattern} is declared twice")
        if route.service and route.service not in _names(route.pattern):
            raise ValueError(f"{route.pattern} has no part {route.service!r}")
        node.routes[route.method] = route
        self.routes.append(route)


def _walk(node: _Node, segments: Sequence[str], at: int, taken: list[str]) -> _Node | None:
    """The node of a path; `taken` collects what stands for names.

    A literal that leads nowhere is given up for a name: `/a/{x}/c` is found beside `/a/b`.  Both
    ways are tried at most at each of 32 segments, along branches that routes really have.
    """
    if at == len(segments):
        return node if node.routes else None
    segment = segments[at]
    child = node.literal.get(segment)
    if child is not None:
        found = _walk(child, segments, at + 1, taken)
        if found is not None:
            return found
    if node.named is not None and segment:
        taken.append(segment)
        found = _walk(node.named, segments, at + 1, taken)
        if found is not None:
            return found
        taken.pop()
    if node.tail is not None:
        taken.append("/".join(segments[at:]))
    return node.tail


def _methods(node: _Node) -> list[str]:
    return sorted({*node.routes, *(["HEAD"] if "GET" in node.routes else [])})


def _is_named(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}")


def _names(pattern: str) -> list[str]:
    found = [segment[1:-1] for segment in pattern.split("/") if _is_named(segment)]
    return [name.removesuffix("...") for name in found]


def _decoded(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise ApiRefused(Refusal.BAD_REQUEST, "a part of the path is not UTF-8") from None
    if "\x00" in text:
        raise ApiRefused(Refusal.INVALID, "a part of the path has a NUL")
    return text

"""Everything a worker serves from, resolved and immutable: settings, versions and their routes.

The supervisor builds a snapshot and sends it through a pipe; a worker swaps one reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

from edge.errors import ConfigError, Problem
from edge.model.plain import from_plain, to_plain
from edge.model.route import Miss, Route, RouteTable, find_conflicts
from edge.model.service import Role, Version
from edge.settings import Settings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of the served world; higher generations replace lower ones.

    Of a service there may be several versions; routes lead to the active one alone.  `like` is an
    earlier snapshot: with the same routes its table is taken over.  Raises ConfigError when two
    services have the same route or name.
    """

    generation: int
    settings: Settings
    versions: tuple[Version, ...]
    routes: RouteTable = field(init=False, repr=False, compare=False)
    like: InitVar[Snapshot | None] = None

    def __post_init__(self, like: Snapshot | None) -> None:
        if like is not None and _rows(like.versions) == _rows(self.versions):
            table = like.routes  # 500 services take 3 ms otherwise
        else:
            table = _table(self.versions)
        object.__setattr__(self, "routes", table)
        if like is None or like.versions is not self.versions:
            _refuse_doubles(self.versions)

    def lookup(self, host: bytes, path: bytes) -> Version | Miss:
        """The version that answers; host in lower case without port, path raw without query."""
        found = self.routes.match(host, path)
        return found if isinstance(found, Miss) else self.versions[found]

    def to_json(self) -> dict[str, object]:
        """Plain types for `json.dumps`.  Secrets are in it, in the clear: for our own pipe only."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Snapshot:
        """The snapshot that `to_json` described; raises KeyError, TypeError or ValueError."""
        return from_plain(cls, data)


def _rows(versions: Sequence[Version]) -> list[tuple[Route, ...]]:
    """The routes that lead to each version, so that a route's target is a version's position."""
    return [version.service.routes if version.role is Role.ACTIVE else () for version in versions]


def _table(versions: Sequence[Version]) -> RouteTable:
    rows = _rows(versions)
    try:
        return RouteTable(rows)
    except ConfigError:
        names = [version.service.name for version in versions]
        problems = [
            Problem(
                f"services.{names[found.second[0]]}.routes[{found.second[1]}]",
                f"two routes for {found.route}: the other is {names[found.first[0]]}'s",
            )
            for found in find_conflicts(rows)
        ]
        raise ConfigError(*problems) from None


def _refuse_doubles(versions: Sequence[Version]) -> None:
    seen: set[str] = set()
    for version in versions:
        label = version.label
        if label in seen:
            raise ConfigError(Problem(f"services.{label}", "two services have this name"))
        seen.add(label)

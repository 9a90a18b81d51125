"""Everything a worker serves from, resolved and immutable: settings, versions and their routes.

The supervisor builds a snapshot and sends it through a pipe; a worker swaps one reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edge.model.plain import from_plain, to_plain
from edge.model.route import Miss, RouteTable
from edge.model.service import Version
from edge.settings import Settings


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of the served world; higher generations replace lower ones.

    Raises ConfigError when two services have the same route.
    """

    generation: int
    settings: Settings
    versions: tuple[Version, ...]
    routes: RouteTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = RouteTable([version.service.routes for version in self.versions])
        object.__setattr__(self, "routes", table)

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

"""What of a service is to be served, and the versions for it as the catalogue has them.

Reads the catalogue and builds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.catalogue.records import ServiceRecord
from edge.model.service import Role, Service


@dataclass(frozen=True, slots=True)
class Serving:
    """The numbers of the versions that are served, and how; at most one of each role."""

    active: int | None = None
    canary: int | None = None
    share: int = 0  # of the canary: clients in 10,000
    staged: int | None = None

    @classmethod
    def of(cls, record: ServiceRecord) -> Serving:
        """What the catalogue says."""
        canary = record.canary
        return cls(
            active=record.active,
            canary=canary.number if canary else None,
            share=canary.share if canary else 0,
            staged=record.staged,
        )

    def roles(self) -> Iterator[tuple[int, Role, int]]:
        """Number, role and share.  A version has one role: the first that applies to it.

        Without an active version there is nobody whose clients a canary could take.
        """
        if self.active is not None:
            yield self.active, Role.ACTIVE, 0
        taken = {self.active}
        if self.active is not None and self.canary is not None and self.canary not in taken:
            taken.add(self.canary)
            yield self.canary, Role.CANARY, self.share
        if self.staged is not None and self.staged not in taken:
            yield self.staged, Role.STAGED, 0

    @property
    def nothing(self) -> bool:
        """Whether no version has any role."""
        return next(self.roles(), None) is None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version, ready to be built."""

    id: str  # of the service
    service: Service
    number: int
    role: Role
    share: int
    sha256: str  # of its module
    revision: int  # of the version when it was read
    warnings: tuple[str, ...] = ()  # for its developer

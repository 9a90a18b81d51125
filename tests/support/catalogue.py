"""A catalogue in a directory of its own, blocking, on a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edge.catalogue import services, versions
from edge.catalogue.database import Catalogue, CatalogueLimits, Transaction
from edge.catalogue.keyring import Keyring
from edge.catalogue.records import Actor, Package, ServiceRecord
from edge.errors import ApiRefused, Refusal
from tests.support.clock import SteppedClock

T = TypeVar("T")
P = ParamSpec("P")
ALICE = Actor("alice", token_id="t1", remote="192.0.2.7", request_id="r1")
FILE, KEYS = "catalogue.sqlite3", "secrets.key"


class Desk:
    """What tests do to a catalogue: `with desk(path) as at: at.write(...)`."""

    def __init__(self, directory: Path, limits: CatalogueLimits) -> None:
        self.clock = SteppedClock()
        self.keyring = Keyring(directory / KEYS)
        self.catalogue = Catalogue(
            directory / FILE, clock=self.clock, limits=limits, keyring=self.keyring
        )

    def __enter__(self) -> Desk:
        self.catalogue.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.catalogue.close()

    def write(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        return self.catalogue.write_now(ALICE, lambda tx: work(tx, *args, **named))

    def read(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        return self.catalogue.read_now(lambda tx: work(tx, *args, **named))

    def refused(
        self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **named: P.kwargs
    ) -> Refusal:
        """Why a write is refused."""
        try:
            self.write(work, *args, **named)
        except ApiRefused as error:
            return error.refusal
        raise AssertionError("it was not refused")


def desk(directory: Path, **limits: int) -> Desk:
    return Desk(directory, CatalogueLimits(**limits))


def package(letter: str = "a") -> Package:
    """What a version needs; its module is a name only."""
    return Package(sha256=letter * 64, size=3, name="hello", authors=("ann", "bo"))


def served(tx: Transaction, name: str, count: int = 1) -> ServiceRecord:
    """A service with so many versions, each with a package; the first is active."""
    service = services.create(tx, name)
    for _ in range(count):
        number = versions.create(tx, service.id).number
        versions.set_package(tx, service.id, number, package())
    return services.set_active(tx, service.id, 1, reason="activate")

"""A process that changes a catalogue until it is killed, and tells of each change once it is done.

`python -m tests.support.catalogue_writer` forks a writer for each line `SEED DIR` that it reads:
starting an interpreter would take longer than all the rest.  It tells `{"pid": ...}`; the writer
tells `{"begin": what}` before a change and `{"done": what}` after it, as `Change` has them; when it
has ended, `{"ended": status}` follows.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.catalogue import entries, parts, services, stores, tokens, versions
from edge.catalogue.database import Catalogue, CatalogueLimits, Transaction
from edge.catalogue.keyring import Keyring
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Actor, Canary, Package, PartKind, Scope, ServiceRecord, StoreKind
from edge.catalogue.rotation import rotate
from edge.catalogue.tidy import Tidier
from edge.clock import SystemClock
from edge.errors import ApiRefused

WRITER = Actor("writer")
SERVICES, KEYS = 4, 6
KEEP = 4
LIMITS = CatalogueLimits(keep_versions=KEEP, audit_records=500)


@dataclass(frozen=True, slots=True)
class Change:
    """One change that is acknowledged."""

    op: str  # what `Writer` calls it
    name: str = ""  # of a service, a secret or a KV store
    number: int = 0
    text: str = ""  # of a secret or a token; the SHA-256 of a module; the owner of a KV store


def tell(**words: object) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def open_catalogue(directory: Path) -> tuple[Catalogue, PackageStore]:
    """As the server opens it."""
    packages = PackageStore(directory)
    packages.start()
    keyring = Keyring(directory / "secrets.key")
    catalogue = Catalogue(
        directory / "catalogue.sqlite3", clock=SystemClock(), limits=LIMITS, keyring=keyring
    )
    catalogue.start()
    return catalogue, packages


class Writer:
    """Random changes, one after the other."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.catalogue, self.packages = open_catalogue(directory)
        assert self.catalogue.keyring is not None
        self.keyring = self.catalogue.keyring
        self.tidier = Tidier(self.catalogue, self.packages)

    async def run(self) -> None:
        choices: list[Callable[[], Awaitable[None]]] = [
            self.deploy, self.deploy, self.deploy, self.activate, self.canary, self.deactivate,
            self.draft, self.secret, self.secret, self.forget, self.token, self.rotate, self.delete,
            self.keep, self.keep, self.drop,
        ]  # fmt: skip
        while True:
            await self.chance.choice(choices)()

    async def acknowledged(self, change: Change, work: Callable[[Transaction], object]) -> None:
        """One write; what is refused has changed nothing, and is told as not begun."""
        tell(begin=asdict(change))
        try:
            await self.catalogue.write(WRITER, work)
        except ApiRefused:
            tell(refused=asdict(change))
        else:
            tell(done=asdict(change))

    async def deploy(self) -> None:
        """A module, a version that has it, and its activation: two transactions."""
        name = self.name()
        data = self.chance.randbytes(self.chance.choice((10, 3000, 200_000)))
        sha256 = await asyncio.to_thread(self.packages.put, data)
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        number = 1 + await self.catalogue.read(lambda tx: _numbers(tx, service))

        def draft(tx: Transaction) -> None:
            found = service or services.create(tx, name)
            made = versions.create(tx, found.id).number
            assert made == number
            versions.set_package(tx, found.id, made, Package(sha256, len(data)))
            parts.add(tx, found.id, made, PartKind.DOMAIN, f"{name}.example", {"host": name})

        def activate(tx: Transaction) -> None:
            found = services.find(tx, name)
            services.set_active(tx, found.id, number, reason="activate")
            services.prune(tx, found.id, KEEP)

        await self.acknowledged(Change("draft", name, number, sha256), draft)
        await self.acknowledged(Change("activate", name, number), activate)
        await self.tidier.tidy()

    async def draft(self) -> None:
        name = self.name()
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        if service is not None:
            number = 1 + await self.catalogue.read(lambda tx: _numbers(tx, service))
            change = Change("draft", name, number)
            await self.acknowledged(change, lambda tx: versions.create(tx, service.id))

    async def activate(self) -> None:
        name = self.name()
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        if service is not None and service.latest:
            number = self.chance.randint(max(1, service.latest - KEEP), service.latest)
            await self.acknowledged(
                Change("activate", name, number),
                lambda tx: services.set_active(tx, service.id, number, reason="rollback"),
            )

    async def canary(self) -> None:
        name = self.name()
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        if service is not None and service.latest:
            canary = Canary(service.latest, self.chance.randint(1, 9999), 1.0, 0.1, 0.1, 100)
            await self.acknowledged(
                Change("canary", name, service.latest),
                lambda tx: services.set_canary(tx, service.id, canary),
            )

    async def deactivate(self) -> None:
        name = self.name()
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        if service is not None:
            await self.acknowledged(
                Change("deactivate", name),
                lambda tx: services.set_active(tx, service.id, None, reason="deactivate"),
            )

    async def delete(self) -> None:
        name = self.name()
        service = await self.catalogue.read(lambda tx: services.by_name(tx, name))
        if service is not None:
            change = Change("delete", name)
            await self.acknowledged(change, lambda tx: services.delete(tx, service.id))
            await self.tidier.tidy()

    async def secret(self) -> None:
        key, text = self.key(), hashlib.sha256(self.chance.randbytes(8)).hexdigest()

        def work(tx: Transaction) -> None:
            entries.put(tx, secret_store(tx), key, text.encode())

        await self.acknowledged(Change("secret", key, text=text), work)

    async def forget(self) -> None:
        key = self.key()
        await self.acknowledged(
            Change("forget", key), lambda tx: entries.delete(tx, secret_store(tx), key)
        )

    async def token(self) -> None:
        text = ""

        def work(tx: Transaction) -> None:
            nonlocal text
            _, text = tokens.create(tx, "t", [Scope.READ])

        tell(begin=asdict(Change("token")))
        try:
            await self.catalogue.write(WRITER, work)
        except ApiRefused:
            tell(refused=asdict(Change("token")))
        else:
            tell(done=asdict(Change("token", text=text)))

    async def rotate(self) -> None:
        tell(begin=asdict(Change("rotate")))
        await rotate(self.catalogue, self.keyring, WRITER)
        tell(done=asdict(Change("rotate")))

    async def keep(self) -> None:
        """A KV store, sometimes one that goes with its service."""
        key, name = self.key(), self.chance.choice((self.name(), ""))

        def work(tx: Transaction) -> None:
            owner = services.find(tx, name).id if name else ""
            stores.create(tx, StoreKind.KV, key, owner=owner)

        await self.acknowledged(Change("keep", key, text=name), work)

    async def drop(self) -> None:
        key = self.key()

        def work(tx: Transaction) -> None:
            stores.delete(tx, stores.find(tx, StoreKind.KV, key).id)

        await self.acknowledged(Change("drop", key), work)

    def name(self) -> str:
        return f"service-{self.chance.randrange(SERVICES)}"

    def key(self) -> str:
        return f"key-{self.chance.randrange(KEYS)}"


def secret_store(tx: Transaction) -> str:
    """The id of the one that is used, made by whoever comes first."""
    try:
        return stores.find(tx, StoreKind.SECRET, "s").id
    except ApiRefused:
        return stores.create(tx, StoreKind.SECRET, "s").id


def _numbers(tx: Transaction, service: ServiceRecord | None) -> int:
    """How many numbers of versions a service has given out."""
    if service is None:
        return 0
    return tx.count("SELECT numbers FROM service WHERE id = ?", service.id)


def main() -> None:
    for line in sys.stdin:
        seed, _, directory = line.strip().partition(" ")
        child = os.fork()
        if child == 0:
            asyncio.run(Writer(Path(directory), int(seed)).run())
        tell(pid=child)
        _, status = os.waitpid(child, 0)
        tell(ended=status)


if __name__ == "__main__":
    main()

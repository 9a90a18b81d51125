"""Entries of the store that a path names, as endpoints read and change them, ours and Fastly's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.admin.api import Call
from edge.admin.around import Around
from edge.admin.documents import one_more
from edge.admin.store_calls import changed
from edge.catalogue import entries
from edge.catalogue.records import Entry, Page, Store

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction


@dataclass(frozen=True, slots=True)
class EntryCalls:
    """What can be done to entries of every kind that the catalogue keeps.

    Everything raises ApiRefused: NOT_FOUND, and what `edge.catalogue.entries` says.
    """

    around: Around
    store: Callable[[Transaction, Call], Store]  # the one that the path names

    async def page(self, call: Call, page: Page, *, prefix: str = "") -> list[Entry]:
        """A part of the list by key; one more than its limit where the list goes on."""
        return await self.around.catalogue.read(
            lambda tx: entries.listing(tx, self.store(tx, call), one_more(page), prefix=prefix)
        )

    async def get(self, call: Call, wanted: str) -> Entry:
        """One, by its key or, in ACLs, its id."""
        return await self.around.catalogue.read(
            lambda tx: entries.get(tx, self.store(tx, call), wanted)
        )

    async def put(self, call: Call, key: str, value: bytes) -> tuple[Entry, bool]:
        """Whether there is one or not; True where there was none."""

        def work(tx: Transaction) -> tuple[Store, tuple[Entry, bool]]:
            store = self.store(tx, call)
            return store, entries.put(tx, store, key, value)

        return await changed(self.around, call, work)

    async def insert(self, call: Call, key: str, value: bytes) -> Entry:
        """Not where there is one."""

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store = self.store(tx, call)
            return store, entries.insert(tx, store, key, value)

        return await changed(self.around, call, work)

    async def update(self, call: Call, key: str, value: bytes) -> Entry:
        """Not where there is none."""

        def work(tx: Transaction) -> tuple[Store, Entry]:
            store = self.store(tx, call)
            return store, entries.put(tx, store, entries.get(tx, store, key).key, value)[0]

        return await changed(self.around, call, work)

    async def delete(self, call: Call, wanted: str) -> None:
        """One, by its key or, in ACLs, its id."""

        def work(tx: Transaction) -> tuple[Store, None]:
            store = self.store(tx, call)
            entries.delete(tx, store, wanted)
            return store, None

        await changed(self.around, call, work)

    async def batch(self, call: Call, changes: Sequence[tuple[str, str, bytes]]) -> None:
        """All of the changes, in order, or none."""

        def work(tx: Transaction) -> tuple[Store, None]:
            store = self.store(tx, call)
            entries.batch(tx, store, changes)
            return store, None

        await changed(self.around, call, work)

    async def replace_all(self, call: Call, contents: Mapping[str, bytes]) -> None:
        """Exactly these from now on."""

        def work(tx: Transaction) -> tuple[Store, None]:
            store = self.store(tx, call)
            entries.replace_all(tx, store, contents)
            return store, None

        await changed(self.around, call, work)

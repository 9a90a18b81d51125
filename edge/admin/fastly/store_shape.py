"""What Fastly's endpoints about stores share: whole lists, pages by cursor, batches of items."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from edge.admin.api import Call, Reply
from edge.admin.documents import parse_json
from edge.admin.fastly.shape import answer
from edge.admin.store_calls import seen_by
from edge.catalogue import entries, services, stores
from edge.catalogue.records import Entry, Page, Store, StoreKind
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

T = TypeVar("T")

MAX_LIMIT: Final = 1000
PER_PAGE: Final = 100  # where a client does not say
_LOT: Final = 64  # entries that are written at once; of the greatest length half a megabyte
MAX_CHANGES: Final = 1000  # of one batch, as Fastly has it


def all_stores(tx: Transaction, call: Call, kind: StoreKind, name: str = "") -> list[Store]:
    """Every store of a kind that the call may see; `deploy.stores` bounds them."""
    page = Page(tx.limits.stores)
    return stores.listing(tx, kind, page, name=name, owner=seen_by(call))


def all_entries(tx: Transaction, store: Store) -> list[Entry]:
    """Every entry of a store; `deploy.store_entries` bounds them."""
    return entries.listing(tx, store, Page(max(store.entries, 1)))


def service_of(tx: Transaction, call: Call) -> str:
    """Id of the service that the path names."""
    return services.find(tx, call.params["service"]).id


def cursor_page(call: Call, *, default: int = 100) -> Page:
    """The part of a list that `limit` and `cursor` ask for.  INVALID for a limit that is none."""
    text = call.asked("limit") or str(default)
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise ApiRefused(Refusal.INVALID, f"limit is a number from 1 to {MAX_LIMIT}")
    return Page(int(text), call.asked("cursor"))


def cursor_reply(
    items: Sequence[T],
    page: Page,
    write: Callable[[T], object],
    key: Callable[[T], str],
    *,
    under: str = "data",
) -> Reply:
    """A part of a list, of which one more than its limit was read."""
    shown = items[: page.limit]
    meta: dict[str, object] = {"limit": page.limit}
    if len(items) > page.limit:
        meta["next_cursor"] = key(shown[-1])
    return answer({under: [write(item) for item in shown], "meta": meta})


def stream(
    items: Sequence[T], write: Callable[[T], object], headers: Sequence[tuple[str, str]] = ()
) -> Reply:
    """A list, written as it is sent: it may be of many megabytes."""
    return Reply(200, _written(items, write), headers=headers)


async def _written(items: Sequence[T], write: Callable[[T], object]) -> AsyncIterator[bytes]:
    for start in range(0, len(items), _LOT):
        lot = [json.dumps(write(item), ensure_ascii=False) for item in items[start : start + _LOT]]
        yield (("," if start else "[") + ",".join(lot)).encode()
    yield b"]" if items else b"[]"


async def batch_of(call: Call, under: str) -> list[dict[str, object]]:
    """The changes of a batch.  BAD_REQUEST, INVALID, LIMIT."""
    document = await asyncio.to_thread(parse_json, await call.body.read())
    found = document.get(under) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ApiRefused(
            Refusal.INVALID, f'the body must be {{"{under}": [...]}} with an object for each change'
        )
    if len(found) > MAX_CHANGES:
        raise ApiRefused(
            Refusal.LIMIT, f"{len(found)} changes; a batch has at most {MAX_CHANGES}, send several"
        )
    return found


async def item_changes(call: Call) -> list[tuple[str, str, bytes]]:
    """A batch of items of a config store or a dictionary, for `entries.batch`."""
    changes = []
    for item in await batch_of(call, "items"):
        op, key, value = item.get("op"), item.get("item_key"), item.get("item_value")
        if value is None:  # the CLI's way to delete
            value = ""
        if not (isinstance(op, str) and isinstance(key, str) and isinstance(value, str)):
            raise ApiRefused(
                Refusal.INVALID,
                "each item has the texts op, item_key and (but for delete) item_value",
            )
        changes.append((op, key, encoded(value)))
    return changes


def encoded(text: str) -> bytes:
    """UTF-8.  INVALID for half a surrogate pair, which JSON can spell."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ApiRefused(Refusal.INVALID, "a text is not Unicode") from None

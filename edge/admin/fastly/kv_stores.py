"""Fastly's KV stores and the values in them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.fastly.shape import answer, done, endpoint, times
from edge.admin.fastly.store_endpoints import StoreEndpoints
from edge.admin.fastly.store_shape import cursor_page
from edge.admin.kv_calls import Values, no_key
from edge.admin.store_calls import utf8
from edge.catalogue import stores
from edge.catalogue.records import Scope, Store, StoreKind
from edge.errors import ApiRefused, Problem, Refusal
from edge.stores.kv import Insertion, InsertMode, insertion_of

_STORES: Final = "/resources/stores/kv"
_ONE: Final = f"{_STORES}/{{store}}"
_KEY: Final = f"{_ONE}/keys/{{key}}"
_OCTETS: Final = "application/octet-stream"
MAX_TTL: Final = 10**9  # seconds, thirty years
MAX_BATCH: Final = 64 * 1024 * 1024  # bytes of one batch
# Nothing else runs while one line is parsed: 4 ms at most.
MAX_LINE: Final = 4 * 1024 * 1024
MAX_LINES: Final = 100_000  # of one batch: each takes a turn of a thread, even one that is empty
_MOST_PROBLEMS: Final = 20  # of one batch; then it is given up
_FLAGS: Final = {
    "add": InsertMode.ADD,
    "append": InsertMode.APPEND,
    "prepend": InsertMode.PREPEND,
}


def routes(around: Around) -> list[Route]:
    """As the CLI's `kv-store` and `kv-store-entry` call them."""
    its = StoreEndpoints(around, StoreKind.KV, _shape, created=201)
    do = _KvStores(around, its, Values(around))
    deploy, largest = Scope.DEPLOY, around.settings.storage.kv_value_bytes
    return [
        endpoint("GET", _STORES, its.page, confined=True),
        endpoint("POST", _STORES, its.create, deploy, confined=True),
        endpoint("GET", _ONE, its.get, confined=True),
        endpoint("PUT", _ONE, its.rename, deploy, confined=True),
        endpoint("DELETE", _ONE, do.delete, deploy, confined=True),
        endpoint("GET", f"{_ONE}/keys", do.keys, confined=True),
        endpoint("GET", _KEY, do.get_key, confined=True),
        endpoint("PUT", _KEY, do.put_key, deploy, confined=True, max_body=largest),
        endpoint("DELETE", _KEY, do.delete_key, deploy, confined=True),
        endpoint("PUT", f"{_ONE}/batch", do.batch, deploy, confined=True, max_body=MAX_BATCH),
    ]


@dataclass(frozen=True, slots=True)
class _KvStores:
    around: Around
    its: StoreEndpoints
    values: Values

    async def delete(self, call: Call) -> Reply:
        """Only an empty one, as on Fastly."""
        store = await self.its.found(call)
        if (await self.values.keys(store, "", "", 1)).keys:
            raise ApiRefused(
                Refusal.IN_USE,
                f"KV store {store.name!r} is not empty; delete its keys first (the CLI's --all)",
            )
        await self.around.catalogue.write(call.actor, lambda tx: stores.delete(tx, store.id))
        await self.around.control.store_deleted(store.id)
        await self.around.control.stores_changed([store.id])
        return Reply(204)

    async def keys(self, call: Call) -> Reply:
        """A page may be short of its limit, or empty, and not be the last."""
        store, wanted = await self.its.found(call), cursor_page(call)
        page = await self.values.keys(store, call.asked("prefix"), wanted.after, wanted.limit)
        meta: dict[str, object] = {"limit": page.limit}
        if page.next_cursor:
            meta["next_cursor"] = page.next_cursor
        return answer({"data": page.keys, "meta": meta})

    async def get_key(self, call: Call) -> Reply:
        value = await self.values.get(await self.its.found(call), call.params["key"])
        headers = [("generation", str(value.generation))]
        if value.metadata:
            headers.append(("metadata", _in_field(value.metadata)))
        return Reply(200, value, _OCTETS, headers)

    async def put_key(self, call: Call) -> Reply:
        """`background_fetch` changes nothing: there is no copy that could be stale."""
        store = await self.its.found(call)
        modes = [mode for flag, mode in _FLAGS.items() if call.asked(flag) == "true"]
        if len(modes) > 1:
            raise ApiRefused(Refusal.INVALID, "at most one of add, append and prepend can be true")
        generation = _number(call.headers("if-generation-match"), "if-generation-match")
        metadata = (call.headers("metadata") or "").encode("latin-1")
        utf8(metadata, "the metadata")
        await self.values.put(
            store,
            call.params["key"],
            await call.body.read(),
            mode=modes[0] if modes else InsertMode.OVERWRITE,
            metadata=metadata,
            ttl=_number(call.headers("time_to_live_sec"), "time_to_live_sec", MAX_TTL),
            generation=generation,
            must_exist=generation is not None,
        )
        return done()

    async def delete_key(self, call: Call) -> Reply:
        """`force`: nothing to delete is no error."""
        store, key = await self.its.found(call), call.params["key"]
        generation = _number(call.headers("if-generation-match"), "if-generation-match")
        found = await self.values.delete(store, key, generation)
        if not found and call.asked("force") != "true":
            raise no_key(store, key)
        return Reply(204)

    async def batch(self, call: Call) -> Reply:
        """Lines of JSON, each a key and a value in base64.  What can be stored is."""
        store = await self.its.found(call)
        data = await call.body.read()
        if await asyncio.to_thread(data.count, b"\n") > MAX_LINES:
            raise ApiRefused(Refusal.LIMIT, f"a batch has at most {MAX_LINES} lines, send several")
        problems: list[Problem] = []
        place = end = -1
        while end < len(data) and len(problems) < _MOST_PROBLEMS:
            start, place = end + 1, place + 1
            end = data.find(b"\n", start)
            end = len(data) if end < 0 else end
            try:
                found = await asyncio.to_thread(_insertion, data, start, end)
                if found is not None:
                    await self.values.insert(store, *found)
            except ApiRefused as error:
                problems.append(Problem("", error.detail, place + 1))
        if problems:
            raise ApiRefused(
                Refusal.INVALID,
                "not everything was stored; lines without a problem were, unless they come after "
                f"the {_MOST_PROBLEMS}th",
                problems=tuple(problems),
            )
        return done()


def _shape(store: Store) -> dict[str, object]:
    shape = times(store.created_at, store.updated_at)
    del shape["deleted_at"]
    return {"id": store.id, "name": store.name, **shape}


def _in_field(metadata: bytes) -> str:
    """Metadata as a field can hold it: what cannot stand there becomes a question mark."""
    return bytes(octet if octet >= 0x20 and octet != 0x7F else 0x3F for octet in metadata).decode(
        "latin-1"
    )


def _number(text: str | None, what: str, most: int = 2**63 - 1) -> int | None:
    if text is None or not text.strip():
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= most):
        raise ApiRefused(Refusal.INVALID, f"{what} must be a whole number up to {most}")
    return int(text)


def _insertion(data: bytes, start: int, end: int) -> tuple[str, Insertion] | None:
    """One line of a batch; None for an empty one.  In a thread: lines are long."""
    if end - start > MAX_LINE:
        raise ApiRefused(
            Refusal.INVALID,
            f"has more than {MAX_LINE} bytes; store so large a value alone (the CLI's --dir does)",
        )
    line = data[start:end].strip()
    if not line:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ApiRefused(Refusal.INVALID, "is not JSON") from None
    if not isinstance(found, dict):
        raise ApiRefused(Refusal.INVALID, "is not a JSON object")
    key, value, metadata = found.get("key"), found.get("value"), found.get("metadata") or ""
    if not (isinstance(key, str) and isinstance(value, str) and isinstance(metadata, str)):
        raise ApiRefused(Refusal.INVALID, "needs the texts key and value")
    try:
        raw = base64.b64decode(value, validate=True)
        key.encode()
        return key, insertion_of(
            raw,
            mode=next(
                (mode for flag, mode in _FLAGS.items() if found.get(flag) is True),
                InsertMode.OVERWRITE,
            ),
            metadata=metadata.encode(),
            ttl=_number(_text(found.get("time_to_live_sec")), "time_to_live_sec", MAX_TTL),
            generation=_number(_text(found.get("if_generation_match")), "if_generation_match"),
            must_exist=found.get("if_generation_match") is not None,
        )
    except binascii.Error:
        raise ApiRefused(Refusal.INVALID, f"{key[:64]!r}: the value is not base64") from None
    except UnicodeEncodeError:
        raise ApiRefused(Refusal.INVALID, "has a text that is not Unicode") from None


def _text(value: object) -> str | None:
    return None if value is None else str(value)

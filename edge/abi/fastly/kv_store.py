"""`fastly_kv_store`: values under keys that outlive the request, with generations and metadata.

What a store refuses is told through `kv_error`; the status tells of the call itself.
"""

from __future__ import annotations

from collections.abc import Coroutine
from enum import IntEnum
from json.encoder import encode_basestring
from typing import Annotated, Any

from edge.abi.codec import MAX_TEXT, U32, Bits, Handle, Out, Str
from edge.abi.fastly.kv_insert import start_insert
from edge.abi.fastly.kv_ops import (
    KvError,
    Nothing,
    OutNumber,
    OutU32,
    OutU64,
    PendingDelete,
    PendingInsert,
    PendingList,
    PendingLookup,
    Store,
    body_of,
    error_of,
    make_room,
    open_store,
    pending,
    start_delete,
    start_lookup,
    when_ready,
)
from edge.abi.fastly.status import FASTLY
from edge.abi.fastly.waiting import wait_any
from edge.abi.hostcall import HostModule
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import HostcallError, InvalidArgument
from edge.http.body import Body
from edge.stores.kv import Insertion, InsertMode, KvFailed, KvOperation
from edge.stores.kv_rules import MAX_LIST, MAX_METADATA

abi = HostModule("fastly_kv_store", FASTLY)

_METADATA, _TTL, _GENERATION = 8, 16, 32
_CURSOR, _LIMIT, _PREFIX = 2, 4, 8
NoOptions = Annotated[int, Bits(known=0)]
InsertOptions = Annotated[int, Bits(known=2 | _METADATA | _TTL | _GENERATION)]  # background_fetch
ListOptions = Annotated[int, Bits(known=_CURSOR | _LIMIT | _PREFIX)]
NewLookup = Annotated[PendingLookup, Handle(PendingLookup)]
NewInsert = Annotated[PendingInsert, Handle(PendingInsert)]
NewDelete = Annotated[PendingDelete, Handle(PendingDelete)]
NewList = Annotated[PendingList, Handle(PendingList)]

_MODES = (InsertMode.OVERWRITE, InsertMode.ADD, InsertMode.APPEND, InsertMode.PREPEND)
_KEYS_A_TURN = 64


class Consistency(IntEnum):
    """`kv_list_mode`; a page is read strongly either way."""

    STRONG = 0
    EVENTUAL = 1


@abi.hostcall
def open_(box: Sandbox, name: Str) -> Store:
    """Open a store by name; INVAL when the service has none of that name."""
    return open_store(box, name)


@abi.hostcall
def lookup(box: Sandbox, store: Store, key: Str, options: NoOptions, config: U32) -> NewLookup:
    """Start to look a value up; INVAL for what cannot be a key."""
    return start_lookup(box, store, key)


@abi.may_suspend
def lookup_wait(
    box: Sandbox, handle: U32, body: OutU32, metadata: Out, generation: OutU32, error: OutU32
) -> Nothing:
    """As `lookup_wait_v2`, with 0 for the generation: it has no room for one."""
    item = pending(box, handle, PendingLookup)
    return when_ready(item, lambda: _found(box, handle, item, body, metadata, generation, error, 0))


@abi.may_suspend
def lookup_wait_v2(
    box: Sandbox, handle: U32, body: OutU32, metadata: Out, generation: OutU64, error: OutU32
) -> Nothing:
    """Body, metadata and generation of the value; NOT_FOUND, and nothing else, without one.

    When the metadata do not fit, the operation keeps its handle.
    """
    item = pending(box, handle, PendingLookup)
    return when_ready(item, lambda: _found(box, handle, item, body, metadata, generation, error))


def _found(
    box: Sandbox,
    handle: int,
    item: PendingLookup,
    body: OutNumber,
    metadata: Out,
    generation: OutNumber,
    error: OutNumber,
    fixed: int | None = None,
) -> None:
    try:
        value = item.operation.result()
    except KvFailed as failure:
        del box.items[handle]
        error.set(error_of(box, failure))
        return
    except HostcallError:
        del box.items[handle]
        raise
    if value is None:
        del box.items[handle]
        error.set(KvError.NOT_FOUND)
        return
    metadata.fill(value.metadata)
    del box.items[handle]
    body.set(box.insert(body_of(box, item.operation, value)))
    generation.set(value.generation if fixed is None else fixed)
    error.set(KvError.OK)


@abi.may_suspend
def insert(
    box: Sandbox, store: Store, key: Str, body: U32, options: InsertOptions, config: U32
) -> NewInsert | Coroutine[Any, None, PendingInsert]:
    """Take a body to its end, which may still arrive, and start to store it."""
    return start_insert(box, store, key, body, _read_insert_config(box.memory, options, config))


def _read_insert_config(memory: GuestMemory, options: int, config: int) -> Insertion:
    mode = memory.u32(config)
    if mode >= len(_MODES):
        raise InvalidArgument(f"{mode} is not a way to insert")
    metadata = b""
    if options & _METADATA:
        start, length = memory.u32(config + 8), memory.u32(config + 12)
        memory.require(start, length)
        metadata = memory.read(start, min(length, MAX_METADATA + 1))  # one too many is too many
        if length <= MAX_METADATA:
            _text(metadata)
    return Insertion(
        (),
        0,
        _MODES[mode],
        metadata,
        memory.u32(config + 16) if options & _TTL else None,
        memory.u64(config + 24) if options & _GENERATION else None,
    )


@abi.may_suspend
def insert_wait(box: Sandbox, handle: U32, error: OutU32) -> Nothing:
    """Wait until the value is stored, or is certain not to be."""
    item = pending(box, handle, PendingInsert)

    def give() -> None:
        del box.items[handle]
        _tell(box, item.operation, error)

    return when_ready(item, give)


@abi.hostcall
def delete(box: Sandbox, store: Store, key: Str, options: NoOptions, config: U32) -> NewDelete:
    """Start to delete a value; INVAL for what cannot be a key."""
    return start_delete(box, store, key)


@abi.may_suspend
def delete_wait(box: Sandbox, handle: U32, error: OutU32) -> Nothing:
    """Wait until the value is gone; that there was none is OK as well."""
    item = pending(box, handle, PendingDelete)

    def give() -> None:
        del box.items[handle]
        _tell(box, item.operation, error)

    return when_ready(item, give)


def _tell(box: Sandbox, operation: KvOperation[Any], error: OutNumber) -> None:
    try:
        operation.result()
    except KvFailed as failure:
        error.set(error_of(box, failure))
    else:
        error.set(KvError.OK)


@abi.hostcall
def list_(box: Sandbox, store: Store, options: ListOptions, config: U32) -> NewList:
    """Start to list keys, at most 1000 of them, in order."""
    memory = box.memory
    mode = memory.u32(config)
    if mode not in (Consistency.STRONG, Consistency.EVENTUAL):
        raise InvalidArgument(f"{mode} is not a way to list")
    cursor = _part(memory, config + 4) if options & _CURSOR else ""
    limit = memory.u32(config + 12) if options & _LIMIT else MAX_LIST
    prefix = _part(memory, config + 16) if options & _PREFIX else ""
    make_room(box)
    return PendingList(store.store.list(prefix, cursor, limit, box.account), prefix)


def _part(memory: GuestMemory, at: int) -> str:
    """The text whose address and length stand at `at`."""
    start, length = memory.u32(at), memory.u32(at + 4)
    if length > MAX_TEXT:
        raise InvalidArgument(f"{length} bytes where at most {MAX_TEXT} are allowed")
    return _text(memory.read(start, length))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("expected UTF-8") from None


@abi.hostcall
async def list_wait(box: Sandbox, handle: U32, body: OutU32, error: OutU32) -> None:
    """A body with a page of keys, as JSON; BAD_REQUEST for a cursor that is none of ours."""
    item = pending(box, handle, PendingList)
    if not item.is_ready:
        await wait_any([item])
    try:
        text = await _listed(box, item)
    except KvFailed as failure:
        del box.items[handle]
        error.set(error_of(box, failure))
        return
    except HostcallError:  # the account is spent
        del box.items[handle]
        item.abandon()
        raise
    item.operation.release()
    del box.items[handle]
    body.set(box.insert(text))
    error.set(KvError.OK)


async def _listed(box: Sandbox, item: PendingList) -> Body:
    """The page as JSON, a few keys a turn: a thousand of the longest take milliseconds."""
    page = item.operation.result()
    text = Body(box.account)
    try:
        text.write(b'{"data":[')
        for first in range(0, len(page.keys), _KEYS_A_TURN):
            if first:
                text.write(b",")
                await Pause()
            keys = map(encode_basestring, page.keys[first : first + _KEYS_A_TURN])
            text.write(",".join(keys).encode())
        text.write(f'],"meta":{{"limit":{page.limit}'.encode())
        if item.prefix:
            text.write(f',"prefix":{encode_basestring(item.prefix)}'.encode())
        if page.next_cursor:
            text.write(f',"next_cursor":"{page.next_cursor}"'.encode())
        text.write(b"}}")
    except BaseException:  # a guest that is killed here must not leave bytes charged
        text.discard()
        raise
    return text

"""`fastly_object_store`: KV stores under their older name, with the same stores and operations.

It has no `kv_error`: what a store refuses is told by the status.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn

from edge.abi.codec import U32, Handle, Str
from edge.abi.fastly.kv_insert import start_insert
from edge.abi.fastly.kv_ops import (
    KvError,
    Nothing,
    OutNumber,
    OutU32,
    PendingDelete,
    PendingInsert,
    PendingLookup,
    Store,
    body_of,
    error_of,
    open_store,
    pending,
    start_delete,
    start_lookup,
    until_ready,
    when_ready,
)
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Failed, InvalidArgument, LimitExceeded, Missing
from edge.stores.kv import Insertion, KvFailed

abi = HostModule("fastly_object_store", FASTLY)

NewLookup = Annotated[PendingLookup, Handle(PendingLookup)]
NewInsert = Annotated[PendingInsert, Handle(PendingInsert)]
NewDelete = Annotated[PendingDelete, Handle(PendingDelete)]

_OVERWRITE = Insertion((), 0)


@abi.hostcall
def open_(box: Sandbox, name: Str) -> Store:
    """Open a store by name; INVAL when the service has none of that name."""
    return open_store(box, name)


@abi.hostcall
async def lookup(box: Sandbox, store: Store, key: Str, body: OutU32) -> None:
    """The body of a value; without one, OK and nothing written."""
    item = start_lookup(box, store, key)
    await until_ready(item)
    _give(box, item, body)


@abi.hostcall
def lookup_async(box: Sandbox, store: Store, key: Str) -> NewLookup:
    """Start to look a value up."""
    return start_lookup(box, store, key)


@abi.may_suspend
def pending_lookup_wait(box: Sandbox, handle: U32, body: OutU32) -> Nothing:
    """As `lookup`, of one that has been started."""
    item = pending(box, handle, PendingLookup)

    def give() -> None:
        del box.items[handle]
        _give(box, item, body)

    return when_ready(item, give)


def _give(box: Sandbox, item: PendingLookup, body: OutNumber) -> None:
    try:
        value = item.operation.result()
    except KvFailed as failure:
        _fail(box, failure)
    if value is not None:
        body.set(box.insert(body_of(box, item.operation, value)))


@abi.hostcall
async def insert(box: Sandbox, store: Store, key: Str, body: U32) -> None:
    """Store a body, which is consumed, and wait until that is done."""
    started = start_insert(box, store, key, body, _OVERWRITE)
    item = started if isinstance(started, PendingInsert) else await started
    await until_ready(item)
    _stored(box, item)


@abi.may_suspend
def insert_async(
    box: Sandbox, store: Store, key: Str, body: U32
) -> NewInsert | Coroutine[Any, None, PendingInsert]:
    """Take a body to its end, which may still arrive, and start to store it."""
    return start_insert(box, store, key, body, _OVERWRITE)


@abi.may_suspend
def pending_insert_wait(box: Sandbox, handle: U32) -> Nothing:
    """Wait until the value is stored."""
    item = pending(box, handle, PendingInsert)

    def give() -> None:
        del box.items[handle]
        _stored(box, item)

    return when_ready(item, give)


def _stored(box: Sandbox, item: PendingInsert) -> None:
    try:
        item.operation.result()
    except KvFailed as failure:
        _fail(box, failure)


@abi.hostcall
def delete_async(box: Sandbox, store: Store, key: Str) -> NewDelete:
    """Start to delete a value."""
    return start_delete(box, store, key)


@abi.may_suspend
def pending_delete_wait(box: Sandbox, handle: U32) -> Nothing:
    """Wait until the value is gone; NONE when there was none."""
    item = pending(box, handle, PendingDelete)

    def give() -> None:
        del box.items[handle]
        try:
            existed = item.operation.result()
        except KvFailed as failure:
            _fail(box, failure)
        if not existed:
            raise Missing("there is no value of this key")

    return when_ready(item, give)


def _fail(box: Sandbox, failure: KvFailed) -> NoReturn:
    match error_of(box, failure):
        case KvError.INTERNAL_ERROR:
            raise Failed(str(failure))
        case KvError.TOO_MANY_REQUESTS:
            raise LimitExceeded(str(failure))
        case _:
            raise InvalidArgument(str(failure))

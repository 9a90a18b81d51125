"""What both KV interfaces are made of: open stores, pending operations, results.  No hostcalls.

A pending operation keeps its handle until the guest has been given everything it asked for: a
buffer that is too short loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Annotated, Any, TypeVar

from edge.abi.codec import Handle, Wrapped
from edge.abi.fastly.ready import Waitable
from edge.abi.fastly.waiting import wait_any
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, InvalidArgument
from edge.http.body import Body
from edge.stores.kv import KvCause, KvFailed, KvOperation, KvPage, KvStore, KvValue

# Of a hostcall that gives nothing back and may have to wait.
Nothing = None | Coroutine[Any, None, None]

T = TypeVar("T")
W = TypeVar("W", bound=Waitable)


class KvError(IntEnum):
    """`kv_error`."""

    OK = 1
    BAD_REQUEST = 2
    NOT_FOUND = 3
    PRECONDITION_FAILED = 4
    PAYLOAD_TOO_LARGE = 5
    INTERNAL_ERROR = 6
    TOO_MANY_REQUESTS = 7


_ERRORS = {cause: KvError[cause.name] for cause in KvCause}


def error_of(box: Sandbox, failure: KvFailed) -> KvError:
    """What a guest is told of an operation that came to nothing; a limit, its operator as well."""
    if failure.setting:
        box.limits_hit[failure.setting] = box.limits_hit.get(failure.setting, 0) + 1
    return _ERRORS[failure.cause]


class OpenKvStore:
    """What a guest's handle of a store names, in both interfaces."""

    __slots__ = ("store",)

    def __init__(self, store: KvStore) -> None:
        self.store = store


Store = Annotated[OpenKvStore, Handle(OpenKvStore)]


def open_store(box: Sandbox, name: str) -> OpenKvStore:
    """Raises InvalidArgument for a name that the service has no store of."""
    store = box.capabilities.kv_stores.get(name)
    if store is None:
        raise InvalidArgument(f"no KV store {name[:64]!r} in this service")
    return OpenKvStore(store)


class OutNumber:
    """Where one number goes that is not the last of the call's results; checked beforehand."""

    __slots__ = ("_mem", "_ptr", "_width")

    def __init__(self, mem: GuestMemory, ptr: int, width: int) -> None:
        mem.require(ptr, width)
        self._mem, self._ptr, self._width = mem, ptr, width

    def set(self, value: int) -> None:
        if self._width == 8:
            self._mem.write_u64(self._ptr, value)
        else:
            self._mem.write_u32(self._ptr, value)


OutU32 = Annotated[OutNumber, Wrapped(OutNumber, "i", (4,))]
OutU64 = Annotated[OutNumber, Wrapped(OutNumber, "i", (8,))]


class _Pending(Waitable):
    """An operation under way; the kinds differ so that their handles do."""

    __slots__ = ("operation",)
    operation: KvOperation[Any]

    @property
    def is_ready(self) -> bool:
        return self.operation.is_ready

    def watch(self, callback: Callable[[], None]) -> None:
        self.operation.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self.operation.unwatch(callback)

    def abandon(self) -> None:
        self.operation.abandon()


class PendingLookup(_Pending):
    """Its result is held, and paid for, from the moment it is known."""

    __slots__ = ()
    operation: KvOperation[KvValue | None]

    def __init__(self, operation: KvOperation[KvValue | None]) -> None:
        self.operation = operation


class PendingInsert(_Pending):
    """Its result is the new generation; given up, the value is stored nevertheless."""

    __slots__ = ()
    operation: KvOperation[int]

    def __init__(self, operation: KvOperation[int]) -> None:
        self.operation = operation


class PendingDelete(_Pending):
    """Its result is whether there was a value."""

    __slots__ = ()
    operation: KvOperation[bool]

    def __init__(self, operation: KvOperation[bool]) -> None:
        self.operation = operation


class PendingList(_Pending):
    """Its result is a page of keys that begin with `prefix`."""

    __slots__ = ("prefix",)
    operation: KvOperation[KvPage]

    def __init__(self, operation: KvOperation[KvPage], prefix: str) -> None:
        self.operation = operation
        self.prefix = prefix


def pending(box: Sandbox, handle: int, kind: type[W]) -> W:
    """The pending operation of a handle.  Raises BadHandle for one of anything else."""
    item = box.items[handle]
    if type(item) is kind:
        return item
    raise BadHandle(f"handle {handle} is not a {kind.__name__}")


def make_room(box: Sandbox) -> None:
    """Before an operation begins: it must not be under way without a handle.

    Raises LimitExceeded.
    """
    if len(box.items) >= box.items.ceiling:
        box.make_room()


def start_lookup(box: Sandbox, opened: OpenKvStore, key: str) -> PendingLookup:
    """Raises InvalidArgument for a bad key, LimitExceeded for want of handles."""
    make_room(box)
    return PendingLookup(opened.store.lookup(key, box.account))


def start_delete(box: Sandbox, opened: OpenKvStore, key: str) -> PendingDelete:
    """Raises InvalidArgument for a bad key, LimitExceeded for want of handles."""
    make_room(box)
    return PendingDelete(opened.store.delete(key))


def body_of(box: Sandbox, operation: KvOperation[KvValue | None], value: KvValue) -> Body:
    """The bytes of a value that was found; what the operation held is charged to the body."""
    operation.release()
    body = Body(box.account)
    for piece in value.pieces:
        body.write(piece)
    return body


def when_ready(item: Waitable, give: Callable[[], T]) -> T | Coroutine[Any, None, T]:
    """What `give` returns, at once or in a coroutine that waits for the item first."""
    return give() if item.is_ready else _later(item, give)


async def _later(item: Waitable, give: Callable[[], T]) -> T:
    await wait_any([item])
    return give()


async def until_ready(item: Waitable) -> None:
    """Wait for an item that no handle names; a guest that is killed meanwhile abandons it."""
    if not item.is_ready:
        try:
            await wait_any([item])
        except BaseException:
            item.abandon()
            raise

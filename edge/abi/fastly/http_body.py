"""`fastly_http_body`: bodies that guests read, write and join.

A handle is one of two things: a normal body, or the write side of one that is being sent
(`StreamingBody`).  Handlers take the number, not the object, because a body that is still arriving
is put into a fresh one before anything is added behind it: otherwise the guest's bytes and the
client's would mix in the order of their arrival.
"""

from __future__ import annotations

from collections.abc import Coroutine
from enum import IntEnum
from typing import Annotated, Any

from edge.abi.codec import (
    MAX_MOVE,
    U32,
    U64,
    Choice,
    Data,
    Handle,
    Out,
    OutList,
    Output,
    Region,
)
from edge.abi.fastly.heads import FIELD_OVERHEAD, Name, Value
from edge.abi.fastly.ready import StreamingBody
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.errors import (
    BadHandle,
    HostcallError,
    InvalidArgument,
    LimitExceeded,
    Missing,
    WouldBlock,
)
from edge.http.body import Body, Trailers

abi = HostModule("fastly_http_body", FASTLY)


class WriteEnd(IntEnum):
    """`body_write_end`."""

    BACK = 0
    FRONT = 1


NewBody = Annotated[Body, Handle(Body)]
End = Annotated[WriteEnd, Choice(WriteEnd)]
_BACK = WriteEnd.BACK


@abi.hostcall
def new(box: Sandbox) -> NewBody:
    """A new, empty body."""
    return Body(box.account)


@abi.hostcall
async def read(box: Sandbox, handle: U32, buffer: Output) -> U32:
    """Wait for bytes or the end; how many were copied, 0 at the end.  At most 256 KiB a call."""
    body = normal_body(box, handle)
    limit = min(buffer.length, MAX_MOVE)
    if not limit:
        return 0
    while True:
        data = body.read(limit)
        if data:
            buffer.write(0, data)
            return len(data)
        if body.at_eof:
            return 0
        await body.wait_readable()


@abi.may_suspend
def write(box: Sandbox, handle: U32, data: Data, end: End) -> U32 | Coroutine[Any, None, int]:
    """Add bytes, all of them; a streaming body waits while its reader is slow."""
    item = box.items[handle]
    if data.__class__ is bytes and item.__class__ is Body and end is _BACK and item.ended:
        item.write(data)  # nearly always
        return len(data)
    if type(data) is bytes:
        if isinstance(item, Body):
            if end is not _BACK:
                item.write_front(data)
            elif item.ended:
                item.write(data)
            else:
                writable(box, handle).write(data)
            return len(data)
        if type(item) is StreamingBody and end is _BACK:
            body = item.body
            if not body.is_full and body.error is None:
                body.write(data)
                return len(data)
    return _write_slowly(box, handle, data, end)


async def _write_slowly(box: Sandbox, handle: int, data: Data, end: WriteEnd) -> int:
    item = box.items[handle]
    if type(item) is not StreamingBody:
        body = writable(box, handle, end)
        assert isinstance(data, Region)
        return await _write_long(box, body, data, end)
    if end is not _BACK:
        raise BadHandle("a streaming body can be written at its back only")
    if isinstance(data, bytes):
        await _send_on(item.body, data)
        return len(data)
    for offset in range(0, data.length, MAX_MOVE):
        await _send_on(item.body, data.read(offset, MAX_MOVE))
        await Pause()
    return data.length


async def _send_on(body: Body, data: bytes) -> None:
    if body.is_full:
        await body.wait_room()
    if body.error is not None:
        raise body.error
    body.write(data)


async def _write_long(box: Sandbox, body: Body, data: Region, end: WriteEnd) -> int:
    account = box.account
    if account.held + data.length > account.limit:
        account.charge(data.length)  # refuses: nothing is copied for a write that cannot fit
    offsets = range(0, data.length, MAX_MOVE)
    for offset in offsets if end is _BACK else reversed(offsets):
        piece = data.read(offset, MAX_MOVE)
        if end is _BACK:
            body.write(piece)
        else:
            body.write_front(piece)
        await Pause()
    return data.length


@abi.hostcall
async def append(box: Sandbox, dest: U32, source: U32) -> None:
    """Move the rest of `source`, trailers included, to the end of `dest`; `source` is consumed."""
    if dest == source:
        raise InvalidArgument("a body cannot be appended to itself")
    taken = normal_body(box, source)
    target = box.items[dest]
    if type(target) is StreamingBody:
        del box.items[source]
        body = target.body
        try:
            if body.is_full:
                await body.wait_room()
            if body.error is not None:
                raise body.error
        except BaseException:  # a guest that is killed here must not leave bytes charged
            taken.discard()
            raise
    else:
        body = writable(box, dest)
        del box.items[source]
    body.append(taken)


@abi.hostcall
def close(box: Sandbox, handle: U32) -> None:
    """Drop a normal body, or end a streaming one cleanly."""
    item = box.items[handle]
    if type(item) is StreamingBody:
        item.body.finish()
    else:
        _drop(box, normal_body(box, handle))
    del box.items[handle]


@abi.hostcall
def abandon(box: Sandbox, handle: U32) -> None:
    """Drop a body; the reader of a streaming one sees an unfinished message."""
    item = box.items[handle]
    if type(item) is StreamingBody:
        item.abandon()
    else:
        _drop(box, normal_body(box, handle))
    del box.items[handle]


@abi.hostcall
def known_length(box: Sandbox, handle: U32) -> U64:
    """How many bytes are left, when that is certain; NONE otherwise."""
    item = box.items[handle]
    length = None if type(item) is StreamingBody else normal_body(box, handle).known_length
    if length is None:
        raise Missing("the length of this body is not known yet")
    return length


def _drop(box: Sandbox, body: Body) -> None:
    body.discard()
    if body.trailer_cost:
        box.hold(-body.trailer_cost)
        body.trailer_cost = 0


@abi.hostcall
def trailer_append(box: Sandbox, handle: U32, name: Name, value: Value) -> None:
    """Add a trailer field."""
    item = box.items[handle]
    body = item.body if type(item) is StreamingBody else writable(box, handle)
    limits, trailers = box.limits, body.trailers
    size = len(name) + len(value)
    if len(trailers) >= limits.head_fields:
        raise LimitExceeded(
            f"{limits.head_fields} trailer fields are there already", limit="limits.head_fields"
        )
    if size + sum(len(n) + len(v) for n, v in trailers) > limits.head_bytes:
        raise LimitExceeded(
            f"trailers of more than {limits.head_bytes} bytes", limit="limits.head_bytes"
        )
    box.hold(size + FIELD_OVERHEAD)
    body.trailer_cost += size + FIELD_OVERHEAD
    trailers.append((name, value))


@abi.hostcall
def trailer_names_get(box: Sandbox, handle: U32, names: OutList) -> None:
    """The distinct trailer names; AGAIN until the body has been read to its end."""
    names.fill(list(dict.fromkeys(name for name, _ in _trailers(box, handle))))


@abi.hostcall
def trailer_value_get(box: Sandbox, handle: U32, name: Name, value: Out) -> None:
    """The first value of a trailer; INVAL when it is absent."""
    for found, text in _trailers(box, handle):
        if found == name:
            value.fill(text)
            return
    raise InvalidArgument(f"no trailer {name[:64]!r}")


@abi.hostcall
def trailer_values_get(box: Sandbox, handle: U32, name: Name, values: OutList) -> None:
    """All values of a trailer."""
    values.fill([text for found, text in _trailers(box, handle) if found == name])


def normal_body(box: Sandbox, handle: int) -> Body:
    """A body that the guest may read.  Raises BadHandle for anything else."""
    item = box.items[handle]
    if isinstance(item, Body):  # some connections have a kind of their own
        return item
    raise BadHandle(f"handle {handle} is not a body that can be read")


def writable(box: Sandbox, handle: int, end: WriteEnd = WriteEnd.BACK) -> Body:
    """A body that the guest may add to.

    One that somebody else still fills moves into a fresh one first, which takes over its handle.
    """
    body = normal_body(box, handle)
    if body.ended or end is not _BACK:
        return body
    outer = Body(box.account)
    outer.append(body)
    box.items[handle] = outer
    return outer


def write_side(box: Sandbox, handle: int, body: Body) -> Body:
    """Turn the handle of a normal body into the write side of what is returned, to be sent."""
    if body is box.downstream.body or not body.ended:
        # Its end is somebody else's to say: ours is a body around it.
        outer = Body(box.account)
        outer.append(body)
        body = outer
    body.live, body.ended = True, False
    box.items[handle] = StreamingBody(body)
    return body


def _trailers(box: Sandbox, handle: int) -> Trailers:
    item = box.items[handle]
    if type(item) is StreamingBody:
        raise InvalidArgument("a streaming body has no trailers to read")
    body = normal_body(box, handle)
    if not body.at_eof:
        error: HostcallError | None = body.error
        raise error or WouldBlock("trailers come after the last byte of the body")
    return body.trailers

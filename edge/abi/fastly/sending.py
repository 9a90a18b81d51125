"""`fastly_http_req`, the part that sends: to backends, at once or asynchronously.

The request's head and body are consumed, whatever becomes of them.  Sending is `edge.upstream`'s
work; here a guest's handles become its request, and what came of it becomes handles again.
"""

from __future__ import annotations

from collections.abc import Coroutine
from enum import IntEnum
from functools import partial
from typing import Annotated, Any

from edge.abi.codec import U32, Choice, Handle, Handles, Str
from edge.abi.fastly.backend import find_backend
from edge.abi.fastly.error_detail import NO_DETAIL, Detail, ErrorDetail, NoDetail
from edge.abi.fastly.heads import GuestRequest, HttpVersion, Name, Value
from edge.abi.fastly.http_body import normal_body, write_side
from edge.abi.fastly.http_req import PASS, abi
from edge.abi.fastly.pending import (
    Edit,
    PendingRequest,
    Target,
    finish,
    pending_request,
    report,
    take_pending,
    until_ready,
)
from edge.abi.fastly.waiting import first_ready, wait_any
from edge.abi.handles import INVALID_HANDLE
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, HostcallError, InvalidArgument, LimitExceeded
from edge.http import cdn_loop
from edge.http.body import Body
from edge.upstream.fetch import Cause, UpstreamFailed, UpstreamRequest


class Streaming(IntEnum):
    """Whether the guest goes on writing the body of a request that has been sent."""

    NO = 0
    YES = 1


Sent = Annotated[PendingRequest, Handle(PendingRequest)]
Streams = Annotated[Streaming, Choice(Streaming)]
Kind = Annotated[Target, Choice(Target)]
Answered = tuple[U32, U32] | Coroutine[Any, None, tuple[int, int]]
NOTHING = (INVALID_HANDLE, INVALID_HANDLE)
_H2 = HttpVersion.H2  # members of an enum are looked up through a descriptor


@abi.may_suspend
def send(box: Sandbox, request: U32, body: U32, backend: Str) -> Answered:
    """Send and wait for the response's head.  Both handles are consumed even when it fails.

    INVAL: no such backend; HTTPINCOMPLETE, HTTPINVALID, HTTPINVALIDSTATUS, HTTPHEADTOOLARGE: the
    backend broke off or does not speak HTTP; ERROR: it could not be reached, or not in time.
    """
    return _send(box, request, body, backend, NO_DETAIL)


@abi.may_suspend
def send_v2(box: Sandbox, request: U32, body: U32, backend: Str, detail: Detail) -> Answered:
    """The same; the error detail says why it failed."""
    return _send(box, request, body, backend, detail)


@abi.may_suspend
def send_v3(box: Sandbox, request: U32, body: U32, backend: Str, detail: Detail) -> Answered:
    """The same past every cache of the host."""
    return _send(box, request, body, backend, detail)


@abi.hostcall
def send_async(box: Sandbox, request: U32, body: U32, backend: Str) -> Sent:
    """Send and give a handle to wait with.  Head and body are consumed."""
    return start(box, request, body, backend, Streaming.NO)


@abi.hostcall
def send_async_v2(box: Sandbox, request: U32, body: U32, backend: Str, streaming: Streams) -> Sent:
    """The same past every cache of the host; `streaming` 1 is `send_async_streaming`."""
    return start(box, request, body, backend, streaming)


@abi.hostcall
def send_async_streaming(box: Sandbox, request: U32, body: U32, backend: Str) -> Sent:
    """The same, but the body's handle becomes the write side: what is in the body goes first."""
    return start(box, request, body, backend, Streaming.YES)


def _send(
    box: Sandbox, request: int, body: int, backend: str, detail: ErrorDetail | NoDetail
) -> Answered:
    try:
        sent = start(box, request, body, backend, Streaming.NO)
    except InvalidArgument as error:
        detail.fail(UpstreamFailed(Cause.DESTINATION_NOT_FOUND, str(error)))
        raise
    return _answer(box, sent, detail)


def start(
    box: Sandbox, request: int, body: int, backend: str, streaming: Streaming
) -> PendingRequest:
    """Send what two handles name.  Raises BadHandle, InvalidArgument (backend), LimitExceeded."""
    head = take_request(box, request)
    try:
        source = normal_body(box, body)
    except BadHandle:
        head.release(box)
        raise
    if streaming is Streaming.YES:
        source = write_side(box, body, source)
    else:
        del box.items[body]
    try:
        return dispatch(box, head, source, backend)
    except HostcallError:
        if streaming is Streaming.YES:
            del box.items[body]
        source.discard()
        raise


def take_request(box: Sandbox, handle: int) -> GuestRequest:
    """The head that a handle names, which is consumed."""
    head = box.items[handle]
    if type(head) is not GuestRequest:
        raise BadHandle(f"handle {handle} is not a request")
    del box.items[handle]
    return head


def dispatch(
    box: Sandbox, head: GuestRequest, body: Body, name: str, *, upgrade: bool = False
) -> PendingRequest:
    """Count the request and give it to the upstream.  The head is the request's from here on."""
    try:
        backend = find_backend(box, name)
        upstream = box.capabilities.upstream
        assert upstream is not None  # or no backend would have been found
        most = box.limits.subrequests
        if box.subrequests >= most:
            raise LimitExceeded(f"{most} requests to backends", limit="limits.subrequests")
        method, uri, version, headers = head.for_sending()
        request = UpstreamRequest(
            backend,
            method,
            uri,
            headers,
            body,
            box.account,
            manual_framing=head.manual_framing,
            auto_decompress=bool(head.auto_decompress),
            wants_h2=version >= _H2,
            cdn_loop=cdn_loop.value_with_us(
                cdn_loop.received(box.downstream.head), box.service.name.encode()
            ),
            upgrade=upgrade,
            on_broken=partial(report, box, backend),
        )
    except HostcallError:
        head.release(box)
        raise
    box.subrequests += 1
    override = head.cache_override
    return PendingRequest(
        backend,
        upstream,
        upstream.send(request),
        head.hand_on(),
        tells_address=override is not None and bool(override.tag & PASS),
    )


# Waiting ------------------------------------------------------------------------------------


@abi.may_suspend
def pending_req_wait(box: Sandbox, pending: U32) -> Answered:
    """Wait for the response, or for the status of the failure; the handle is consumed."""
    return _answer(box, take_pending(box, pending), NO_DETAIL)


@abi.may_suspend
def pending_req_wait_v2(box: Sandbox, pending: U32, detail: Detail) -> Answered:
    """The same; the error detail says why it failed."""
    return _answer(box, take_pending(box, pending), detail)


def _answer(box: Sandbox, request: PendingRequest, detail: ErrorDetail | NoDetail) -> Answered:
    if request.pending.is_ready:
        return finish(box, request, detail)
    return _answer_later(box, request, detail)


async def _answer_later(
    box: Sandbox, request: PendingRequest, detail: ErrorDetail | NoDetail
) -> tuple[int, int]:
    await until_ready(request)
    return finish(box, request, detail)


@abi.hostcall
def pending_req_poll(box: Sandbox, pending: U32) -> tuple[U32, U32, U32]:
    """1, response and body if they are here (or the status of a failure); 0 without waiting."""
    return _poll(box, pending, NO_DETAIL)


@abi.hostcall
def pending_req_poll_v2(box: Sandbox, pending: U32, detail: Detail) -> tuple[U32, U32, U32]:
    """The same; the error detail says why it failed."""
    return _poll(box, pending, detail)


def _poll(box: Sandbox, handle: int, detail: ErrorDetail | NoDetail) -> tuple[int, int, int]:
    request = pending_request(box, handle)
    if not request.pending.is_ready:
        return (0, *NOTHING)
    del box.items[handle]
    return (1, *finish(box, request, detail))


@abi.hostcall
async def pending_req_select(box: Sandbox, pending: Handles) -> tuple[U32, U32, U32]:
    """Wait for one of several: its index, response and body; its handle is consumed.

    Of one that failed both handles are INVALID, and the status is OK.
    """
    return await _select(box, pending, NO_DETAIL)


@abi.hostcall
async def pending_req_select_v2(
    box: Sandbox, pending: Handles, detail: Detail
) -> tuple[U32, U32, U32]:
    """The same; the error detail says why it failed."""
    return await _select(box, pending, detail)


async def _select(
    box: Sandbox, handles: tuple[int, ...], detail: ErrorDetail | NoDetail
) -> tuple[int, int, int]:
    if not handles:
        raise InvalidArgument("select of nothing, for ever")
    requests = [pending_request(box, handle) for handle in handles]
    index = first_ready(requests)
    if index is None:
        index = await wait_any(requests)
    assert index is not None  # there is no timeout
    del box.items[handles[index]]
    try:
        return (index, *finish(box, requests[index], detail))
    except LimitExceeded:
        raise
    except HostcallError:
        return (index, *NOTHING)


# Changes to a response that is not here yet -------------------------------------------------


@abi.hostcall
def pending_req_header_insert(
    box: Sandbox, pending: Sent, name: Name, value: Value, target: Kind
) -> None:
    """Set a field of the future response: of any, of the backend's only, or of our error only."""
    pending.edit(box, Edit(target, name, value))


@abi.hostcall
def pending_req_header_append(
    box: Sandbox, pending: Sent, name: Name, value: Value, target: Kind
) -> None:
    """Add a value to a field of the future response."""
    pending.edit(box, Edit(target, name, value, adds=True))


@abi.hostcall
def pending_req_header_remove(box: Sandbox, pending: Sent, name: Name, target: Kind) -> None:
    """Remove a field of the future response, and what was to be set before."""
    pending.edit(box, Edit(target, name, None))

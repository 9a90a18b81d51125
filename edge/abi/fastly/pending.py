"""A request that was sent to a backend, and how its response comes to the guest.  No hostcalls.

The handle is consumed by whatever takes the response.  Nothing of a failure is lost: the guest gets
a status and a tag, the operator is told what, where and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum

from edge.abi.fastly.error_detail import ErrorDetail, NoDetail, error_of
from edge.abi.fastly.heads import FIELD_OVERHEAD, GuestResponse, HttpVersion
from edge.abi.fastly.ready import Waitable
from edge.abi.sandbox import Sandbox
from edge.errors import BadHandle, LimitExceeded
from edge.http.message import Headers
from edge.model.backend import Backend
from edge.upstream.fetch import Pending, Upstream, UpstreamFailed, UpstreamResponse

_VERSIONS = {10: HttpVersion.HTTP_10, 11: HttpVersion.HTTP_11, 20: HttpVersion.H2}


class Target(IntEnum):
    """`pending_response_kind`: which response an edit is for."""

    ANY = 0
    RESPONSE = 1  # the backend's
    ERROR = 2  # the one that we make when there is none


class Edit:
    """A change to the fields of a response that is not here yet; no `value`: a removal."""

    __slots__ = ("adds", "name", "target", "value")

    def __init__(
        self, target: Target, name: bytes, value: bytes | None, *, adds: bool = False
    ) -> None:
        self.target = target
        self.name = name
        self.value = value
        self.adds = adds  # besides the values that are there


class PendingRequest(Waitable):
    """What the guest's handle names.  `cost`: bytes charged until the response is taken."""

    __slots__ = ("backend", "cost", "edits", "pending", "tells_address", "upstream")

    def __init__(
        self,
        backend: Backend,
        upstream: Upstream,
        pending: Pending,
        cost: int,
        *,
        tells_address: bool,
    ) -> None:
        self.backend = backend
        self.upstream = upstream
        self.pending = pending
        self.cost = cost
        self.tells_address = tells_address
        self.edits: tuple[Edit, ...] = ()  # hardly anybody makes any

    @property
    def is_ready(self) -> bool:
        return self.pending.is_ready

    def watch(self, callback: Callable[[], None]) -> None:
        self.pending.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self.pending.unwatch(callback)

    def abandon(self) -> None:
        self.pending.abandon()

    def leave(self) -> None:
        self.upstream.leave(self.pending)

    def edit(self, box: Sandbox, edit: Edit) -> None:
        """Keep a change for when the response is here.  Raises LimitExceeded."""
        edits, limits = self.edits, box.limits
        size = _size(edit)
        if len(edits) >= limits.head_fields:
            raise LimitExceeded(
                f"{limits.head_fields} changes wait already", limit="limits.head_fields"
            )
        if size + sum(map(_size, edits)) > limits.head_bytes:
            raise LimitExceeded(
                f"changes of more than {limits.head_bytes} bytes", limit="limits.head_bytes"
            )
        box.hold(size + FIELD_OVERHEAD)
        self.cost += size + FIELD_OVERHEAD
        self.edits = (*edits, edit)

    def edited(self, headers: Headers, target: Target) -> Headers:
        """The fields after the changes that wait for a response of this kind."""
        if not self.edits:
            return headers
        fields: list[tuple[bytes, bytes] | None] = list(headers)
        places: dict[bytes, list[int]] = {}
        for place, (name, _) in enumerate(headers):
            places.setdefault(name, []).append(place)
        for edit in self.edits:
            if edit.target not in (Target.ANY, target):
                continue
            if not edit.adds:
                for place in places.pop(edit.name, ()):
                    fields[place] = None
            if edit.value is not None:
                places.setdefault(edit.name, []).append(len(fields))
                fields.append((edit.name, edit.value))
        return [field for field in fields if field is not None]

    def settle(self, box: Sandbox) -> None:
        """Give back what was charged for the request."""
        box.hold(-self.cost)
        self.cost = 0


def _size(edit: Edit) -> int:
    return len(edit.name) + len(edit.value or b"")


def pending_request(box: Sandbox, handle: int) -> PendingRequest:
    """Raises BadHandle for a handle of anything else."""
    item = box.items[handle]
    if type(item) is PendingRequest:
        return item
    raise BadHandle(f"handle {handle} is not a pending request")


def take_pending(box: Sandbox, handle: int) -> PendingRequest:
    """The same; the handle is consumed."""
    request = pending_request(box, handle)
    del box.items[handle]
    return request


async def until_ready(request: PendingRequest) -> None:
    """Wait for the response or the failure.  A guest that is killed meanwhile wants neither."""
    pending = request.pending
    try:
        while not pending.is_ready:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            wake = _Wake(changed)
            pending.watch(wake)
            try:
                await changed
            finally:
                pending.unwatch(wake)
    except BaseException:
        pending.abandon()
        raise


class _Wake:
    __slots__ = ("_changed",)

    def __init__(self, changed: asyncio.Future[None]) -> None:
        self._changed = changed

    def __call__(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)


def report(box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
    """Tell the operator."""
    told = box.capabilities.on_failure
    if told is not None:
        told(box, backend, failure)


def finish(
    box: Sandbox, request: PendingRequest, detail: ErrorDetail | NoDetail
) -> tuple[int, int]:
    """Handles of the response and its body, of a request that is ready and has been taken.

    Raises the hostcall error of a failure; LimitExceeded when the guest may hold no more, and then
    the response is gone.
    """
    if request.cost:
        request.settle(box)
    items = box.items
    while len(items) + 2 > items.ceiling:
        try:
            box.make_room()
        except LimitExceeded:
            request.abandon()
            raise
    try:
        response = request.pending.result()
    except UpstreamFailed as failure:
        report(box, request.backend, failure)
        detail.fail(failure)
        raise error_of(failure) from None
    head = _head(box, request, response)
    first = items.next
    items[first] = head
    items[first + 1] = response.body
    items.next = first + 2
    detail.succeed()
    return first, first + 1


def _head(box: Sandbox, request: PendingRequest, response: UpstreamResponse) -> GuestResponse:
    headers = response.headers
    if request.edits:
        headers = request.edited(headers, Target.RESPONSE)
    head = GuestResponse(headers)
    try:
        head.take(box, headers)
    except LimitExceeded:
        response.body.discard()
        raise
    head.status = response.status
    if response.version != 11:
        head.version = _VERSIONS[response.version]
    if request.tells_address:
        head.address, head.port = response.address, response.port
    return head

"""One guest: a program that runs for a request, on its own stack, in slices.

No task and no coroutine of ours stands behind a guest; it is this object and Wasmtime's call
future.  To stop a guest, `Runtime.end` deletes the future and then the store.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Suspended
from edge.outcome import Outcome
from edge.runtime import capi

if TYPE_CHECKING:
    from edge.runtime.template import Template


class Phase(Enum):
    """Where a guest is in its life."""

    NEW = "new"  # admitted, no store yet
    INSTANTIATING = "instantiating"  # its start function may be running
    CALLING = "calling"
    ENDED = "ended"


_CALLING = Phase.CALLING
_INSTANTIATING = Phase.INSTANTIATING
_NEW = Phase.NEW


class Slot:
    """Memory that C writes into for one guest at a time: handles, traps, errors, a ready cell.

    Kept from guest to guest; `trap` and `error` are neighbours, read with one unpack.
    """

    __slots__ = (
        "_owner",
        "error",
        "func",
        "func_extern",
        "instance",
        "memory",
        "memory_extern",
        "ready",
        "template",
        "trap",
    )

    def __init__(self) -> None:
        self.template: Template | None = None  # whose memory's handle stands in `memory`
        size = capi.INSTANCE_SIZE + 2 * capi.EXTERN_SIZE + 8 * 3
        self._owner, at = capi.buffer(size)
        assert at % 8 == 0, "the driver reads whole words here"
        self.instance = at
        self.memory_extern = at + capi.INSTANCE_SIZE
        self.memory = self.memory_extern + capi.EXTERN_VALUE
        self.func_extern = self.memory_extern + capi.EXTERN_SIZE
        self.func = self.func_extern + capi.EXTERN_VALUE
        self.trap = self.func_extern + capi.EXTERN_SIZE
        self.error = self.trap + 8
        self.ready = self.error + 8  # b"\0": wait, b"\1\0": go on (capi.CONTINUATION)


class EngineMemory(GuestMemory):
    """Any guest's: they differ in base and size alone."""

    window = capi.WINDOW
    view = capi.VIEW

    def __init__(self, base: int, size: int, measure: Callable[[], int]) -> None:
        self.base = base
        self.size = size
        self.measure = measure


EndCallback = Callable[["Guest", Outcome], None]


class Guest:
    """State of one guest.  `on_end` is called exactly once, outside any poll.

    Not slotted: with class-level defaults a guest is made in 0.15 us, with twenty slots in 0.4.
    """

    phase = Phase.NEW
    store = 0
    context = 0
    future = 0
    cpu_used = 0  # ns of thread time for the present request, hostcalls included
    cpu_before = 0  # ns for the requests that it served before
    slice_started = 0  # thread time when the slice that runs now began, or 0
    launched = 0  # perf_counter_ns when its first slice began, while that runs
    instantiate_ns = 0
    memory_peak = 0  # while it lives: what Runtime.memory_bytes counts for it
    host_bytes = 0  # that its sandbox held when last looked at
    suspensions = 0
    exit_code: int | None = None  # set by proc_exit
    fault: BaseException | None = None  # a bug of ours, met inside a hostcall
    doom: Outcome | None = None  # ended from inside one of its own hostcalls
    suspended: Suspended | None = None
    waker: Any = None  # the callback that waits for `suspended.waiting`
    queued = False
    ended = False
    lasting = False  # outlived its first slice: has a deadline and is accounted for
    deadline = 0.0  # loop time when its wall time is over, if it is lasting
    slot: Slot

    def __init__(self, template: Template, box: Sandbox, on_end: EndCallback) -> None:
        self.template = template
        self.box = box
        self.on_end: EndCallback | None = on_end

    @property
    def share_key(self) -> str:
        """The tenant whose share of the thread this guest uses."""
        return self.template.service

    @property
    def memory_held(self) -> int:
        """Bytes that ending it gives back: its memory, and what the host holds for it."""
        return self.memory_peak + self.box.account.held

    def renew(self, spent: int) -> None:
        """It serves a further request: its CPU budget begins anew.

        `spent`: what of `cpu_used` was told with the last one; the rest is charged to this one, so
        that no work between two requests is free.
        """
        self.cpu_before += spent
        self.cpu_used -= spent
        self.instantiate_ns = 0

    # Meter ----------------------------------------------------------------------------------

    def cpu_ns(self) -> int:
        if self.slice_started:
            return self.cpu_before + self.cpu_used + thread_time_ns() - self.slice_started
        if self.launched:
            return perf_counter_ns() - self.launched
        return self.cpu_before + self.cpu_used

    def memory_bytes(self) -> int:
        if self.phase is not _CALLING:
            # Its memory cannot be asked for while a start function runs: take the worst.
            return self.template.memory if self.phase is _INSTANTIATING else self.memory_peak
        size: int = capi.memory_size(self.context, self.slot.memory)
        return size


class Waker:
    """Wakes a suspended guest when what it waits for is here, unless it has moved on.

    Not a closure: one that names itself is a cycle, so that all of a request would wait for the
    collector (measured: 25 ms for each 2,100 requests, charged to whoever runs then).
    """

    __slots__ = ("_guest", "_wake")

    def __init__(self, guest: Guest, wake: Callable[[Guest], None]) -> None:
        self._guest = guest
        self._wake = wake

    def __call__(self, _: object) -> None:
        if self._guest.waker is self:
            self._wake(self._guest)


class _EndedMeter:
    """The meter of a sandbox whose guest is gone."""

    def cpu_ns(self) -> int:
        return 0

    def memory_bytes(self) -> int:
        return 0


ENDED_METER = _EndedMeter()


class Current:
    """Whose guest is on the stack; trampolines read it."""

    __slots__ = ("box", "guest")

    box: Sandbox
    guest: Guest | None

    def __init__(self) -> None:
        self.guest = None

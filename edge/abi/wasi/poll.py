"""poll_oneoff: the one place where a WASI program sleeps or waits for several things at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from struct import Struct
from typing import Annotated

from edge.abi.codec import U32, Wrapped
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.errno import Errno, WasiError
from edge.abi.wasi.module import WASI_PREVIEW1 as abi
from edge.abi.wasi.program import MONOTONIC, REALTIME, Program, program_of
from edge.abi.wasi.streams import Stream

# Three descriptors and four clocks exist; more subscriptions than this is a mistake.
MAX_SUBSCRIPTIONS = 1024
# One timer never waits longer; the loop looks at the deadlines again and starts another.
MAX_TIMER_S = 3600.0

# userdata, tag, clock or descriptor, timeout, precision, flags
_SUBSCRIPTION = Struct("<QB7xI4xQQH6x")
_EVENT = Struct("<QHB5xQH6x")  # userdata, errno, type, bytes, flags

CLOCK, FD_READ, FD_WRITE = range(3)  # `eventtype`
ABSTIME = 1 << 0  # `subclockflags`


class PollArea:
    """Both arrays of a call, checked: subscriptions come out, events go in."""

    __slots__ = ("_events", "_memory", "subscriptions")

    def __init__(self, memory: GuestMemory, source: int, events: int, count: int) -> None:
        if not 1 <= count <= MAX_SUBSCRIPTIONS:
            raise WasiError(
                Errno.INVAL, f"{count} subscriptions; 1 to {MAX_SUBSCRIPTIONS} are possible"
            )
        memory.require(events, count * _EVENT.size)
        data = memory.read(source, count * _SUBSCRIPTION.size)
        self.subscriptions: list[tuple[int, ...]] = list(_SUBSCRIPTION.iter_unpack(data))
        self._memory = memory
        self._events = events

    def write(self, events: list[bytes]) -> None:
        self._memory.write(self._events, b"".join(events))


@dataclass(slots=True)
class Wait:
    """One subscription, understood: a failure, a deadline or a stream."""

    userdata: int
    kind: int
    errno: Errno = Errno.SUCCESS
    deadline_ns: int = 0  # on the host's monotonic clock
    stream: Stream | None = None

    def event(self, now_ns: int) -> bytes | None:
        """The event if it has happened."""
        waiting = 0
        if self.errno is Errno.SUCCESS:
            if self.stream is None:
                if now_ns < self.deadline_ns:
                    return None
            elif self.kind == FD_READ:
                if not self.stream.read_ready:
                    return None
                waiting = self.stream.waiting_bytes
            elif not self.stream.write_ready:
                return None
        return _EVENT.pack(self.userdata, self.errno, self.kind, waiting, 0)


@abi.hostcall
async def poll_oneoff(box: Sandbox, area: Annotated[PollArea, Wrapped(PollArea, "iii")]) -> U32:
    """Waits until a time comes or a stream is ready, and gives the number of events.

    The guest is suspended meanwhile and uses no CPU; `limits.wall` ends a sleep for ever.  1 to
    1024 subscriptions (EINVAL otherwise).  Clocks 0 and 1, relative and absolute; the CPU clocks
    give an event with ENOTSUP, a stream that is not open one with EBADF.
    """
    program = program_of(box)
    now = program.clocks.monotonic_ns()
    waits = [_understand(program, now, *fields) for fields in area.subscriptions]
    while True:
        events = [event for wait in waits if (event := wait.event(now)) is not None]
        if events:
            area.write(events)
            return len(events)
        program.push()
        await _change(waits, now)
        now = program.clocks.monotonic_ns()


def _understand(
    program: Program,
    now: int,
    userdata: int,
    kind: int,
    subject: int,
    timeout: int,
    precision: int,
    flags: int,
) -> Wait:
    if kind == CLOCK:
        wait = Wait(userdata, kind)
        if flags & ~ABSTIME:
            wait.errno = Errno.INVAL
        elif subject not in (REALTIME, MONOTONIC):
            # a CPU clock stands still while the guest sleeps on it
            wait.errno = Errno.NOTSUP if subject < 4 else Errno.INVAL
        else:
            # in the guest's time, rounded up to what its clocks can show: a program that wakes to
            # find its deadline still ahead would spin until the clock moves
            guest_now = now - program.origin_ns
            if subject == REALTIME and flags & ABSTIME:
                offset = program.clocks.realtime_ns() - guest_now
            else:
                offset = 0
            deadline = timeout if flags & ABSTIME else guest_now + timeout
            deadline += -deadline % program.resolution_ns
            wait.deadline_ns = deadline - offset + program.origin_ns
        return wait
    if kind not in (FD_READ, FD_WRITE):
        raise WasiError(Errno.INVAL, f"there is no event type {kind}")
    wait = Wait(userdata, kind, stream=program.streams.get(subject))
    if wait.stream is None:
        wait.errno = Errno.BADF
    return wait


async def _change(waits: list[Wait], now: int) -> None:
    """Wait until one of them may have happened."""
    loop = asyncio.get_running_loop()
    changed: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not changed.done():
            changed.set_result(None)

    # once each: a thousand subscriptions can name three streams at most
    streams = {id(wait.stream): wait.stream for wait in waits if wait.stream is not None}.values()
    deadlines = [wait.deadline_ns for wait in waits if wait.stream is None]
    timer = None
    if deadlines:
        # rounded up to a millisecond, which is what the loop's timers can do
        milliseconds = (min(deadlines) - now + 999_999) // 1_000_000
        timer = loop.call_later(min(milliseconds / 1000, MAX_TIMER_S), wake)
    for stream in streams:
        stream.watch(wake)
    try:
        await changed
    finally:
        if timer is not None:
            timer.cancel()
        for stream in streams:
            stream.unwatch(wake)

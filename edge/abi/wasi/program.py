"""What one program sees of its process: streams, clocks, arguments, environment; no calls here.

It is made at the program's first WASI call and dies with its sandbox.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from edge.abi.sandbox import Sandbox
from edge.abi.wasi.errno import Errno, WasiError
from edge.abi.wasi.streams import EmptyInput, LogOutput, Streams

if TYPE_CHECKING:
    from edge.abi.wasi.cgi import Cgi
    from edge.abi.wasi.environment import StringBlock

# A program's monotonic clock starts here, not at zero (the Go runtime aborts when it reads zero)
# and not at the machine's uptime (which would tell one tenant's sandboxes from another's machine).
MONOTONIC_START_NS = 1_000_000_000

REALTIME, MONOTONIC, PROCESS_CPU, THREAD_CPU = range(4)  # `clockid`


class HostClocks(Protocol):
    """Nanoseconds, unrounded."""

    def realtime_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class _SystemClocks:
    realtime_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


SYSTEM_CLOCKS = _SystemClocks()


class Program:
    """One sandbox's WASI state; `environment` is laid out when first asked for."""

    __slots__ = ("box", "cgi", "clocks", "environment", "origin_ns", "resolution_ns", "streams")

    def __init__(self, box: Sandbox, clocks: HostClocks = SYSTEM_CLOCKS) -> None:
        self.box = box
        self.clocks = clocks
        self.resolution_ns = max(1, box.clock_resolution_ns)
        self.origin_ns = clocks.monotonic_ns() - max(MONOTONIC_START_NS, self.resolution_ns)
        self.environment: StringBlock | None = None
        self.cgi: Cgi | None = box.extras.get("cgi")
        if self.cgi is None:
            self.streams = Streams({0: EmptyInput(), 1: LogOutput(box, "stdout")})
        else:
            self.streams = Streams({0: self.cgi.stdin, 1: self.cgi.stdout})
        self.streams[2] = LogOutput(box, "stderr")

    def now_ns(self, clock: int) -> int:
        """A clock's reading, rounded down to the resolution.  EINVAL for a clock there is not."""
        if clock == MONOTONIC:
            now = self.clocks.monotonic_ns() - self.origin_ns
        elif clock == REALTIME:
            now = self.clocks.realtime_ns()
        elif clock in (PROCESS_CPU, THREAD_CPU):  # one thread: they are the same
            now = self.box.meter.cpu_ns()
        else:
            raise WasiError(Errno.INVAL, f"there is no clock {clock}")
        return now - now % self.resolution_ns

    def push(self) -> None:
        """The guest is about to wait: send what waits for it."""
        for stream in self.streams.values():
            stream.push()


def program_of(box: Sandbox) -> Program:
    """The sandbox's program state, made on first use."""
    found: Program | None = box.extras.get("wasi")
    if found is None:
        found = box.extras["wasi"] = Program(box)
    return found


def flush(box: Sandbox) -> None:
    """The guest has ended: log its last unfinished lines.  To be called before `box.close`."""
    program: Program | None = box.extras.get("wasi")
    if program is not None:
        for stream in program.streams.values():
            stream.flush()

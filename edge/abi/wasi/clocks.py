"""Clocks and randomness of WASI preview1."""

from __future__ import annotations

import os

from edge.abi.codec import U32, U64, Output
from edge.abi.sandbox import Sandbox
from edge.abi.trampoline import Pause
from edge.abi.wasi.module import WASI_PREVIEW1 as abi
from edge.abi.wasi.program import program_of

# The kernel's generator gives about 400 MB/s: a piece is 0.2 ms of a neighbour's waiting time.
RANDOM_PIECE = 64 * 1024


@abi.hostcall
def clock_res_get(box: Sandbox, clock: U32) -> U64:
    """Nanoseconds: the `clock_resolution` setting, for all four clocks; others EINVAL."""
    program = program_of(box)
    program.now_ns(clock)
    return program.resolution_ns


@abi.hostcall
def clock_time_get(box: Sandbox, clock: U32, precision: U64) -> U64:
    """Nanoseconds, rounded down to the resolution.

    Clock 0 is real time, 1 is monotonic and starts at one second in each sandbox, 2 and 3 are the
    CPU time the request has used so far; others EINVAL.  The asked precision makes no difference.
    """
    return program_of(box).now_ns(clock)


@abi.hostcall
async def random_get(box: Sandbox, buffer: Output) -> None:
    """Bytes from the kernel's generator; a large buffer is filled over several turns."""
    size = buffer.length
    at = 0
    while size - at > RANDOM_PIECE:
        buffer.write(at, os.urandom(RANDOM_PIECE))
        at += RANDOM_PIECE
        await Pause()
    buffer.write(at, os.urandom(size - at))

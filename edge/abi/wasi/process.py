"""How a program ends and gives way, in WASI preview1."""

from __future__ import annotations

from typing import Never

from edge.abi.codec import U32
from edge.abi.sandbox import GuestExit, Sandbox
from edge.abi.trampoline import Pause
from edge.abi.wasi.errno import Errno, WasiError
from edge.abi.wasi.module import WASI_PREVIEW1 as abi


@abi.hostcall
def proc_exit(box: Sandbox, code: U32) -> Never:
    """Does not return: the sandbox ends, 0 is success; any 32-bit code is taken as signed."""
    raise GuestExit(code - 2**32 if code >= 2**31 else code)


@abi.hostcall
def proc_raise(box: Sandbox, signal: U32) -> None:
    """ENOTSUP: there are no signals."""
    raise WasiError(Errno.NOTSUP, "there are no signals")


@abi.hostcall
async def sched_yield(box: Sandbox) -> None:
    """Lets other sandboxes and the server's sockets have a turn."""
    await Pause()

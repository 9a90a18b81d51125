"""Arguments and environment variables of WASI preview1."""

from __future__ import annotations

from edge.abi.codec import U32
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.environment import EMPTY, StringBlock, hostcall_environment
from edge.abi.wasi.module import WASI_PREVIEW1 as abi
from edge.abi.wasi.program import program_of

ARGUMENTS = EMPTY.plus((b"compute-app",))  # the one argument Fastly's SDKs know


@abi.hostcall
def args_sizes_get(box: Sandbox) -> tuple[U32, U32]:
    """One argument, and the bytes it takes."""
    return len(ARGUMENTS.offsets), len(ARGUMENTS.data)


@abi.hostcall
def args_get(box: Sandbox, pointers: U32, buffer: U32) -> None:
    """`compute-app`.  A query string is never turned into arguments (RFC 3875, section 4.4)."""
    ARGUMENTS.place(box.memory, pointers, buffer)


@abi.hostcall
def environ_sizes_get(box: Sandbox) -> tuple[U32, U32]:
    """The number of variables, and the bytes they take."""
    block = _environment(box)
    return len(block.offsets), len(block.data)


@abi.hostcall
def environ_get(box: Sandbox, pointers: U32, buffer: U32) -> None:
    """The service's `env`, and the FASTLY_* or the CGI variables; never the server's own."""
    _environment(box).place(box.memory, pointers, buffer)


def _environment(box: Sandbox) -> StringBlock:
    program = program_of(box)
    block = program.environment
    if block is None:
        cgi = program.cgi
        block = hostcall_environment(box) if cgi is None else cgi.environment()
        program.environment = block
    return block

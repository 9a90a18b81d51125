"""The WASI preview1 calls that do something with the three streams; `refused` has the others."""

from __future__ import annotations

from struct import Struct

from edge.abi.codec import U32, U64
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.codec import Fdstat, Filestat, IovecList
from edge.abi.wasi.errno import Errno, WasiError
from edge.abi.wasi.module import WASI_PREVIEW1 as abi
from edge.abi.wasi.program import program_of
from edge.abi.wasi.streams import NONBLOCK

_FDSTAT = Struct("<BxH4xQQ")  # filetype, flags, rights, inheriting rights
_FILESTAT = Struct("<QQB7xQQQQQ")  # device, inode, filetype, links, size, three times

APPEND = 1 << 0  # `fdflags`


@abi.hostcall
async def fd_read(box: Sandbox, fd: U32, buffers: IovecList) -> U32:
    """Up to 256 KiB of stdin, waiting for the first byte; 0 at its end.

    Stdin is the request body of a CGI program and empty for others.  EAGAIN instead of waiting
    when the descriptor is non-blocking; EIO when the client broke off.
    """
    program = program_of(box)
    stream = program.streams[fd]
    if not buffers.total:
        stream.read(0)  # for its EBADF
        return 0
    while not stream.read_ready:
        if stream.flags & NONBLOCK:
            raise WasiError(Errno.AGAIN, "no bytes have arrived yet")
        program.push()
        await stream.wait_read()
    data = stream.read(buffers.total)
    buffers.scatter(data)
    return len(data)


@abi.hostcall
async def fd_write(box: Sandbox, fd: U32, buffers: IovecList) -> U32:
    """Up to 256 KiB (of at most 1024 buffers) to stdout or stderr; a short count says so.

    Lines go to the service's log, 8 KiB of each; stdout of a CGI program is its response, and
    waits for a slow client (EAGAIN instead when non-blocking).  EPIPE when the client is gone.
    """
    stream = program_of(box).streams[fd]
    while not stream.write_ready:
        if stream.flags & NONBLOCK:
            raise WasiError(Errno.AGAIN, "the client has not read what was written")
        await stream.wait_write()
    return stream.write(buffers.gather())


@abi.hostcall
def fd_close(box: Sandbox, fd: U32) -> None:
    """Closes one of the three; closing stdout ends a CGI response."""
    streams = program_of(box).streams
    streams[fd].close()
    del streams[fd]


@abi.hostcall
def fd_renumber(box: Sandbox, source: U32, target: U32) -> None:
    """Moves a stream onto another open number, whose own stream is closed."""
    streams = program_of(box).streams
    moved, replaced = streams[source], streams[target]
    if source != target:
        replaced.close()
        streams[target] = moved
        del streams[source]


@abi.hostcall
def fd_fdstat_get(box: Sandbox, fd: U32) -> Fdstat:
    """Stdout and stderr that are logged look like a terminal, so that C writes line by line.

    The others look like pipes (filetype 0).
    """
    stream = program_of(box).streams[fd]
    return _FDSTAT.pack(stream.filetype, stream.flags, stream.rights, 0)


@abi.hostcall
def fd_fdstat_set_flags(box: Sandbox, fd: U32, flags: U32) -> None:
    """NONBLOCK works, APPEND changes nothing; others EINVAL."""
    stream = program_of(box).streams[fd]
    if flags & ~(APPEND | NONBLOCK):
        raise WasiError(Errno.INVAL, f"flags {flags:#x}; NONBLOCK and APPEND are known")
    stream.flags = flags


@abi.hostcall
def fd_filestat_get(box: Sandbox, fd: U32) -> Filestat:
    """The type of a stream; everything else is 0."""
    return _FILESTAT.pack(0, fd, program_of(box).streams[fd].filetype, 1, 0, 0, 0, 0)


@abi.hostcall
def fd_sync(box: Sandbox, fd: U32) -> None:
    """Sends what a CGI program has written so far; succeeds on any open stream."""
    program_of(box).streams[fd].push()


@abi.hostcall
def fd_datasync(box: Sandbox, fd: U32) -> None:
    """As `fd_sync`."""
    program_of(box).streams[fd].push()


@abi.hostcall
def fd_fdstat_set_rights(box: Sandbox, fd: U32, base: U64, inheriting: U64) -> None:
    """Succeeds for rights the stream has, and takes none away; more is ENOTCAPABLE."""
    if base & ~program_of(box).streams[fd].rights or inheriting:
        raise WasiError(Errno.NOTCAPABLE, "rights cannot grow")

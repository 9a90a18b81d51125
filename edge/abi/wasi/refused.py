"""The WASI preview1 calls that can only fail here: files, directories, sockets.

Each answers what POSIX would say of an open pipe; a number that is not open is EBADF, always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.abi.codec import Codec, Int
from edge.abi.hostcall import Hostcall
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.errno import WASI, Errno, WasiError
from edge.abi.wasi.module import WASI_PREVIEW1
from edge.abi.wasi.program import program_of

_RAW: dict[str, Codec] = {"i": Int(), "I": Int(wasm="I", width=8)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One function: its raw signature, its answer for an open stream, and why."""

    signature: str
    errno: Errno
    reason: str
    fd: int = 0  # which parameter is the descriptor


_SEEK = "streams have no position"
_NO_DIRECTORY = "there are no directories"

REFUSALS = {
    "fd_advise": Refusal("iIIi", Errno.SPIPE, _SEEK),
    "fd_allocate": Refusal("iII", Errno.SPIPE, _SEEK),
    "fd_pread": Refusal("iiiIi", Errno.SPIPE, _SEEK),
    "fd_pwrite": Refusal("iiiIi", Errno.SPIPE, _SEEK),  # Zig's stdout then falls back to fd_write
    "fd_seek": Refusal("iIii", Errno.SPIPE, _SEEK),
    "fd_tell": Refusal("ii", Errno.SPIPE, _SEEK),
    "fd_filestat_set_size": Refusal("iI", Errno.INVAL, "streams have no size"),
    "fd_filestat_set_times": Refusal("iIIi", Errno.PERM, "streams have no times"),
    "fd_prestat_get": Refusal("ii", Errno.BADF, "nothing is preopened"),
    "fd_prestat_dir_name": Refusal("iii", Errno.BADF, "nothing is preopened"),
    "fd_readdir": Refusal("iiiIi", Errno.NOTDIR, _NO_DIRECTORY),
    "path_create_directory": Refusal("iii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_filestat_get": Refusal("iiiii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_filestat_set_times": Refusal("iiiiIIi", Errno.NOTDIR, _NO_DIRECTORY),
    "path_link": Refusal("iiiiiii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_open": Refusal("iiiiiIIii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_readlink": Refusal("iiiiii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_remove_directory": Refusal("iii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_rename": Refusal("iiiiii", Errno.NOTDIR, _NO_DIRECTORY),
    "path_symlink": Refusal("iiiii", Errno.NOTDIR, _NO_DIRECTORY, fd=2),
    "path_unlink_file": Refusal("iii", Errno.NOTDIR, _NO_DIRECTORY),
    "sock_accept": Refusal("iii", Errno.NOTSOCK, "there are no sockets"),
    "sock_recv": Refusal("iiiiii", Errno.NOTSOCK, "there are no sockets"),
    "sock_send": Refusal("iiiii", Errno.NOTSOCK, "there are no sockets"),
    "sock_shutdown": Refusal("ii", Errno.NOTSOCK, "there are no sockets"),
}


def _handler(refusal: Refusal) -> Callable[..., None]:
    def answer(box: Sandbox, *raw: int) -> None:
        _ = program_of(box).streams[raw[refusal.fd]]  # EBADF unless it is open
        raise WasiError(refusal.errno, refusal.reason)

    return answer


def _describe(refusal: Refusal) -> str:
    if refusal.errno is Errno.BADF:
        return f"EBADF: {refusal.reason}."
    return f"E{refusal.errno.name} for the three streams, EBADF for others: {refusal.reason}."


for _name, _refusal in REFUSALS.items():
    WASI_PREVIEW1.hostcalls[_name] = Hostcall(
        module=WASI_PREVIEW1.name,
        name=_name,
        handler=_handler(_refusal),
        params=tuple(_RAW[letter] for letter in _refusal.signature),
        results=(),
        dialect=WASI,
        doc=_describe(_refusal),
    )

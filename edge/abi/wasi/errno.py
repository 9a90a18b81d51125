"""The error numbers of WASI preview1, and how our errors become them; no call is declared here."""

from __future__ import annotations

from enum import IntEnum

from edge.abi.hostcall import Dialect
from edge.errors import (
    BadHandle,
    HostcallError,
    InvalidArgument,
    LimitExceeded,
    Unsupported,
    WouldBlock,
)


class Errno(IntEnum):
    """Those we answer; the numbers are the standard's (its list has 77)."""

    SUCCESS = 0
    AGAIN = 6
    BADF = 8
    FAULT = 21
    INVAL = 28
    IO = 29
    NOMEM = 48
    NOTDIR = 54
    NOTSOCK = 57
    NOTSUP = 58
    PERM = 63
    PIPE = 64
    SPIPE = 70
    NOTCAPABLE = 76


class WasiError(HostcallError):
    """A call that failed with a number of its own."""

    def __init__(self, errno: Errno, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class _WasiDialect(Dialect):
    def status_of(self, error: HostcallError) -> int:
        return error.errno if isinstance(error, WasiError) else super().status_of(error)


WASI = _WasiDialect(
    ok=Errno.SUCCESS,
    default=Errno.IO,  # the client went away in the middle of its body, and the like
    statuses={
        # the codecs here raise it for ranges outside memory only; EINVAL is always a WasiError
        InvalidArgument: Errno.FAULT,
        BadHandle: Errno.BADF,
        LimitExceeded: Errno.NOMEM,
        Unsupported: Errno.NOTSUP,
        WouldBlock: Errno.AGAIN,
    },
)

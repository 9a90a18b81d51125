"""The status numbers of the Fastly ABI, and which of our errors is which.  No hostcalls."""

from __future__ import annotations

from enum import IntEnum

from edge.abi.hostcall import Dialect
from edge.errors import (
    BadHandle,
    BufferTooSmall,
    Failed,
    HostcallError,
    Incomplete,
    InvalidArgument,
    InvalidHead,
    LimitExceeded,
    Missing,
    Unsupported,
    WouldBlock,
)


class Status(IntEnum):
    """What every hostcall returns."""

    OK = 0
    ERROR = 1
    INVAL = 2
    BADF = 3
    BUFLEN = 4
    UNSUPPORTED = 5
    BADALIGN = 6
    HTTPINVALID = 7
    HTTPUSER = 8
    HTTPINCOMPLETE = 9
    NONE = 10
    HTTPHEADTOOLARGE = 11
    HTTPINVALIDSTATUS = 12
    LIMITEXCEEDED = 13
    AGAIN = 14


class Unparsable(HostcallError):
    """A backend answered with a head that is not HTTP."""


class Unsendable(HostcallError):
    """The guest made a request that cannot be sent."""


class HeadTooLarge(HostcallError):
    """A backend answered with a head that is larger than we read."""


class StatusInvalid(HostcallError):
    """A backend answered with a status code that is none."""


FASTLY = Dialect(
    ok=Status.OK,
    default=Status.ERROR,
    statuses={
        BadHandle: Status.BADF,
        InvalidArgument: Status.INVAL,
        InvalidHead: Status.ERROR,
        BufferTooSmall: Status.BUFLEN,
        Missing: Status.NONE,
        Unsupported: Status.UNSUPPORTED,
        LimitExceeded: Status.LIMITEXCEEDED,
        WouldBlock: Status.AGAIN,
        Incomplete: Status.HTTPINCOMPLETE,
        Failed: Status.ERROR,
        Unparsable: Status.HTTPINVALID,
        Unsendable: Status.HTTPUSER,
        HeadTooLarge: Status.HTTPHEADTOOLARGE,
        StatusInvalid: Status.HTTPINVALIDSTATUS,
    },
)

"""The three streams a program is born with, as objects; calls on them are in `descriptors`.

Two worlds: a program that answers through hostcalls has an empty stdin and logs what it prints; a
CGI program reads the request body from stdin and answers on stdout (`cgi`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, IntFlag

from edge.abi.log_lines import LineBuffer
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.errno import Errno, WasiError
from edge.http.body import Body


class FileType(IntEnum):
    """`filetype`; UNKNOWN is what a pipe looks like, preview1 has no word for one."""

    UNKNOWN = 0
    CHARACTER_DEVICE = 2


class Rights(IntFlag):
    """`rights`: those that a stream can have."""

    FD_READ = 1 << 1
    FD_FDSTAT_SET_FLAGS = 1 << 3
    FD_WRITE = 1 << 6
    FD_FILESTAT_GET = 1 << 21
    POLL_FD_READWRITE = 1 << 27


COMMON_RIGHTS = Rights.FD_FDSTAT_SET_FLAGS | Rights.FD_FILESTAT_GET | Rights.POLL_FD_READWRITE

NONBLOCK = 1 << 2  # `fdflags`


class Stream:
    """An open descriptor.  This one can do nothing; the others override what they can."""

    __slots__ = ("flags",)

    filetype = FileType.UNKNOWN
    rights = Rights(0)

    def __init__(self) -> None:
        self.flags = 0  # `fdflags` the guest set

    @property
    def read_ready(self) -> bool:
        """True when `read` would not have to wait."""
        return True

    @property
    def write_ready(self) -> bool:
        """True when `write` would not have to wait."""
        return True

    @property
    def waiting_bytes(self) -> int:
        """What poll_oneoff reports as readable, at least."""
        return 0

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes that are here; b"" with `read_ready` is the end."""
        raise WasiError(Errno.BADF, "this descriptor is not for reading")

    def write(self, data: bytes) -> int:
        """Bytes taken, at least one."""
        raise WasiError(Errno.BADF, "this descriptor is not for writing")

    async def wait_read(self) -> None:
        """Wait until `read_ready`."""

    async def wait_write(self) -> None:
        """Wait until `write_ready`."""

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back once when readiness may have changed."""

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Take a `watch` back."""

    def push(self) -> None:
        """Let nothing wait here on a guest that now waits itself."""

    def flush(self) -> None:
        """The guest is gone: hand over what is unfinished."""

    def close(self) -> None:
        """The guest closes the descriptor."""
        self.flush()


class EmptyInput(Stream):
    """A stdin that ends at once."""

    __slots__ = ()

    rights = COMMON_RIGHTS | Rights.FD_READ

    def read(self, limit: int) -> bytes:
        return b""


class BodyInput(Stream):
    """A stdin that is a request body."""

    __slots__ = ("_body",)

    rights = COMMON_RIGHTS | Rights.FD_READ

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    @property
    def read_ready(self) -> bool:
        return self._body.is_readable

    @property
    def waiting_bytes(self) -> int:
        return self._body.held

    def read(self, limit: int) -> bytes:
        return self._body.read(limit)

    async def wait_read(self) -> None:
        await self._body.wait_readable()

    def watch(self, callback: Callable[[], None]) -> None:
        self._body.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self._body.unwatch(callback)


class LogOutput(Stream):
    """A stdout or stderr whose lines go to the service's log.

    It calls itself a character device without seek rights, which is how wasi-libc recognises a
    terminal: C programs then write line by line, so lines before a trap are not lost.
    """

    __slots__ = ("_lines",)

    filetype = FileType.CHARACTER_DEVICE
    rights = COMMON_RIGHTS | Rights.FD_WRITE

    def __init__(self, box: Sandbox, name: str) -> None:
        super().__init__()
        self._lines = LineBuffer(box, name)

    def write(self, data: bytes) -> int:
        return self._lines.write(data)

    def flush(self) -> None:
        self._lines.flush()


class Streams(dict[int, Stream]):
    """Open descriptors by number; asking for another raises EBADF."""

    __slots__ = ()

    def __missing__(self, fd: int) -> Stream:
        raise WasiError(Errno.BADF, f"descriptor {fd} is not open")

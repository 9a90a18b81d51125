"""Writes log lines to a descriptor from a thread of its own, so that no loop ever waits for one.

What is waiting is bounded in bytes and in lines.  When it is full the newest lines are dropped and
counted: a reader that stops costs log lines, never requests.

Several processes may share the descriptor.  Each batch is written under a POSIX record lock (they
belong to a process, not to an open file, so one inherited lock file serves all), which ends with
its owner.  On a pipe the pieces are at most PIPE_BUF long and end at line borders where lines
allow it (pipe(7): such a write is all or nothing), so even SIGKILL in the middle cannot tear a line
that fits one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_LINES: Final = 65536
_PIPE_PIECE: Final = select.PIPE_BUF
_FILE_PIECE: Final = 256 * 1024  # large enough that system calls vanish in the noise
_NEWLINE: Final = 0x0A
_NOT_READY_MS: Final = 1000  # a descriptor somebody set non-blocking is polled, not spun on


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Lines: waiting now, and since the start written, dropped when full, refused by the file."""

    waiting: int
    written: int
    dropped: int
    failed: int


def _ignore(_lines: int) -> None:
    """The counters of nobody."""


class LogSink:
    """A bounded queue and the thread that empties it.  Safe to `put` to from any thread."""

    def __init__(
        self,
        fd: int,
        *,
        lock_fd: int | None = None,
        max_bytes: int = MAX_BYTES,
        max_lines: int = MAX_LINES,
        on_dropped: Callable[[int], None] = _ignore,
        on_failed: Callable[[int], None] = _ignore,
    ) -> None:
        """`fd` stays the caller's.  `lock_fd`: any writable file that all writers of `fd` inherited

        (the shared cells' own will do).  The callbacks get a number of lines and run under this
        sink's lock, so one plain counter each is enough.
        """
        self._fd = fd
        self._lock_fd = lock_fd
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._on_dropped = on_dropped
        self._on_failed = on_failed
        self._batches: deque[tuple[bytes, int]] = deque()  # bounded by the two sums below
        self._bytes = 0
        self._lines = 0
        self._written = 0
        self._dropped = 0
        self._failed = 0
        self._torn = False  # the last write ended inside a line
        self._closing = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._piece = _PIPE_PIECE if stat.S_ISFIFO(os.fstat(fd).st_mode) else _FILE_PIECE

    def start(self) -> None:
        """Start the thread.  Lines put before wait for it."""
        self._thread.start()

    def put(self, text: str, lines: int = 1) -> bool:
        """Queue `lines` complete lines, each ending in a newline.  Never waits for the file.

        False: there was no room, all of them are dropped and counted.
        """
        data = text.encode("utf-8", "backslashreplace")
        with self._wake:
            full = (
                self._bytes + len(data) > self._max_bytes or self._lines + lines > self._max_lines
            )
            if full or self._closing:
                self._dropped += lines
                self._on_dropped(lines)
                return False
            self._batches.append((data, lines))
            self._bytes += len(data)
            self._lines += lines
            self._wake.notify()
            return True

    def statistics(self) -> SinkStatistics:
        """The numbers of this instant."""
        with self._wake:
            return SinkStatistics(self._lines, self._written, self._dropped, self._failed)

    def close(self, timeout: float = 1.0) -> int:
        """Write what waits, for at most `timeout` seconds.  Returns how many lines were given up.

        The thread is a daemon: one that hangs in a full pipe does not keep the process alive.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        with self._wake:
            return self._lines

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._batches:
                    if self._closing:
                        return
                    self._wake.wait()
                batch = [self._batches.popleft()]
                size = len(batch[0][0])
                while self._batches and size < _FILE_PIECE:
                    batch.append(self._batches.popleft())
                    size += len(batch[-1][0])
            lines = sum(count for _, count in batch)
            data = b"".join(part for part, _ in batch)
            left = self._write(data)
            # What was in hand counts as waiting until here: the bound holds for all of it.
            failed = data.count(b"\n", len(data) - left) if left else 0
            with self._wake:
                self._bytes -= size
                self._lines -= lines
                self._written += lines - failed
                if failed:
                    self._failed += failed
                    self._on_failed(failed)

    def _write(self, data: bytes) -> int:
        """Write it all under the lock; returns how many bytes the file refused."""
        left = len(data)
        with self._exclusive():
            try:
                if self._torn:
                    self._all(b"\n")
                    self._torn = False
                for piece in self._pieces(data):
                    left -= self._all(piece)
            except _Refused as refused:
                left -= refused.written
                written = len(data) - left
                if written:  # else as it was: torn by an earlier batch, or at a border
                    self._torn = data[written - 1] != _NEWLINE
        return left

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._lock_fd is None:
            yield
            return
        try:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX, 1)
        except OSError:  # ENOLCK: lines that may mix are better than none
            yield
            return
        try:
            yield
        finally:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_UN, 1)

    def _pieces(self, data: bytes) -> Iterator[memoryview]:
        view = memoryview(data)
        start = 0
        while start < len(data):
            end = min(start + self._piece, len(data))
            if end < len(data):
                border = data.rfind(b"\n", start, end) + 1
                if border == 0:  # one line longer than a piece: it goes out whole
                    border = data.find(b"\n", end) + 1 or len(data)
                end = border
            yield view[start:end]
            start = end

    def _all(self, piece: memoryview | bytes) -> int:
        done = 0
        while done < len(piece):
            try:
                done += os.write(self._fd, piece[done:])
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(_NOT_READY_MS)
            except OSError as error:
                if error.errno != errno.EINTR:
                    raise _Refused(done) from error
        return done


class _Refused(Exception):
    """The file took `written` bytes of the piece and then no more."""

    def __init__(self, written: int) -> None:
        super().__init__(written)
        self.written = written

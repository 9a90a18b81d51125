"""Guest output cut into log lines; limits and writing are the sandbox's and the log's."""

from __future__ import annotations

from edge.abi.sandbox import Sandbox
from edge.errors import LimitExceeded

MAX_LINE = 8 * 1024  # a longer line is cut, and says by how much
# A write of nothing but line breaks must not become a quarter of a million calls in one turn.
MAX_LINES_PER_WRITE = 256


class LineBuffer:
    """One stream's bytes as lines; holds at most MAX_LINE of them, charged to the sandbox."""

    __slots__ = ("_box", "_cut", "_partial", "_stream")

    def __init__(self, box: Sandbox, stream: str) -> None:
        self._box = box
        self._stream = stream
        self._partial = b""
        self._cut = 0

    def write(self, data: bytes) -> int:
        """Bytes taken: all of them, unless they hold more than MAX_LINES_PER_WRITE lines."""
        start = 0
        for _ in range(MAX_LINES_PER_WRITE):
            end = data.find(b"\n", start)
            if end < 0:
                if start < len(data):
                    self._keep(data[start:] if start else data)
                return len(data)
            self._line(data, start, end)
            start = end + 1
        return start

    def flush(self) -> None:
        """Log what waits for its line break.  To be called before the sandbox is closed."""
        if self._partial or self._cut:
            self._line(b"", 0, 0)

    def _keep(self, piece: bytes) -> None:
        room = MAX_LINE - len(self._partial)
        kept = piece[:room]
        try:
            self._box.hold(len(kept))
        except LimitExceeded:  # a program does not fail for what it prints
            kept = b""
        self._partial += kept
        self._cut += len(piece) - len(kept)

    def _line(self, data: bytes, start: int, end: int) -> None:
        partial, cut = self._partial, self._cut
        room = MAX_LINE - len(partial)
        if end - start > room:
            cut += end - start - room
            end = start + room
        line = partial + data[start:end]
        if partial:
            self._box.hold(-len(partial))
        self._partial, self._cut = b"", 0
        self._box.log(self._stream, line.removesuffix(b"\r"), cut)

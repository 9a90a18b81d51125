"""Request bodies as they arrive: a length counter and a strict chunked decoder.  No I/O.

Both take bytes as they come and say how far they got; neither keeps body bytes.
RFC 9112 section 7.1 without its leniencies: exact CRLF, nothing between size and extension.
"""

from __future__ import annotations

import re

from edge.http.headers import TOKEN, VALUE, clean_trailers
from edge.http.message import Headers
from edge.http.refusal import BadRequest, Refused

# Extensions carry nothing that anybody reads; unbounded ones are a way to send bytes that no body
# limit counts (CVE-2023-39326).
MAX_SIZE_LINE = 256
MAX_EXTENSION_BYTES = 16 * 1024  # over the whole message
MAX_TRAILER_BYTES = 8 * 1024
MAX_TRAILER_FIELDS = 64
# One read of 256 KiB can hold 43,000 one-byte chunks, some 40 ms of work: others wait meanwhile.
CHUNKS_PER_FEED = 1024

_size_line = re.compile(rb"([0-9A-Fa-f]{1,15})(;" + VALUE + rb")?+\r\n")
_partial_size = re.compile(rb"[0-9A-Fa-f]{1,15}+(?:;" + VALUE + rb")?+\r?")
_trailer = re.compile(rb"(" + TOKEN + rb"):[\t ]*+(" + VALUE + rb")\r\n")
_partial_trailer = re.compile(rb"\r?|[!#$%&'*+\-.^_`|~0-9A-Za-z]++(?::" + VALUE + rb"\r?+)?+")


class LengthDecoder:
    """Counts down a Content-Length."""

    __slots__ = ("done", "remaining", "trailers")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.trailers: Headers = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Body bytes found in `data`, and the bytes that were not looked at (yet)."""
        size = len(data)
        if size < self.remaining:
            self.remaining -= size
            return data, b""
        remaining, self.remaining, self.done = self.remaining, 0, True
        if size == remaining:
            return data, b""
        return data[:remaining], data[remaining:]


class ChunkedDecoder:
    """Decodes one chunked body; `trailers` are complete once `done`."""

    __slots__ = ("_chunk", "_extensions", "_line", "_state", "_trailer_bytes", "done", "trailers")

    def __init__(self) -> None:
        self._state = "size"
        self._line = b""  # an unfinished size line, CRLF or trailer; bounded
        self._chunk = 0  # bytes left of the present chunk
        self._extensions = 0
        self._trailer_bytes = 0
        self.done = False
        self.trailers: Headers = []

    @property
    def remaining(self) -> None:
        """Unknown, unlike that of a Content-Length."""
        return None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Body bytes found in `data`, and the bytes that were not looked at.

        Unread bytes while not `done` mean that the work allowed for one turn is over: feed them
        again later.  Raises Refused at the first byte that breaks the coding.
        """
        if self._line:
            data = self._line + data
            self._line = b""
        position, size = 0, len(data)
        found: list[bytes] = []
        state, budget = self._state, CHUNKS_PER_FEED
        while position < size and budget:
            if state == "data":
                end = position + self._chunk
                piece = data[position:end]
                found.append(piece)
                position += len(piece)
                self._chunk -= len(piece)
                if self._chunk:
                    break
                state = "end"
            elif state == "end":
                if data[position : position + 2] != b"\r\n":
                    if data[position:] != b"\r":
                        raise Refused(BadRequest.BODY, 400, "no CRLF after a chunk")
                    self._line = b"\r"
                    position = size
                    break
                position += 2
                state = "size"
            elif state == "size":
                budget -= 1
                line = _size_line.match(data, position)
                if line is None:
                    self._keep_line(data[position:], _partial_size, "a bad chunk size")
                    position = size
                    break
                self._count_extension(line[2])
                position = line.end()
                self._chunk = int(line[1], 16)
                state = "data" if self._chunk else "trailers"
            else:
                budget -= 1
                after = self._take_trailer(data, position)
                if after is None:
                    position = size
                    break
                position = after
                if self.done:
                    break
        self._state = state
        return b"".join(found), data[position:]

    def _keep_line(self, rest: bytes, partial: re.Pattern[bytes], what: str) -> None:
        """Keep the beginning of a line for the next feed, if it can still become one."""
        if partial.fullmatch(rest) is None:
            raise Refused(BadRequest.BODY, 400, f"{what} in a chunked body")
        if len(rest) > MAX_SIZE_LINE and partial is _partial_size:
            raise Refused(BadRequest.BODY, 400, "a chunk extension that is too long")
        if len(rest) + self._trailer_bytes > MAX_TRAILER_BYTES:
            raise Refused(BadRequest.BODY, 431, "trailers that are too large")
        self._line = rest

    def _count_extension(self, extension: bytes | None) -> None:
        if extension is None:
            return
        self._extensions += len(extension)
        if len(extension) > MAX_SIZE_LINE or self._extensions > MAX_EXTENSION_BYTES:
            raise Refused(BadRequest.BODY, 400, "chunk extensions that are too long")

    def _take_trailer(self, data: bytes, position: int) -> int | None:
        """Take one trailer line or the final CRLF; None if it is not all here yet."""
        if data.startswith(b"\r\n", position):
            self.done = True
            self.trailers = clean_trailers(self.trailers)
            return position + 2
        line = _trailer.match(data, position)
        if line is None:
            self._keep_line(data[position:], _partial_trailer, "a bad trailer")
            return None
        self._trailer_bytes += line.end() - position
        if self._trailer_bytes > MAX_TRAILER_BYTES or len(self.trailers) >= MAX_TRAILER_FIELDS:
            raise Refused(BadRequest.BODY, 431, "trailers that are too large")
        self.trailers.append((line[1], line[2].rstrip(b" \t")))
        return line.end()

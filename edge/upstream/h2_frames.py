"""HTTP/2 frames counted and cut before the protocol library sees them.  No meaning, only sizes.

The library (docs/decisions/013-http2-library.md) is correct about HTTP/2 but takes whatever comes,
all at once.  Here is what it leaves open: how much a header block may be, how many frames that
carry nothing may come, how much is done in one turn; and that a GOAWAY is not yet the end.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from hpack import Decoder
from hpack.exceptions import HPACKDecodingError

from edge.errors import UpstreamError
from edge.http.upstream_head import MAX_HEAD

# RFC 9113 section 6.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION = 0, 1, 3, 4, 5, 7, 9
_END_HEADERS = 0x4
_HEAD = 9  # octets before each payload
MAX_FRAME = 16_384  # what we announce, which is also the least that may be announced
MAX_TABLE_UPDATES = 2  # RFC 7541 section 4.2: more are never needed

NO_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x6, 0x7, 0x8, 0xB


class BadFrames(UpstreamError):
    """What came cannot be HTTP/2, or is more than we take.  `code` is for a GOAWAY."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Cut:
    """Whole frames for the library; what they amount to; what stopped the cutting."""

    data: bytes
    carrying: int = 0  # frames with content: heads and body bytes
    noise: int = 0  # all others
    goaway: tuple[int, int] | None = None  # the last stream that is served, error code
    more: bool = False  # whole frames may be left


class FrameCutter:
    """Takes bytes as they come and gives whole frames, a bounded number at a time."""

    __slots__ = ("_block", "_data", "_is_first")

    def __init__(self) -> None:
        self._data = b""
        self._block = -1  # octets of the header block that is open, or none
        self._is_first = True

    def feed(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data

    def cut(self, most: int, streams: Container[int]) -> Cut:
        """Up to `most` frames, ending before a GOAWAY, which is read here.  Raises BadFrames.

        What arrives for other streams than `streams` carries nothing: those have been given up.
        """
        data, at, carrying, noise = self._data, 0, 0, 0
        for _ in range(most):
            if len(data) - at < _HEAD:
                break
            size, kind, flags = int.from_bytes(data[at : at + 3]), data[at + 3], data[at + 4]
            self._check(size, kind, flags)
            end = at + _HEAD + size
            if end > len(data):
                break
            self._is_first = False
            if kind in (HEADERS, PUSH_PROMISE, CONTINUATION):
                self._take_block(size, kind, flags)
            if kind == GOAWAY and size >= 8 and self._block < 0:
                self._data = data[end:]
                payload = data[at + _HEAD : end]
                last = int.from_bytes(payload[:4]) & 0x7FFF_FFFF
                found = (last, int.from_bytes(payload[4:8]))
                return Cut(data[:at], carrying, noise + 1, found, more=bool(self._data))
            if kind == HEADERS or (kind == DATA and size):
                stream = int.from_bytes(data[at + 5 : at + 9]) & 0x7FFF_FFFF
                is_wanted = stream in streams
                carrying += is_wanted
                noise += not is_wanted
            else:
                noise += 1
            at = end
        else:
            self._data = data[at:]
            return Cut(data[:at], carrying, noise, more=bool(self._data))
        self._data = data[at:]
        return Cut(data[:at], carrying, noise)

    def _check(self, size: int, kind: int, flags: int) -> None:
        """Look at a frame's head before its payload is waited for."""
        if self._is_first and (kind != SETTINGS or flags & 1):  # RFC 9113 section 3.4
            raise BadFrames("it does not speak HTTP/2", NO_ERROR)
        if size > MAX_FRAME:
            raise BadFrames(f"a frame of {size} bytes", FRAME_SIZE_ERROR)

    def _take_block(self, size: int, kind: int, flags: int) -> None:
        if kind == CONTINUATION:
            if self._block < 0:
                return  # without a beginning: the library refuses it
            self._block += size
        else:
            self._block = size
        if self._block > MAX_HEAD:
            raise BadFrames(f"a header block of over {MAX_HEAD} bytes", ENHANCE_YOUR_CALM)
        if flags & _END_HEADERS:
            self._block = -1


class BoundedDecoder(Decoder):
    """HPACK, less blocks of table updates: 60 KB of those would take a tenth of a second."""

    def decode(self, data: bytes, raw: bool = False) -> list[tuple[bytes, bytes]]:  # type: ignore[override]
        at = updates = 0
        while at < len(data) and data[at] & 0xE0 == 0x20:
            updates += 1
            if updates > MAX_TABLE_UPDATES:
                raise HPACKDecodingError("too many updates of the table's size")
            long = data[at] & 0x1F == 0x1F
            at += 1
            while long and at < len(data):
                long = data[at] >= 0x80
                at += 1
        return super().decode(data, raw)  # type: ignore[return-value]

"""Lines on their way from a worker to the supervisor: one batch is one datagram of JSON.

A worker runs hostile guests, so the reader checks every field and bounds every text; the other
direction is not here.  What is read is ready to be shown: plain JSON objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge.telemetry.timestamp import Timestamps

MAX_BATCH: Final = 96 * 1024  # bytes of one datagram
MAX_TEXT: Final = 64 * 1024  # characters of one field
ACCESS: Final = "access"  # the kind, and the stream, of a record of a request
GUEST: Final = "guest"
_ACCESS_TEXTS: Final = (
    "request", "client", "method", "host", "path", "outcome", "detail", "value", "limit", "setting",
)  # fmt: skip
_ACCESS_NUMBERS: Final = (
    "status", "cpu_us", "wall_us", "memory_bytes", "bytes_in", "bytes_out", "hostcalls", "queue_us",
)  # fmt: skip
_MAX_NUMBER: Final = 1 << 62


class BadLines(Exception):
    """A batch that no worker of ours would send."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, as it is kept and shown."""

    service: str
    version: int
    size: int  # bytes that it took on the way, for those who count what they keep
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one datagram holds."""

    dropped: int  # lines that the worker left out before this batch
    lines: tuple[Line, ...]


def encode_guest(
    wall: float, service: str, version: str, request: str, stream: str, text: str, cut: int
) -> str:
    """One line of a guest; `cut` bytes of it were left out."""
    return json.dumps([GUEST, wall, service, version, request, stream, text, cut])


def encode_access(
    wall: float, service: str, version: str, texts: Sequence[str], numbers: Sequence[int]
) -> str:
    """One record; `texts` and `numbers` in the order of the two tuples above."""
    return json.dumps([ACCESS, wall, service, version, [*texts], [*numbers]])


def encode_batch(dropped: int, items: Sequence[str]) -> bytes:
    """A datagram of what `encode_guest` and `encode_access` made."""
    return f"[{dropped},{','.join(items)}]".encode() if items else f"[{dropped}]".encode()


class LineReader:
    """Reads the batches of one worker."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._stamp = Timestamps()

    def read(self, data: bytes) -> Batch:
        """Raises BadLines unless every field is in order."""
        if len(data) > MAX_BATCH:
            raise BadLines(f"a batch of more than {MAX_BATCH} bytes")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadLines("not JSON") from error
        match found:
            case [int(dropped), *items] if 0 <= dropped < _MAX_NUMBER:
                size = len(data) // max(len(items), 1)
                return Batch(dropped, tuple(self._line(item, size) for item in items))
        raise BadLines("not a batch")

    def _line(self, item: object, size: int) -> Line:
        match item:
            case [str(kind), float(wall), str(service), str(version), *rest] if kind in (
                GUEST, ACCESS,
            ):  # fmt: skip
                number = _version(version)
                facts = self._head(kind, wall, _text(service), number)
            case _:
                raise BadLines("a line without its head")
        match rest:
            case [str(request), str(stream), str(text), int(cut)] if kind == GUEST:
                facts |= {"stream": _text(stream), "request": _text(request)}
                facts["message"] = _text(text)
                if _number(cut):
                    facts["truncated_bytes"] = cut
            case [list(texts), list(numbers)] if (
                kind == ACCESS
                and len(texts) == len(_ACCESS_TEXTS)
                and len(numbers) == len(_ACCESS_NUMBERS)
            ):
                facts["stream"] = ACCESS
                for name, text in zip(_ACCESS_TEXTS, texts, strict=True):
                    if _text(text) or name in ("path", "outcome"):
                        facts[name] = text
                for name, count in zip(_ACCESS_NUMBERS, numbers, strict=True):
                    facts[name] = _number(count)
            case _:
                raise BadLines(f"a line of kind {kind} with other fields")
        facts["worker"] = self._worker
        return Line(service, number, size, facts)

    def _head(self, kind: str, wall: float, service: str, number: int) -> dict[str, object]:
        if not math.isfinite(wall) or not 0 <= wall < 1e11:
            raise BadLines("a time that is none")
        time = self._stamp(wall)
        return {"time": time, "kind": kind, "service": service, "version": number}


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise BadLines("a text that is none, or too long")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_NUMBER:
        raise BadLines("a number that is none")
    return value


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadLines("a version that is no number")
    return int(text)

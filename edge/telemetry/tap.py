"""A worker's side of watching: the lines that people may want to see now, sent to the supervisor.

Lines of guests and records of requests that did not end well always go, all records only of
services that somebody follows.  Sending never waits: what does not fit, or is too much, is left
out and counted.  The log has everything; this is a window on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edge.outcome import OK, Outcome
from edge.telemetry.escape import MAX_TEXT_BYTES, cut, text_of
from edge.telemetry.lines import MAX_BATCH, encode_access, encode_batch, encode_guest

_BATCH: Final = 60 * 1024  # characters; a line more still fits a datagram
_MAX_ITEM: Final = MAX_BATCH - _BATCH - 1024
LINES_PER_SECOND: Final = 4000
BYTES_PER_SECOND: Final = 1024 * 1024
_SHARE: Final = 4  # a service may have one fourth of both: it must not silence its neighbours
_MAX_FIELD: Final = 1024
MAX_EXPECTED: Final = 256

AccessRecord = tuple[
    float, str, str, str, str, bytes, bytes, bytes, int, Outcome,
    int, int, int, int, int, int, int,
]  # fmt: skip


class Tap:
    """One per worker.  `send` takes one datagram; False when there is no room for it."""

    def __init__(self, send: Callable[[bytes], bool], now: Callable[[], float]) -> None:
        """`now`: seconds that never go back."""
        self._send = send
        self._now = now
        self._items: list[str] = []
        self._size = 0
        self._dropped = 0
        self._second = 0.0
        self._spent: dict[str, list[int]] = {}  # lines and bytes of this second, by service
        self._total = [0, 0]
        self._services: frozenset[str] = frozenset()
        self._all = False
        self._expected: dict[str, None] = {}  # ids of requests whose records are wanted

    @property
    def follows(self) -> bool:
        """Whether somebody wants records of requests that ended well."""
        return self._all or bool(self._services or self._expected)

    def follow(self, services: Iterable[str], *, everything: bool) -> None:
        """Send the records of these services from now on, and of no others."""
        self._services = frozenset(services)
        self._all = everything

    def expect(self, request: str) -> None:
        """Send the record of this request; the oldest of too many are forgotten."""
        if len(self._expected) >= MAX_EXPECTED:
            del self._expected[next(iter(self._expected))]
        self._expected[request] = None

    def guest(
        self, wall: float, service: str, version: str, request: str, stream: str, data: bytes,
        left_out: int,
    ) -> None:  # fmt: skip
        """A line of a guest, of at most MAX_TEXT_BYTES."""
        if self._admit(service, len(data)):
            text = text_of(data)
            self._put(encode_guest(wall, service, version, request, stream, text, left_out))

    def records(self, records: Sequence[AccessRecord]) -> None:
        """Records as the access log collects them."""
        if not self.follows:
            chosen = [record for record in records if record[9] is not OK and record[3]]
        else:
            chosen = [record for record in records if record[3] and self._wants(record)]
        for record in chosen:
            (
                wall, request, client, service, version, method, host, target, status, outcome,
                cpu, took, memory, bytes_in, bytes_out, hostcalls, queue,
            ) = record  # fmt: skip
            path = _wire(target.partition(b"?")[0], MAX_TEXT_BYTES)
            if not self._admit(service, 512 + len(path)):
                continue
            texts = (
                request, client, _wire(method), _wire(host), path, outcome.ending.value,
                outcome.detail[:_MAX_FIELD], outcome.value, outcome.limit, outcome.setting,
            )  # fmt: skip
            numbers = (
                status, cpu // 1000, took // 1000, memory, bytes_in, bytes_out, hostcalls,
                queue // 1000,
            )  # fmt: skip
            self._put(encode_access(wall, service, version, texts, numbers))

    def _wants(self, record: AccessRecord) -> bool:
        if record[1] in self._expected:
            del self._expected[record[1]]
            return True
        return self._all or record[9] is not OK or record[3] in self._services

    def flush(self) -> None:
        """Send what waits."""
        if self._items or self._dropped:
            items, self._items, self._size = self._items, [], 0
            if self._send(encode_batch(self._dropped, items)):
                self._dropped = 0
            else:
                self._dropped += len(items)

    def _put(self, item: str) -> None:
        if len(item) > _MAX_ITEM:  # 8 KiB of what takes six characters each
            self._dropped += 1
            return
        self._items.append(item)
        self._size += len(item) + 1
        if self._size >= _BATCH:
            self.flush()

    def _admit(self, service: str, size: int) -> bool:
        second = float(int(self._now()))
        if second != self._second:
            self._second = second
            self._spent.clear()
            self._total = [0, 0]
        spent, total = self._spent.setdefault(service, [0, 0]), self._total
        if (
            spent[0] >= LINES_PER_SECOND // _SHARE
            or spent[1] + size > BYTES_PER_SECOND // _SHARE
            or total[0] >= LINES_PER_SECOND
            or total[1] + size > BYTES_PER_SECOND
        ):
            self._dropped += 1
            return False
        for counted in (spent, total):
            counted[0] += 1
            counted[1] += size
        return True


def _wire(data: bytes, limit: int = _MAX_FIELD) -> str:
    return text_of(cut(data, limit)[0])

"""What one worker counts about one service version: a single call per request.

A request is a record in shared memory at once, and in the counters a little later (`ring.py`).
"""

from __future__ import annotations

from edge.telemetry.layout import (
    BACKEND_CAUSES,
    BACKEND_CLASSES,
    BACKEND_START,
    BACKEND_START_SUM,
    BACKENDS,
    CAUSES,
    KV,
    KV_RESULTS,
    LIMITS,
    LOG_BYTES_DROPPED,
    TIME_UNIT_NS,
    KvOp,
    KvResult,
    SoftLimit,
)
from edge.telemetry.ring import RECORD, RECORD_BYTES, Ring

_pack = RECORD.pack_into


class ServiceBlock:
    """Recorder for one block, made by `WorkerCells.block`."""

    __slots__ = ("_base", "_cells", "_exact", "_in_flight", "_ring")

    def __init__(self, ring: Ring, *, base: int, in_flight: int, exact_codes: bool) -> None:
        """Indexes are absolute cell indexes; `exact_codes` also counts each status code."""
        self._ring = ring
        self._cells = ring.cells
        self._base = base
        self._in_flight = in_flight
        self._exact = int(exact_codes)

    def record(
        self,
        method_index: int,
        status: int,
        ending_index: int,
        duration_ns: int,
        response_start_ns: int,
        cpu_ns: int,
        instantiate_ns: int,
        memory_peak: int,
        bytes_in: int,
        bytes_out: int,
        hostcalls: int,
        queue_ns: int,
    ) -> None:
        """Count one finished request.  Times in ns, sizes in bytes, `status` 0..999.

        `status` 0: nothing was sent.  `response_start_ns` 0: no head left.  `memory_peak` 0: no
        guest was instantiated, and then its CPU, hostcalls and instantiation are not recorded.
        """
        ring = self._ring
        at = ring.at
        _pack(
            ring.cells, at, self._base, method_index, status, ending_index, duration_ns,
            response_start_ns, cpu_ns, instantiate_ns, memory_peak, bytes_in, bytes_out, hostcalls,
            queue_ns, self._exact, 1,
        )  # fmt: skip
        ring.at = at = at + RECORD_BYTES
        if at >= ring.end:
            ring.fold()

    def limit_hit(self, limit: SoftLimit) -> None:
        """Count a refusal that did not end the guest; those that end it count as endings."""
        self._cells[self._base + LIMITS + limit] += 1

    def backend_answered(self, slot: int, status: int, start_ns: int) -> None:
        """Count a response head from a backend, and the time from asking to having it."""
        cells, base = self._cells, self._base
        cells[base + BACKENDS + slot * BACKEND_CLASSES + min(status // 100, 5)] += 1
        cells[base + BACKEND_START + (start_ns // TIME_UNIT_NS).bit_length()] += 1
        cells[base + BACKEND_START_SUM] += start_ns

    def backend_failed(self, slot: int, cause: str) -> None:
        """Count a request to a backend that got no response; `cause` is of BACKEND_CAUSES."""
        self._cells[self._base + BACKENDS + slot * BACKEND_CLASSES] += 1
        self._cells[self._base + CAUSES + BACKEND_CAUSES.index(cause)] += 1

    def kv(self, operation: KvOp, result: KvResult) -> None:
        """Count one operation on a KV store."""
        self._cells[self._base + KV + operation * KV_RESULTS + result] += 1

    def log_bytes_dropped(self, count: int) -> None:
        """Count bytes of guest log over its limit."""
        self._cells[self._base + LOG_BYTES_DROPPED] += count

    def set_in_flight(self, count: int) -> None:
        """Publish how many requests of this block are running or waiting in this worker."""
        self._cells[self._in_flight] = count

"""Where each number lives in the shared cells.  Offsets only: no memory, no metric names.

A worker's region is its header (gauges), its own totals, one in-flight gauge for each service
block, then the service blocks, and a ring of records not yet counted in them.  Supervisor and
workers are always the same build, so the layout may change freely between releases; nothing of it
is ever stored.

A histogram has one cell for every bit length an int64 can have, far more than its metric shows:
recording then needs no clipping, and a value out of range cannot reach a neighbour's cell.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from edge.outcome import Ending

CELL_BYTES: Final = 8
TIME_UNIT_NS: Final = 5_000  # a sandbox lives for tens of microseconds: the first bucket is 5 us
TIME_CELLS: Final = 52  # (2**63 // 5000).bit_length() is 51
MEMORY_SHIFT: Final = 16  # one WebAssembly page, 64 KiB
MEMORY_CELLS: Final = 48

NO_SERVICE_BLOCK: Final = 0  # requests that no route led anywhere: the series "_none"
OTHER_BLOCK: Final = 1  # series beyond the bound share this one: "_other"
RESERVED_BLOCKS: Final = 2
DEFAULT_BLOCKS: Final = 256

METHODS: Final = (
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
)  # fmt: skip
"""The nine methods of RFC 9110 §9.3 and RFC 5789; every other one counts as OTHER."""
OTHER_METHOD: Final = len(METHODS)
METHOD_LABELS: Final = (*(name.decode() for name in METHODS), "OTHER")
_METHOD_INDEX: Final = {name: index for index, name in enumerate(METHODS)}

ENDINGS: Final = tuple(Ending)
_ENDING_INDEX: Final = {ending.value: index for index, ending in enumerate(ENDINGS)}
ENDING_OK: Final = ENDINGS.index(Ending.OK)


def method_index(method: bytes) -> int:
    """The cell of a method; methods are case-sensitive (RFC 9110 §9.1)."""
    return _METHOD_INDEX.get(method, OTHER_METHOD)


def ending_index(ending: Ending) -> int:
    """The cell of an ending.  By its word: hashing an enum member runs Python code, a str none."""
    return _ENDING_INDEX[ending._value_]


class Gauge(IntEnum):
    """Header cells: what is so now.  A worker that begins sets all of them to zero."""

    PID = 0
    HEARTBEAT_NS = 1  # CLOCK_MONOTONIC, the same clock in every process of the machine
    RUNNING = 2  # 0, or 1 + the index of the service whose guest is on the stack at this instant
    STATE = 3  # a WorkerState
    GENERATION = 4  # of the snapshot this worker serves
    CONNECTIONS = 5
    REQUESTS_IN_FLIGHT = 6
    QUEUE_DEPTH = 7
    SANDBOXES_LIVE = 8
    SANDBOXES_PARKED = 9  # of those, suspended in a hostcall
    GUEST_MEMORY_BYTES = 10
    HOST_BYTES = 11
    SLOTS = 12
    UPSTREAM_OPEN = 13
    UPSTREAM_IDLE = 14
    RATE_ENTRIES = 15  # these three are of the file that all share, when this worker last used it
    RATE_CAPACITY = 16
    RATE_EVICTED = 17  # a counter, of the file's


class WorkerState(IntEnum):
    """Values of `Gauge.STATE`."""

    ABSENT = 0
    STARTING = 1
    READY = 2
    DRAINING = 3


class Total(IntEnum):
    """Counters of one worker that belong to no service."""

    CONNECTIONS_ACCEPTED = 64
    LOG_LINES_DROPPED = 65  # the ring was full
    LOG_LINES_FAILED = 66  # the file refused them
    FAULTS = 67  # bugs of ours, caught
    UPSTREAM_OPENED = 68
    UPSTREAM_REUSED = 69


class Rejection(IntEnum):
    """Why admission turned a request away."""

    QUEUE_FULL = 96
    QUEUE_TIMEOUT = 97
    SERVICE_SHARE = 98
    MEMORY = 99
    DRAINING = 100
    QUARANTINED = 101

    @property
    def label(self) -> str:
        """The value of the `reason` label."""
        return self.name.lower()


class Refusal(IntEnum):
    """Why a connection was closed before it could send a request."""

    CONNECTION_CAP = 112
    CLIENT_CAP = 113
    NO_DESCRIPTORS = 114
    MEMORY = 115
    DRAINING = 116
    PROXY_PROTOCOL = 117

    @property
    def label(self) -> str:
        """The value of the `reason` label."""
        return self.name.lower()


LOOP_LAG: Final = 128  # histogram
LOOP_LAG_SUM: Final = LOOP_LAG + TIME_CELLS
INSTANTIATE: Final = 192  # histogram
INSTANTIATE_SUM: Final = INSTANTIATE + TIME_CELLS
IN_FLIGHT: Final = 256  # one gauge per block, together, so that one pass zeroes them


# A service block, as offsets from its base ------------------------------------------------------

REQUESTS: Final = 0  # [method][status // 100], ten classes so that 600..999 need no check
CLASSES: Final = 10
OUTCOMES: Final = 100
OUTCOME_CELLS: Final = 32
DURATION: Final = 132
START: Final = DURATION + TIME_CELLS
CPU: Final = START + TIME_CELLS
QUEUE: Final = CPU + TIME_CELLS
MEMORY: Final = QUEUE + TIME_CELLS
DURATION_SUM: Final = MEMORY + MEMORY_CELLS
START_SUM: Final = DURATION_SUM + 1
CPU_SUM: Final = DURATION_SUM + 2
QUEUE_SUM: Final = DURATION_SUM + 3
MEMORY_SUM: Final = DURATION_SUM + 4
BYTES_IN: Final = DURATION_SUM + 5
BYTES_OUT: Final = DURATION_SUM + 6
HOSTCALLS: Final = DURATION_SUM + 7
LOG_BYTES_DROPPED: Final = DURATION_SUM + 8
LIMITS: Final = DURATION_SUM + 16
LIMIT_CELLS: Final = 16
BACKENDS: Final = LIMITS + LIMIT_CELLS  # [slot][status // 100]; class 0 is a failure
BACKEND_CLASSES: Final = 6
NAMED_BACKENDS: Final = 30  # the first so many that a service ever had; the others share a slot
DYNAMIC_BACKENDS: Final = 30  # slot of all backends that guests registered
OTHER_BACKENDS: Final = 31
BACKEND_SLOTS: Final = 32
CAUSES: Final = BACKENDS + BACKEND_SLOTS * BACKEND_CLASSES
CAUSE_CELLS: Final = 32
BACKEND_START: Final = CAUSES + CAUSE_CELLS
BACKEND_START_SUM: Final = BACKEND_START + TIME_CELLS
KV: Final = BACKEND_START_SUM + 1  # [operation][result]
KV_RESULTS: Final = 3
KV_CELLS: Final = 15
PLAIN_CELLS: Final = KV + KV_CELLS  # what every scrape reads
CODES: Final = PLAIN_CELLS  # one per status code, touched only when the operator asks for codes
BLOCK_CELLS: Final = CODES + 1000


class SoftLimit(IntEnum):
    """Limits that refuse one act of a guest and let it live; those that end it are endings."""

    SUBREQUESTS = 0
    HANDLES = 1
    LOG_BYTES = 2
    HOST_BYTES = 3
    HEAD = 4
    KV_STORE = 5
    KV_VALUE = 6

    @property
    def label(self) -> str:
        """The value of the `limit` label."""
        return self.name.lower()


class KvOp(IntEnum):
    """What guests ask of KV stores."""

    LOOKUP = 0
    INSERT = 1
    DELETE = 2
    LIST = 3

    @property
    def label(self) -> str:
        """The value of the `operation` label."""
        return self.name.lower()


class KvResult(IntEnum):
    """How that ended."""

    OK = 0
    REFUSED = 1  # not found, a precondition that failed, too large
    ERROR = 2  # ours: the file, the queue

    @property
    def label(self) -> str:
        """The value of the `result` label."""
        return self.name.lower()


# Why requests to backends fail; the words of `edge.upstream`, which a layer above cannot lend us.
BACKEND_CAUSES: Final = (
    "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable",
    "destination_ip_unroutable", "connection_refused", "connection_terminated",
    "connection_timeout", "connection_limit_reached", "tls_certificate_error",
    "tls_configuration_error", "tls_alert_received", "tls_protocol_error",
    "http_incomplete_response", "http_response_header_section_too_large",
    "http_response_body_too_large", "http_response_timeout", "http_response_status_invalid",
    "http_upgrade_failed", "http_protocol_error", "http_request_uri_invalid", "h2_error", "loop",
    "internal_error",
)  # fmt: skip


# The ring of requests not yet counted, as offsets from its base; `ring.py` says how it is used ----

RING_SEQUENCE: Final = 0  # odd while the worker folds
JOURNAL_SIZE: Final = 1  # entries that are being applied, or 0
RECORDS: Final = 256  # a fold of all of them takes 0.15 ms
RECORD_CELLS: Final = 15
JOURNAL: Final = 2  # pairs of a cell's index and the value it will have
JOURNAL_ENTRIES: Final = RECORDS * 18  # a record touches no more cells than that
RING_RECORDS: Final = JOURNAL + 2 * JOURNAL_ENTRIES
RING_CELLS: Final = RING_RECORDS + RECORDS * RECORD_CELLS


def worker_cells(blocks: int) -> int:
    """How many cells one worker's region has."""
    return ring_offset(blocks) + RING_CELLS


def ring_offset(blocks: int) -> int:
    """Where its ring begins in it."""
    return IN_FLIGHT + blocks + blocks * BLOCK_CELLS


assert len(ENDINGS) <= OUTCOME_CELLS
assert len(SoftLimit) <= LIMIT_CELLS
assert len(BACKEND_CAUSES) <= CAUSE_CELLS
assert len(KvOp) * len(KvResult) <= KV_CELLS

"""How a request ended, as one word the operator can count and as the facts behind it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ending(Enum):
    """The closed list of outcomes.  The value is the metric label, log word and header value."""

    OK = "ok"
    GUEST_ERROR = "guest_error"  # the guest left with a non-zero exit code
    TRAP = "trap"  # the guest broke a rule of WebAssembly, or aborted
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    MEMORY_LIMIT = "memory_limit"
    MEMORY_PRESSURE = "memory_pressure"  # the worker ran short, and this sandbox was chosen
    STACK_LIMIT = "stack_limit"
    TABLE_LIMIT = "table_limit"
    OUTPUT_LIMIT = "output_limit"
    BODY_LIMIT = "body_limit"  # the request body was larger than the service takes
    INCOMPLETE = "incomplete"  # the response broke off: its guest or a backend left it unfinished
    OVERLOAD = "overload"  # no slot within the queueing time
    QUARANTINED = "quarantined"  # this version keeps killing workers
    UNAVAILABLE = "unavailable"  # the service is configured but could not be loaded
    NO_ROUTE = "no_route"
    LOOP = "loop"  # it has passed this service too often: services call each other in circles
    BAD_REQUEST = "bad_request"  # refused before any routing
    CLIENT_GONE = "client_gone"
    SHUTDOWN = "shutdown"  # ended by our drain deadline
    FAULT = "fault"  # a bug of ours


@dataclass(frozen=True, slots=True)
class Outcome:
    """One ending with its evidence; `setting` names what to change, say `services.x.limits.cpu`."""

    ending: Ending
    detail: str = ""
    value: str = ""  # what was measured, with unit: "50.3ms"
    limit: str = ""  # what was allowed, with unit: "50ms"
    setting: str = ""


OK = Outcome(Ending.OK)

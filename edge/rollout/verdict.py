"""Whether a canary does worse than was allowed: sums over its counters, and no clock.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.catalogue.records import Canary
from edge.outcome import Ending
from edge.telemetry import layout

LIMITS: Final = (
    Ending.CPU_LIMIT,
    Ending.WALL_LIMIT,
    Ending.MEMORY_LIMIT,
    Ending.STACK_LIMIT,
    Ending.TABLE_LIMIT,
    Ending.OUTPUT_LIMIT,
)
# Endings that its program is to blame for.  Not: what clients do (they leave, their bodies are too
# long), and what the machine does (it is full, it is stopping).
ERRORS: Final = (
    Ending.GUEST_ERROR,
    Ending.TRAP,
    *LIMITS,
    Ending.INCOMPLETE,
    Ending.UNAVAILABLE,
    Ending.QUARANTINED,
    Ending.FAULT,
)
_OURS: Final = (Ending.OVERLOAD, Ending.MEMORY_PRESSURE, Ending.SHUTDOWN, Ending.LOOP)
_SERVER_ERRORS: Final = range(5, layout.CLASSES)  # classes above 5xx are no HTTP either


@dataclass(frozen=True, slots=True)
class Tally:
    """What a version has done, in requests."""

    requests: int = 0
    errors: int = 0
    limits: int = 0

    def since(self, before: Tally) -> Tally:
        """What was added; a series that began anew counts from there."""
        if self.requests < before.requests:
            return self
        return Tally(
            self.requests - before.requests,
            max(self.errors - before.errors, 0),
            self.limits - before.limits,
        )


def tally(row: Sequence[int]) -> Tally:
    """The sums of one block of counters, in the order of `edge.telemetry.layout`.

    A request that ended badly was usually answered 5xx as well; which ones were both is not
    counted, so the larger of the two numbers stands for all errors.
    """

    def ended(endings: Sequence[Ending]) -> int:
        return sum(row[layout.OUTCOMES + layout.ending_index(ending)] for ending in endings)

    requests = answered = 0
    for method in range(len(layout.METHOD_LABELS)):
        start = layout.REQUESTS + method * layout.CLASSES
        requests += sum(row[start : start + layout.CLASSES])
        answered += sum(row[start + code] for code in _SERVER_ERRORS)
    ours = ended(_OURS)
    errors = max(ended(ERRORS), answered - ours)
    return Tally(max(requests - ours, 0), errors, ended(LIMITS))


def breach(canary: Canary, done: Tally) -> str:
    """What was breached, with the numbers; empty while all is well or too little is known."""
    if done.requests < max(canary.min_requests, 1):
        return ""
    for what, count, allowed in (
        ("ended in an error", done.errors, canary.max_error_rate),
        ("reached a limit", done.limits, canary.max_limit_rate),
    ):
        if count / done.requests > allowed:
            share = f"{100 * count / done.requests:.3g} %"
            return (
                f"{count} of {done.requests} requests {what}: {share}, above {100 * allowed:.3g} %"
            )
    return ""

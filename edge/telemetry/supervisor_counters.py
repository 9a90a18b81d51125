"""What only the supervisor counts: restarts, reloads, deploys, compilations, quarantines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge.telemetry.histogram import TimeHistogram
from edge.telemetry.metrics import OTHER_SERVICES

MAX_LABEL_SETS = 1024  # services come and go over the admin API; the memory of them must not grow


class LabelledCounter:
    """A counter per label set.  At most `limit` sets; the rest share `_other` in every label."""

    __slots__ = ("_limit", "values")

    def __init__(self, limit: int = MAX_LABEL_SETS) -> None:
        """Empty."""
        self._limit = limit
        self.values: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        """Count; the labels are in the order of the metric's declaration."""
        if labels not in self.values and len(self.values) >= self._limit:
            labels = (OTHER_SERVICES,) * len(labels)
        self.values[labels] = self.values.get(labels, 0) + count


def _no_writes() -> tuple[int, float]:
    return 0, 0.0


@dataclass(slots=True)
class SupervisorCounters:
    """Plain numbers that the collector reads; the supervisor's loop is their one writer."""

    restarts: LabelledCounter = field(default_factory=LabelledCounter)  # worker, reason
    quarantines: LabelledCounter = field(default_factory=LabelledCounter)  # service, version
    deploys: LabelledCounter = field(default_factory=LabelledCounter)  # service, result
    activations: LabelledCounter = field(default_factory=LabelledCounter)  # reason
    canary_rollbacks: LabelledCounter = field(default_factory=LabelledCounter)  # service
    reloads: LabelledCounter = field(default_factory=LabelledCounter)  # result: ok, failed
    last_reload_ok: bool = True
    last_reload_ok_at: float = 0.0  # wall clock, seconds
    compile: TimeHistogram = field(default_factory=TimeHistogram)
    catalogue: Callable[[], tuple[int, float]] = _no_writes  # transactions, and seconds for them

    def reload(self, *, ok: bool, wall: float) -> None:
        """Count a load of the configuration at `wall` seconds since 1970."""
        self.reloads.add("ok" if ok else "failed")
        self.last_reload_ok = ok
        if ok:
            self.last_reload_ok_at = wall

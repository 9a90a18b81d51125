"""Log lines about requests that ended badly: what was measured, what was allowed, what to change.

The access log has the same facts, but it may be off; and a hostile client must not be able to fill
a log with them, so each kind of ending of each service has a budget of lines per second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from edge.model.backend import Backend
from edge.outcome import Ending, Outcome
from edge.upstream.fetch import UpstreamFailed

log = logging.getLogger("edge.limits")

LINES_PER_SECOND: Final = 5
# What the client caused, and what is counted elsewhere, is in the access log and the metrics alone.
_QUIET: Final = frozenset(
    {Ending.OK, Ending.CLIENT_GONE, Ending.BAD_REQUEST, Ending.NO_ROUTE, Ending.SHUTDOWN}
)


class Reports:
    """One per worker; bounded by services times endings."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: seconds that never go back."""
        self._now = now
        self._budgets: dict[tuple[str, str], list[float]] = {}  # second, lines in it, left out

    def ended(self, service: str, version: str, request: str, outcome: Outcome) -> None:
        """Report one ending."""
        if outcome.ending in _QUIET:
            return
        word = outcome.ending.value
        left_out = self._admit(service, word)
        if left_out is None:
            return
        log.warning(
            "request ended: %s",
            word,
            extra={
                "service": service,
                "version": version,
                "request": request,
                "detail": outcome.detail,
                "value": outcome.value,
                "limit": outcome.limit,
                "setting": outcome.setting,
                "left_out": left_out,
            },
        )

    def refused(self, service: str, version: str, request: str, setting: str, count: int) -> None:
        """Report a limit that the guest was told of and lived through."""
        of_service = setting.startswith("limits.")  # `storage` is the whole server's
        left_out = self._admit(service, setting)
        if left_out is not None:
            log.warning(
                "limit reached: %s",
                setting,
                extra={
                    "service": service,
                    "version": version,
                    "request": request,
                    "refusals": count,
                    "setting": f"services.{service}.{setting}" if of_service else setting,
                    "left_out": left_out,
                },
            )

    def backend_failed(
        self, service: str, version: str, request: str, backend: Backend, failure: UpstreamFailed
    ) -> None:
        """Report a request to a backend that got no response, or not the whole of one.

        Guests make up names: their backends share a budget, or there would be no end of budgets.
        """
        is_guests = backend.dynamic or backend.named_by_guest
        who = "backends of guests" if is_guests else f"backend {backend.name}"
        left_out = self._admit(service, f"{who} {failure.cause.value}")
        if left_out is not None:
            log.warning(
                "backend request failed: %s",
                failure.cause.value,
                extra={
                    "service": service,
                    "version": version,
                    "request": request,
                    "backend": backend.name,
                    "detail": str(failure),
                    "setting": failure.setting,
                    "left_out": left_out,
                },
            )

    def _admit(self, service: str, what: str) -> int | None:
        """How many lines were left out before this one, or None if this one is left out too."""
        second = float(int(self._now()))
        budget = self._budgets.setdefault((service, what), [second, 0.0, 0.0])
        if budget[0] != second:
            budget[0], budget[1] = second, 0.0
        if budget[1] >= LINES_PER_SECOND:
            budget[2] += 1
            return None
        budget[1] += 1
        left_out, budget[2] = int(budget[2]), 0.0
        return left_out

"""Health checks: a request again and again, and what the last few of them say about a backend.

Driven by timers and by what becomes of each request; there is no task.  Each worker checks for
itself: what counts is whether *it* reaches the backend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import random

from edge.http.body import Account, Body, Ledger
from edge.http.message import Headers
from edge.model.backend import Backend, HealthCheck
from edge.upstream.fetch import (
    Health,
    Pending,
    Upstream,
    UpstreamFailed,
    UpstreamRequest,
)
from edge.upstream.timers import Handle, TimerLoop

log = logging.getLogger("edge.upstream")

# Nobody reads the body of a check; what arrives with the head may wait until it is thrown away.
_MAX_HELD = 1024 * 1024
_USER_AGENT = b"edge-server health check"


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """One backend, as the last of its checks found it."""

    service: str
    backend: str
    health: Health
    checks: int
    failures: int


class HealthMonitor:
    """The checks of one worker.  `edge.upstream.client` asks it before it sends."""

    def __init__(
        self,
        upstream: Callable[[str], Upstream],
        loop: TimerLoop,
        *,
        share: Callable[[], float] = random,
    ) -> None:
        """`upstream` gives what sends checks of a service.  `share` in 0..1 is when, within its
        interval, the first check of a backend is made: workers should not check in step.
        """
        self._upstream = upstream
        self._loop = loop
        self._share = share
        # Two versions of a service may tell different things of one backend.
        self._checks: dict[tuple[str, str], list[_Checks]] = {}

    def watch(self, backends: Mapping[str, Iterable[Backend]]) -> None:
        """Check these backends, by service, and no others.  What is known of those that stay the
        same is kept.
        """
        before, self._checks = self._checks, {}
        for service, several in backends.items():
            for backend in several:
                if backend.health_check is None or backend.health is not None:
                    continue
                key = (service, backend.name)
                checks = self._checks.setdefault(key, [])
                if any(each.backend == backend for each in checks):
                    continue
                old = before.get(key, [])
                kept = next((each for each in old if each.backend == backend), None)
                if kept is not None:
                    old.remove(kept)
                else:
                    kept = _Checks(service, backend, self._upstream(service), self._loop)
                    kept.start(self._share())
                checks.append(kept)
        for old in before.values():
            for each in old:
                each.stop()

    def health(self, service: str, backend: Backend) -> Health:
        """By the checks; UNKNOWN for a backend that has none, or is not the one that is checked."""
        for checks in self._checks.get((service, backend.name), ()):
            if checks.backend is backend or checks.backend == backend:
                return checks.window.health
        return Health.UNKNOWN

    def statistics(self) -> list[BackendHealth]:
        return [
            BackendHealth(
                service, name, checks.window.health, checks.window.checks, checks.window.failures
            )
            for (service, name), several in self._checks.items()
            for checks in several
        ]

    def close(self) -> None:
        """Stop all checks; requests that are in flight are given up."""
        self.watch({})


class Window:
    """The last results, newest in the lowest bit, and what they amount to."""

    __slots__ = ("_good", "_mask", "_threshold", "checks", "failures")

    def __init__(self, check: HealthCheck) -> None:
        self._mask = (1 << check.window) - 1
        self._threshold = min(check.threshold, check.window)
        self._good = (1 << check.initial) - 1 & self._mask
        self.checks = 0
        self.failures = 0

    @property
    def health(self) -> Health:
        enough = self._good.bit_count() >= self._threshold
        return Health.HEALTHY if enough else Health.UNHEALTHY

    def add(self, good: bool) -> None:
        self._good = (self._good << 1 | good) & self._mask
        self.checks += 1
        self.failures += not good


class _Checks:
    """The checks of one backend: at most one request in flight."""

    def __init__(self, service: str, backend: Backend, upstream: Upstream, loop: TimerLoop) -> None:
        check = backend.health_check
        assert check is not None
        self.backend = backend
        self.window = Window(check)
        self._check = check
        # A name of its own goes before that of the backend's requests.
        self._target = replace(backend, override_host=check.host) if check.host else backend
        self._service = service
        self._upstream = upstream
        self._loop = loop
        self._timer: Handle | None = None
        self._pending: Pending | None = None

    def start(self, share: float) -> None:
        self._timer = self._loop.call_later(self._check.interval * share, self._send)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.unwatch(self._answered)
            pending.abandon()

    def _send(self) -> None:
        check = self._check
        headers: Headers = [(b"user-agent", _USER_AGENT)]
        request = UpstreamRequest(
            backend=self._target,
            method=check.method.encode(),
            uri=check.path.encode(),
            headers=headers,
            body=Body(),
            account=Account(Ledger(), _MAX_HELD),
        )
        self._timer = self._loop.call_later(check.timeout, self._too_late)
        self._pending = pending = self._upstream.send(request)
        if pending.is_ready:
            self._answered()
        else:
            pending.watch(self._answered)

    def _too_late(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.unwatch(self._answered)
            pending.abandon()
        self._found(False, f"no answer within {self._check.timeout:g} s")

    def _answered(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            response = pending.result()
        except UpstreamFailed as error:
            self._found(False, str(error))
            return
        response.body.discard()
        status, expected = response.status, self._check.expected_status
        self._found(status == expected, f"status {status}, expected {expected}")

    def _found(self, good: bool, what: str) -> None:
        before = self.window.health
        self.window.add(good)
        after = self.window.health
        if after is not before:
            log.log(
                logging.INFO if after is Health.HEALTHY else logging.WARNING,
                "backend is %s",
                after.name.lower(),
                extra={"service": self._service, "backend": self.backend.name, "last": what},
            )
        self._timer = self._loop.call_later(self._check.interval, self._send)

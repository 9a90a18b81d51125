"""Profiles of guests: one file for each sandbox, in the format of profiler.firefox.com.

Wasmtime walks the guest's stack whenever we ask; we ask when the epoch ticks, which while profiling
it does far more often than once a slice.  The guest yields when its slice is over, as ever.
"""

from __future__ import annotations

import logging
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from edge.runtime import capi
from edge.runtime.guest import Guest
from edge.runtime.observed import ObservedRuntime
from edge.runtime.ticker import TICK_NS

log = logging.getLogger("edge.profile")

MAX_FILES: Final = 1000  # of one process; a load test would fill the disk


class GuestProfiler:
    """Profiles every guest of a runtime while it is started."""

    def __init__(self, runtime: ObservedRuntime, directory: Path, interval: float) -> None:
        """`interval` between samples, in seconds."""
        self._runtime = runtime
        self._directory = directory
        self._interval_ns = max(1, int(interval * 1e9))
        self._open: dict[Guest, _Profile] = {}
        self._written = 0
        self._timer: capi.EpochTimer | None = None

    def start(self) -> None:
        """Profile the guests that are started from now on.  Makes the directory; OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._timer = capi.EpochTimer(self._runtime.engine_at)
        self._timer.set(self._interval_ns)
        self._runtime.profiler = self

    def close(self) -> None:
        """Sample no more.  Before the runtime's engine goes."""
        self._runtime.profiler = None
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        for guest in list(self._open):
            self.detach(guest)

    def attach(self, guest: Guest) -> object:
        """As `Profiler.attach`."""
        if self._written + len(self._open) >= MAX_FILES:
            return None
        made = self._open[guest] = _Profile(self._runtime.engine_at, guest, self._interval_ns)
        return made

    def detach(self, guest: Guest) -> None:
        """As `Profiler.detach`: write its file, if it was sampled."""
        profile = self._open.pop(guest, None)
        if profile is None:
            return
        data = profile.finish()
        name = f"{guest.template.service}-{guest.box.downstream.request_id}.json"
        try:
            (self._directory / name).write_bytes(data)
        except OSError as error:
            log.warning("a profile could not be written: %s", error)
        self._written += 1
        if self._written == MAX_FILES:
            log.warning("%d profiles have been written: no more are made", MAX_FILES)


class _Profile:
    """The samples of one guest."""

    def __init__(self, engine: int, guest: Guest, interval_ns: int) -> None:
        *_, module = guest.template.owners
        self._profiler = capi.GuestSamples(
            engine, guest.template.service, capi.address_of(module), interval_ns
        )
        self._store = guest.store
        self._finished = False
        self._sampled = self._yielded = perf_counter_ns()
        self._tick = capi.on_epoch(guest.store, self._on_tick)  # C has a pointer to it

    def _on_tick(self) -> bool:
        """Called on the guest's stack; true: it is to yield."""
        now = perf_counter_ns()
        if not self._finished:
            self._profiler.sample(self._store, now - self._sampled)
            self._sampled = now
        if now - self._yielded < TICK_NS:
            return False
        self._yielded = now
        return True

    def finish(self) -> bytes:
        """The profile as JSON.  The guest may live on."""
        self._finished = True
        return self._profiler.finish()

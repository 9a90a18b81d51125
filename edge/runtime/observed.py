"""A runtime that tells more than a server needs: traces, backtraces, profiles.  For one developer.

Nothing of it is on the way of a worker's guests, which run in a plain `Runtime`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Protocol

from edge.abi.hostcall import Hostcall, HostModule
from edge.abi.sandbox import Sandbox
from edge.outcome import Outcome
from edge.runtime import capi
from edge.runtime.driver import Runtime
from edge.runtime.engine import PoolSettings
from edge.runtime.guest import EndCallback, Guest
from edge.runtime.template import HostLibrary, Template

# A backtrace of a stack overflow has tens of thousands of frames, and its first tell it all.
MAX_BACKTRACE = 16 * 1024

Trace = Callable[[Sandbox, Hostcall, int], None]  # with the status that the guest gets


class Profiler(Protocol):
    """Samples guests while they run (`edge.runtime.profile`)."""

    def attach(self, guest: Guest) -> object:
        """Its instance has been made, and its program is about to be called.

        What this gives is kept until the guest's end: its store may hold pointers to it.
        """
        ...

    def detach(self, guest: Guest) -> None:
        """It has ended."""
        ...


class ObservedRuntime(Runtime):
    """`on_trap(guest, backtrace)` is told of traps before the guest's ending is."""

    def __init__(
        self,
        pool: PoolSettings,
        modules: Iterable[HostModule],
        loop: asyncio.AbstractEventLoop,
        *,
        trace: Trace | None = None,
        on_trap: Callable[[Guest, str], None] | None = None,
    ) -> None:
        """As `Runtime`."""
        super().__init__(pool, modules, loop)
        self.on_trap = on_trap
        self.profiler: Profiler | None = None
        self._kept: dict[Guest, object] = {}
        if trace is not None:  # before anything is linked: trampolines are generated with it
            self._binding = dataclasses.replace(self._binding, trace=trace)
            self._library = HostLibrary(self._engine, self._binding, modules)

    @property
    def engine_at(self) -> int:
        """The engine's address, for profilers."""
        return self._engine_at

    def start(self, template: Template, box: Sandbox, on_end: EndCallback) -> Guest:
        """As `Runtime.start`."""
        profiler = self.profiler
        if profiler is None:
            return super().start(template, box, on_end)

        def ended(guest: Guest, outcome: Outcome) -> None:
            profiler.detach(guest)
            self._kept.pop(guest, None)
            on_end(guest, outcome)

        return super().start(template, box, ended)

    def _enter(self, guest: Guest, slot: object, context: int, future: int) -> bool:
        if self.profiler is not None:
            self._kept[guest] = self.profiler.attach(guest)
        return super()._enter(guest, guest.slot, context, future)

    def _finish(self, guest: Guest) -> None:
        if self.on_trap is not None and guest.store:
            text = capi.trap_text(guest.slot.trap)
            if text and guest.exit_code is None and guest.fault is None:
                self.on_trap(guest, text[:MAX_BACKTRACE])
        super()._finish(guest)

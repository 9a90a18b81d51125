"""Runtime: starts guests, gives them slices, and ends them.  One per worker, one thread.

The fast path is one function without a task: store, instance, first poll, teardown, all inside the
call that brought the request.  Whatever does not finish in its first slice goes to the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, MutableSequence
from struct import Struct
from time import perf_counter_ns, thread_time_ns
from typing import Any

import wasmtime

from edge.abi.hostcall import HostModule
from edge.abi.sandbox import GuestExit, Sandbox
from edge.abi.trampoline import Binding, Suspended, complete
from edge.errors import ModuleRefused
from edge.model.limits import Limits
from edge.outcome import OK, Outcome
from edge.runtime import capi, endings
from edge.runtime.capi import (
    VIEW,
    WINDOW,
    call_async,
    epoch_yield,
    export_get,
    future_delete,
    future_poll,
    instantiate_async,
    memory_data,
    memory_size,
    set_epoch_deadline,
    store_context,
    store_delete,
    store_limiter,
    store_new,
)
from edge.runtime.engine import PoolSettings, serving_engine
from edge.runtime.guest import (
    ENDED_METER,
    Current,
    EndCallback,
    EngineMemory,
    Guest,
    Phase,
    Slot,
    Waker,
)
from edge.runtime.scheduler import BURST_NS, TURN_NS, Deadlines, Scheduler
from edge.runtime.template import HostLibrary, Template, cause_of
from edge.runtime.ticker import Ticker

log = logging.getLogger("edge.runtime")

# A guest that was suspended pays for the thread time since the slice before its own: the timer, the
# future's callback, the loop's turn.  That is 3 us on a busy thread and 57 us on one that slept, so
# a fixed fee would be wrong by far; never more than this, because it may be others' work as well.
SUSPENSION_MOST_NS = 100_000
SUSPENSION_LEAST_NS = 3_000
SHORT_NS = 200_000  # first slices that are over sooner are not measured in thread time

_QWORDS = VIEW.cast("Q")
_TRAP_AND_ERROR = Struct("<QQ")
_NEITHER = (0, 0)
_MEMORY_AT, _ = capi.constant(b"memory")
_START_AT, _ = capi.constant(b"_start")
# An enum's members are looked up through a descriptor; the fast path reads globals.
_NEW, _INSTANTIATING, _CALLING, _ENDED = Phase


class Runtime:
    """Guests of one process.  `running[running_at]` tells the supervisor whose guest is running."""

    def __init__(
        self,
        pool: PoolSettings,
        modules: Iterable[HostModule],
        loop: asyncio.AbstractEventLoop,
        *,
        running: MutableSequence[int] | memoryview | None = None,
        running_at: int = 0,
    ) -> None:
        """Raises ConfigError when the pool cannot fit, OSError when there is no timer."""
        self.pool = pool
        self._loop = loop
        self._running_cells = running if running is not None else [0]
        self._running_at = running_at
        self._engine = serving_engine(pool)
        self._engine_at = capi.address_of(self._engine)
        self._current = Current()
        self._binding = Binding(
            window=WINDOW,
            current=self._current,
            fault=self._fault,
            leave=self._leave,
            suspend=self._suspend,
            continuation=capi.CONTINUATION,
            ready=capi.READY,
        )
        self._library = HostLibrary(self._engine, self._binding, modules)
        self._slots: list[Slot] = []
        self._scheduler: Scheduler[Guest] = Scheduler(loop, self._slice)
        self.deadlines: Deadlines[Guest] = Deadlines(loop, self._expire)
        self.lasting: set[Guest] = set()  # guests that outlived their first slice
        self._ticker = Ticker(self._engine_at, loop, lambda: bool(self.lasting))
        self._slice_ended = 0  # thread time
        self._launched_since = False  # a guest has begun and ended after that
        self.live = 0  # guests started and not ended
        self.parked = 0  # of those, suspended in a hostcall
        self.memory_bytes = 0  # linear memory of the guests that outlived their first slice
        # Told after a slice that changed what is held for a guest.
        self.on_memory: Callable[[], None] | None = None

    # Templates ------------------------------------------------------------------------------

    def load(
        self,
        artifact: str,
        *,
        service: str,
        limits: Limits,
        series: int = 0,
        trap_unknown: bool = False,
    ) -> Template:
        """Map and link a compiled module.  The caller has verified that we wrote the file.

        Raises ModuleRefused with one line for the author of the module.
        """
        try:
            module = wasmtime.Module.deserialize_file(self._engine, artifact)
        except wasmtime.WasmtimeError as error:
            raise ModuleRefused(cause_of(error)) from None
        return self._link(module, service, limits, series, trap_unknown=trap_unknown)

    def compile(
        self, wasm: bytes | str, *, service: str, limits: Limits, trap_unknown: bool = False
    ) -> Template:
        """Compile here and now, which takes seconds for large modules: for tests and tools."""
        module = wasmtime.Module(self._engine, wasm)
        return self._link(module, service, limits, 0, trap_unknown=trap_unknown)

    def _link(
        self, module: Any, service: str, limits: Limits, series: int, *, trap_unknown: bool
    ) -> Template:
        linker = self._library.linker_for(module, trap_unknown=trap_unknown)
        try:
            return Template.of(service, limits, series, module, linker)
        except wasmtime.WasmtimeError as error:
            raise ModuleRefused(cause_of(error)) from None

    @property
    def running(self) -> Guest | None:
        """The guest on the stack now, if a hostcall asks."""
        return self._current.guest

    def is_crowded(self) -> bool:
        """Guests are queued: what is put off until the loop's next callbacks waits for slices."""
        return not self._scheduler.is_idle

    # Starting -------------------------------------------------------------------------------

    def start(self, template: Template, box: Sandbox, on_end: EndCallback) -> Guest:
        """Run a guest for `box`.  It may have ended, and `on_end` been called, on return."""
        guest = Guest(template, box, on_end)
        box.meter = guest
        self.live += 1
        scheduler = self._scheduler
        if scheduler.burst_ns < TURN_NS and self._current.guest is None:
            self._launch(guest)
            # `spent`, spelt out for the many guests after which no turn is due.
            scheduler.burst_ns = burst = scheduler.burst_ns + guest.cpu_used
            if burst > BURST_NS:
                scheduler.spent(0)
        else:
            self._keep(guest)
            scheduler.add(guest)
        return guest

    def _keep(self, guest: Guest) -> None:
        """It needs more than one slice: give it a deadline and account for its memory."""
        self._ticker.hurry()
        guest.lasting = True
        self.lasting.add(guest)
        self.deadlines.add(self._loop.time() + guest.template.limits.wall, guest)

    def _launch(self, guest: Guest) -> None:
        """The first slice: store, instance, call, and for most guests the end.  The fast path.

        Written flat and with locals: as five methods it cost 4 us more.
        """
        template, box, current = guest.template, guest.box, self._current
        cells, at = self._running_cells, self._running_at
        ticker = self._ticker
        if not ticker.armed:
            ticker.arm()
        ticker.used = True
        current.guest = guest
        current.box = box
        cells[at] = template.series + 1
        slots = self._slots
        slot = guest.slot = slots.pop() if slots else Slot()
        began = guest.launched = perf_counter_ns()
        try:
            store = guest.store = store_new(self._engine_at, None, None)
            context = guest.context = store_context(store)
            store_limiter(store, template.memory, template.table_elements, 1, 1, 1)
            set_epoch_deadline(context, 1)
            epoch_yield(context, 1)
            future = guest.future = instantiate_async(
                template.pre, context, slot.instance, slot.trap, slot.error
            )
            guest.phase = _INSTANTIATING
            done = future_poll(future)
            guest.instantiate_ns = perf_counter_ns() - began
            if done:
                done = self._enter(guest, slot, context, future)
        except BaseException as error:
            # Nothing above may fail; if it does, the guest's state is unknown to us.
            guest.fault = error
            done = True
        # Thread time costs 0.26 us to read, the clock 0.07: a short slice is charged its wall time.
        used = perf_counter_ns() - began
        if used > SHORT_NS or not done:
            now = thread_time_ns()
            used = min(used, now - self._slice_ended)  # both are at least its CPU time
            self._slice_ended = now
            self._launched_since = False
        else:
            self._launched_since = True
        guest.cpu_used = used
        guest.launched = 0
        cells[at] = 0
        current.guest = None
        if not done:
            if guest.doom is not None:
                self.end(guest, guest.doom)
            else:
                self._continue(guest)
        elif (
            guest.phase is not _CALLING
            or guest.doom is not None
            or guest.fault is not None
            or guest.lasting
            or _QWORDS[slot.trap >> 3]
            or _QWORDS[slot.error >> 3]
        ):
            self._finish(guest)
        else:  # `end`, for a guest that returned in its first slice and holds only its store
            guest.ended = True
            guest.memory_peak = memory_size(guest.context, slot.memory)
            guest.phase = _ENDED
            future_delete(guest.future)
            box.memory.close()
            store_delete(guest.store)
            guest.store = guest.future = 0
            slots.append(slot)
            self.live -= 1
            told = guest.on_end
            guest.on_end = None
            box.meter = ENDED_METER
            assert told is not None
            told(guest, OK)

    def _enter(self, guest: Guest, slot: Slot, context: int, future: int) -> bool:
        """The instance exists: find its memory, call its program, and poll once."""
        future_delete(future)
        guest.future = 0
        if _QWORDS[slot.trap >> 3] or _QWORDS[slot.error >> 3]:
            return True
        template = guest.template
        memory = slot.memory
        if slot.template is template:
            # This slot holds the handle that the last instance of this template had here, and that
            # is an index in its store behind the store's number (asking: 0.45 us, this: 0.1).
            _QWORDS[memory >> 3] = _QWORDS[slot.instance >> 3]
        else:
            export_get(context, slot.instance, _MEMORY_AT, 6, slot.memory_extern)
            slot.template = template
        # A start function may have made it larger: whoever needs more than this asks again.
        guest.box.memory = EngineMemory(
            memory_data(context, memory), template.initial_memory, guest.memory_bytes
        )
        export_get(context, slot.instance, _START_AT, 6, slot.func_extern)
        guest.phase = _CALLING
        future = guest.future = call_async(
            context, slot.func, None, 0, None, 0, slot.trap, slot.error
        )
        done: bool = future_poll(future)
        return done

    def _slice(self, guest: Guest) -> None:
        """Let a guest that was chosen run until it waits, its slice is over, or it ends."""
        if guest.phase is _NEW:
            self._launch(guest)
            return
        current, running, at = self._current, self._running_cells, self._running_at
        assert current.guest is None, "polls do not nest"
        ticker = self._ticker
        if not ticker.armed:
            ticker.arm()
        ticker.used = True
        current.guest = guest
        current.box = guest.box
        running[at] = guest.template.series + 1
        started = guest.slice_started = thread_time_ns()
        try:
            if guest.suspended is None:
                done = future_poll(guest.future)
            else:
                # What a turn costs between two slices is the suspended guest's doing.
                between = started - self._slice_ended
                if self._launched_since:  # others' guests are in it, so the thread was awake
                    between = SUSPENSION_LEAST_NS
                guest.cpu_used += min(between, SUSPENSION_MOST_NS)
                # Ticks that came while it waited must not end this slice at its code's first check.
                set_epoch_deadline(guest.context, 1)
                done = self._resume(guest) and future_poll(guest.future)
            if done and guest.phase is _INSTANTIATING:
                done = self._enter(guest, guest.slot, guest.context, guest.future)
        except BaseException as error:
            guest.fault = error
            done = True
        self._slice_ended = now = thread_time_ns()
        self._launched_since = False
        guest.cpu_used += now - started
        guest.slice_started = 0
        running[at] = 0
        current.guest = None
        if done:
            self._finish(guest)
        elif guest.doom is not None:
            self.end(guest, guest.doom)
        else:
            self._continue(guest)

    # Between slices -------------------------------------------------------------------------

    def _continue(self, guest: Guest) -> None:
        """The slice is over and the guest is not: charge it, then queue it or let it wait."""
        if not guest.lasting:
            self._keep(guest)
        size, held = guest.memory_bytes(), guest.box.account.held
        if size != guest.memory_peak or held != guest.host_bytes:
            self.memory_bytes += size - guest.memory_peak
            guest.memory_peak = size
            guest.host_bytes = held
            if self.on_memory is not None:
                self.on_memory()
                if guest.ended:
                    return
        template = guest.template
        if guest.cpu_used > template.cpu_ns:
            self.end(guest, endings.cpu_limit(guest))
            return
        call = guest.suspended
        if call is None or call.waiting is None:
            self._scheduler.add(guest)
            return
        guest.suspensions += 1
        self.parked += 1
        call.waiting._asyncio_future_blocking = False
        guest.waker = Waker(guest, self._wake)
        call.waiting.add_done_callback(guest.waker)

    def _wake(self, guest: Guest) -> None:
        guest.waker = None
        self.parked -= 1
        self._scheduler.add(guest)

    def _resume(self, guest: Guest) -> bool:
        """Step the hostcall that a guest waits in.  True when its result is in place."""
        call = guest.suspended
        assert call is not None
        value: object = None
        failure: BaseException | None = None
        try:
            call.waiting = call.coro.send(None)
        except StopIteration as stop:
            value = stop.value
        except BaseException as error:
            failure = error
        else:
            return False
        guest.suspended = None
        complete(self._binding, guest.box, call, value, failure)
        WINDOW[guest.slot.ready] = b"\1"
        return True

    def _expire(self, guest: Guest) -> None:
        self.end(guest, endings.wall_limit(guest))

    # Ending ---------------------------------------------------------------------------------

    def _finish(self, guest: Guest) -> None:
        """The program is over by itself, or failed: find out which."""
        found = _NEITHER
        if guest.store:
            found = _TRAP_AND_ERROR.unpack_from(WINDOW, guest.slot.trap)
        if found == _NEITHER and guest.fault is None:
            self.end(guest, guest.doom or OK)
            return
        outcome = guest.doom
        if outcome is None:
            outcome = endings.classify(guest, *found)
        else:
            endings.discard(*found)
        if guest.store:
            _TRAP_AND_ERROR.pack_into(WINDOW, guest.slot.trap, 0, 0)
        self.end(guest, outcome)

    def end(self, guest: Guest, outcome: Outcome) -> None:
        """End a guest now, whatever it does.  From inside its own hostcall: as soon as it yields.

        Ending it twice does nothing.  The sandbox stays open for `on_end`, which closes it.
        """
        if guest.ended:
            return
        on_stack = self._current.guest
        if on_stack is not None:
            if guest.doom is None:
                guest.doom = outcome
            if on_stack is not guest:  # unwinding it now would nest in another's poll
                self._loop.call_soon(self.end, guest, outcome)
            return
        guest.ended = True
        if guest.suspended is not None:
            self._abandon_hostcall(guest)
        if guest.store:
            self.memory_bytes -= guest.memory_peak
            guest.memory_peak = guest.memory_bytes() if guest.phase is _CALLING else 0
            if guest.future:
                future_delete(guest.future)  # unwinds a suspended guest
            guest.box.memory.close()
            store_delete(guest.store)
            self._release(guest)
        guest.phase = _ENDED
        self.live -= 1
        if guest.lasting:
            self.lasting.discard(guest)
            self.deadlines.forget()
        # No cycles are left behind: what a request made goes with its last reference.
        told, guest.on_end = guest.on_end, None
        guest.box.meter = ENDED_METER
        assert told is not None
        told(guest, outcome)

    def _release(self, guest: Guest) -> None:
        slot = guest.slot
        guest.store = guest.future = 0
        trap, error = _TRAP_AND_ERROR.unpack_from(WINDOW, slot.trap)
        if trap or error:  # left by a future that was deleted under way
            endings.discard(trap, error)
            _TRAP_AND_ERROR.pack_into(WINDOW, slot.trap, 0, 0)
        self._slots.append(slot)

    def _abandon_hostcall(self, guest: Guest) -> None:
        call, guest.suspended = guest.suspended, None
        assert call is not None
        if guest.waker is not None:
            if call.waiting is not None:
                call.waiting.remove_done_callback(guest.waker)
            guest.waker = None
            self.parked -= 1
        try:
            call.coro.close()
        except Exception:
            log.exception(
                "a hostcall would not be cancelled",
                extra={"hostcall": f"{call.hostcall.module}.{call.hostcall.name}"},
            )

    # What trampolines call ------------------------------------------------------------------

    def _suspend(self, box: Sandbox, call: Suspended) -> int:
        guest = self._current.guest
        assert guest is not None
        guest.suspended = call
        WINDOW[guest.slot.ready] = b"\0"
        return guest.slot.ready

    def _fault(self, error: BaseException) -> int:
        guest = self._current.guest
        if guest is not None and guest.fault is None:
            guest.fault = error
        return capi.new_trap("host fault")

    def _leave(self, stop: GuestExit) -> int:
        guest = self._current.guest
        assert guest is not None
        guest.exit_code = stop.code
        return capi.new_trap("exit")

    def close(self) -> None:
        """Stop ticking.  Must be called before the process lets go of the engine."""
        self.deadlines.close()
        self._ticker.close()

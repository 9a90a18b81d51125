"""Why a guest ended: from a trap, an error or a limit to an Outcome an operator can act on."""

from __future__ import annotations

import logging
import traceback
from struct import Struct
from typing import TYPE_CHECKING

from edge.outcome import OK, Ending, Outcome
from edge.runtime import capi
from edge.runtime.guest import Phase
from edge.runtime.rewrite import MEMORY_REFUSALS, TABLE_REFUSALS

if TYPE_CHECKING:
    from edge.runtime.guest import Guest

log = logging.getLogger("edge.runtime")

MIB = 1024 * 1024
_STACK_OVERFLOW = 0  # wasmtime_trap_code_enum
_POOL_FULL = "maximum concurrent"  # of Wasmtime's PoolConcurrencyLimitError
_I32 = Struct("<i")
_COUNTERS = {name: capi.constant(name.encode()) for name in (MEMORY_REFUSALS, TABLE_REFUSALS)}

# Without the counters of rewrite.py, a guest that failed while it held this share of its limit is
# taken to have run out of memory.
_NEARLY_ALL = 0.9


def cpu_limit(guest: Guest) -> Outcome:
    return Outcome(
        Ending.CPU_LIMIT,
        "the guest used up its CPU time",
        f"{guest.cpu_used / 1e6:.1f}ms",
        f"{guest.template.limits.cpu * 1e3:g}ms",
        _setting(guest, "cpu"),
    )


def wall_limit(guest: Guest) -> Outcome:
    limit = guest.template.limits.wall
    return Outcome(
        Ending.WALL_LIMIT,
        "the guest used up its wall time",
        f"{limit:g}s",
        f"{limit:g}s",
        _setting(guest, "wall"),
    )


def classify(guest: Guest, trap: int, error: int) -> Outcome:
    """The outcome of a guest that did not return normally; frees `trap` and `error`."""
    code: int | None = None
    message = ""
    if trap:
        code, message = capi.take_trap(trap)
    elif error:
        message = capi.take_error(error)
    if guest.fault is not None:
        return _fault(guest, guest.fault)
    if guest.exit_code == 0:
        return OK
    cause = message.splitlines()[-1].strip() if message else ""
    if guest.phase is Phase.INSTANTIATING and _POOL_FULL in message:
        log.error("admission let in more guests than the pool has slots: %s", cause)
        return Outcome(Ending.FAULT, "a bug in this server; the log has more")
    if code == _STACK_OVERFLOW:
        return Outcome(
            Ending.STACK_LIMIT, "the guest's stack overflowed", "1MiB", "1MiB", "a build constant"
        )
    for check in (_host_memory, _memory, _table):
        outcome = check(guest)
        if outcome is not None:
            return outcome
    if guest.exit_code is not None:
        return Outcome(Ending.GUEST_ERROR, f"the guest left with exit code {guest.exit_code}")
    return Outcome(Ending.TRAP, cause or "the guest trapped")


def discard(trap: int, error: int) -> None:
    """Free what a deleted call left behind."""
    if trap:
        capi.trap_delete(trap)
    if error:
        capi.error_delete(error)


def _fault(guest: Guest, fault: BaseException) -> Outcome:
    log.error(
        "fault in a hostcall of service %s: %s",
        guest.template.service,
        "".join(traceback.format_exception(fault)),
    )
    return Outcome(Ending.FAULT, "a bug in this server; the log has its traceback")


def _host_memory(guest: Guest) -> Outcome | None:
    account = guest.box.account
    if not account.exceeded:
        return None
    return Outcome(
        Ending.MEMORY_LIMIT,
        "the guest failed after the host refused to hold more for it",
        f"{account.peak}B",
        f"{account.limit}B",
        _setting(guest, "host_memory"),
    )


def _memory(guest: Guest) -> Outcome | None:
    limit = guest.template.limits.memory
    size = guest.memory_bytes() if guest.phase is Phase.CALLING else 0
    if guest.template.counts_refusals:
        if not _count(guest, MEMORY_REFUSALS):
            return None
    elif size < _NEARLY_ALL * limit:
        return None
    return Outcome(
        Ending.MEMORY_LIMIT,
        "the guest failed after memory was refused to it",
        f"{size / MIB:.1f}MiB",
        f"{limit / MIB:g}MiB",
        _setting(guest, "memory"),
    )


def _table(guest: Guest) -> Outcome | None:
    if not guest.template.counts_refusals or not _count(guest, TABLE_REFUSALS):
        return None
    limit = guest.template.limits.table_elements
    return Outcome(
        Ending.TABLE_LIMIT,
        "the guest failed after table elements were refused to it",
        "",
        str(limit),
        _setting(guest, "table_elements"),
    )


def _count(guest: Guest, export: str) -> int:
    """The value of a counter that our compile step adds; 0 before there is an instance."""
    if guest.phase is not Phase.CALLING:
        return 0
    slot = guest.slot
    # The function's slot is free now: the call is over.
    if not capi.export_get(guest.context, slot.instance, *_COUNTERS[export], slot.func_extern):
        return 0
    owner, value = capi.buffer(32)
    capi.global_get(guest.context, slot.func, value)
    count: int = _I32.unpack_from(owner, 8)[0]
    return count


def _setting(guest: Guest, name: str) -> str:
    return f"services.{guest.template.service}.limits.{name}"

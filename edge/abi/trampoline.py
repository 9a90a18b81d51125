"""Turns a declared hostcall into one flat Python function that C can call.

The function is generated as source once per hostcall, when a module that imports it is linked:
every codec's lines stand in it one after the other, so that a call costs its work and no
interpretation.  Measured: 7 us a call with codecs interpreted, 0.6 us generated.

Layout of what C hands over (wasmtime.h): immediate calls get an array of 16-byte raw slots that
holds the arguments and takes the result; suspending calls get arrays of `wasmtime_val_t`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from struct import Struct
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from edge.abi.codec import Names
from edge.abi.hostcall import Dialect, Hostcall
from edge.abi.sandbox import GuestExit
from edge.errors import HostcallError, LimitExceeded

if TYPE_CHECKING:
    from edge.abi.sandbox import Sandbox

RAW_STRIDE = 16  # sizeof(wasmtime_val_raw_t)
VAL_STRIDE = 32  # sizeof(wasmtime_val_t); asserted in runtime/capi.py
VAL_OFFSET = 8  # offsetof(wasmtime_val_t, of), padded to 16 on some targets; asserted there too

_QWORD = Struct("<Q")


class Current(Protocol):
    """Whose guest is running now; set around every poll."""

    box: Sandbox


class Suspended:
    """A hostcall that waits: its coroutine, what it awaits now, and where its result will go."""

    __slots__ = ("coro", "hostcall", "lower", "pointers", "results", "trap_out", "waiting")

    def __init__(
        self,
        hostcall: Hostcall,
        coro: Coroutine[Any, None, Any],
        waiting: Any,
        lower: Callable[..., None],
        pointers: tuple[int, ...],
        results: int,
        trap_out: int,
    ) -> None:
        self.hostcall = hostcall
        self.coro = coro
        self.waiting = waiting
        self.lower = lower
        self.pointers = pointers
        self.results = results
        self.trap_out = trap_out


@dataclass(frozen=True, slots=True)
class Binding:
    """What the engine's side lends to generated code.

    `fault(error)` and `leave(stop)` give the address of a new trap, owned by whoever gets it.
    `suspend(box, suspended)` gives the address of a cell that tells `continuation` to wait;
    `ready` is a cell that tells it not to.
    """

    window: Any
    current: Current
    fault: Callable[[BaseException], int]
    leave: Callable[[GuestExit], int]
    suspend: Callable[[Sandbox, Suspended], int]
    continuation: int
    ready: int
    # Told of each hostcall that has its status.  None costs nothing: no line is generated for it.
    trace: Callable[[Sandbox, Hostcall, int], None] | None = None


def immediate(hostcall: Hostcall, binding: Binding) -> Callable[[int, int, int], int]:
    """`f(env, caller, slots) -> trap address or 0`."""
    names = _namespace(hostcall, binding)
    params, pointers = _parameter_names(hostcall)
    body = _lift(hostcall, params, pointers, names)
    values = ", ".join(["box", *(f"a{i}" for i in range(len(hostcall.params)))])
    body += [f"r = handler({values})", *_lower(hostcall, pointers, names)]
    lines = [
        "def trampoline(env, caller, slots):",
        "    box = current.box",
        "    box.calls += 1",
        "    try:",
        "        m = box.memory",
        *_unpack(params + pointers, hostcall.signature, RAW_STRIDE, 0, "slots", names),
        *(f"        {line}" for line in body),
        *([f"        q[slots >> 3] = {hostcall.dialect.ok}"] if hostcall.returns else []),
        *([f"        trace(box, hostcall, {hostcall.dialect.ok})"] if binding.trace else []),
        "        return 0",
        "    except HostcallError as error:",
        "        status = status_of(box, error, dialect)",
        "    except GuestExit as stop:",
        "        return leave(stop)",
        "    except BaseException as error:",
        "        return fault(error)",
    ]
    if hostcall.returns:
        lines.append("    q[slots >> 3] = status")
    if binding.trace:
        lines.append("    trace(box, hostcall, status)")
    lines.append("    return 0")
    return _compile(lines, names, hostcall)


def suspending(hostcall: Hostcall, binding: Binding) -> Callable[..., None]:
    """`f(env, caller, args, nargs, results, nresults, trap_out, continuation_out)`."""
    names = _namespace(hostcall, binding)
    names.values["pack_continuation"] = Struct("<QQQ").pack_into
    names.values["pack_result"] = Struct(f"<Q{VAL_OFFSET - 8}xQ").pack_into
    names.values["Suspended"] = Suspended
    names.values["Coroutine"] = CoroutineType
    params, pointers = _parameter_names(hostcall)
    values = ", ".join(["box", *(f"a{i}" for i in range(len(hostcall.params)))])
    lower = _lower(hostcall, pointers, names)
    pointer_tuple = f"({''.join(f'{p}, ' for p in pointers)})"
    lines = [
        "def lower(m, box, pointers, r):",
        *([f"    {pointer_tuple} = pointers"] if pointers else []),
        *(f"    {line}" for line in lower or ["pass"]),
        "def trampoline(env, caller, args, nargs, results, nresults, trap_out, continuation_out):",
        "    box = current.box",
        "    box.calls += 1",
        "    m = box.memory",
        "    trap = 0",
        f"    status = {hostcall.dialect.ok}",
        "    try:",
        *_unpack(params + pointers, hostcall.signature, VAL_STRIDE, VAL_OFFSET, "args", names),
        *(f"        {line}" for line in _lift(hostcall, params, pointers, names)),
        *(f"        {line}" for line in _first_step(hostcall, values, pointer_tuple, lower)),
        "    except HostcallError as error:",
        "        status = status_of(box, error, dialect)",
        "    except GuestExit as stop:",
        "        trap = leave(stop)",
        "    except BaseException as error:",
        "        trap = fault(error)",
        "    if trap:",
        "        pack_qword(w, trap_out, trap)",
        *(["    else:", "        trace(box, hostcall, status)"] if binding.trace else []),
        "    pack_result(w, results, 0, status)",
        "    pack_continuation(w, continuation_out, continuation, ready, 0)",
    ]
    return _compile(lines, names, hostcall)


def _first_step(hostcall: Hostcall, values: str, pointers: str, lower: Sequence[str]) -> list[str]:
    """Call the handler and run its coroutine up to the first wait, which is often its end."""
    step = [
        "try:",
        "    waiting = coro.send(None)",
        "except StopIteration as done:",
        "    r = done.value",
        *(f"    {line}" for line in lower),
        "else:",
        f"    cell = suspend(box, Suspended(hostcall, coro, waiting, lower, {pointers},",
        "                                  results, trap_out))",
        "    pack_continuation(w, continuation_out, continuation, cell, 0)",
        "    return",
    ]
    if not hostcall.may_suspend:
        return [f"coro = handler({values})", *step]
    return [
        f"r = handler({values})",
        "if r.__class__ is Coroutine:",
        "    coro = r",
        *(f"    {line}" for line in step),
        "else:",
        *(f"    {line}" for line in lower or ["pass"]),
    ]


def complete(
    binding: Binding, box: Sandbox, call: Suspended, value: object, error: BaseException | None
) -> None:
    """Hand the result of a suspended hostcall to the guest that waits for it."""
    status, trap = call.hostcall.dialect.ok, 0
    try:
        if error is not None:
            raise error
        call.lower(box.memory, box, call.pointers, value)
    except HostcallError as failure:
        status = status_of(box, failure, call.hostcall.dialect)
    except GuestExit as stop:
        trap = binding.leave(stop)
    except BaseException as fault:
        trap = binding.fault(fault)
    if trap:
        _QWORD.pack_into(binding.window, call.trap_out, trap)
    elif binding.trace is not None:
        binding.trace(box, call.hostcall, status)
    _QWORD.pack_into(binding.window, call.results, 0)
    _QWORD.pack_into(binding.window, call.results + VAL_OFFSET, status)


def status_of(box: Sandbox, error: HostcallError, dialect: Dialect) -> int:
    """The number for the guest; a limit that was hit is remembered for the operator."""
    if isinstance(error, LimitExceeded) and error.limit:
        box.limits_hit[error.limit] = box.limits_hit.get(error.limit, 0) + 1
    return dialect.status_of(error)


class Pause:
    """`await Pause()` gives the thread back for one turn of the scheduler."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def _namespace(hostcall: Hostcall, binding: Binding) -> Names:
    names = Names()
    names.values.update(
        w=binding.window,
        current=binding.current,
        fault=binding.fault,
        leave=binding.leave,
        suspend=binding.suspend,
        continuation=binding.continuation,
        ready=binding.ready,
        handler=hostcall.handler,
        hostcall=hostcall,
        dialect=hostcall.dialect,
        status_of=status_of,
        trace=binding.trace,
        HostcallError=HostcallError,
        GuestExit=GuestExit,
        pack_qword=_QWORD.pack_into,
        # Slots are aligned, so one can be indexed: 41 ns, a call of `struct` takes 55.
        q=memoryview(binding.window).cast("B").cast("Q"),
        d=memoryview(binding.window).cast("B").cast("I"),
    )
    return names


def _parameter_names(hostcall: Hostcall) -> tuple[list[str], list[str]]:
    count = sum(len(param.wasm) for param in hostcall.params)
    return [f"p{i}" for i in range(count)], [f"o{i}" for i in range(len(hostcall.results))]


def _unpack(
    targets: list[str], signature: str, stride: int, offset: int, source: str, names: Names
) -> list[str]:
    """Read all arguments at once: one slice of fixed-stride slots, each i32 or i64, unsigned."""
    if not targets:
        return []
    if signature == "i" and not offset:
        return [f"        {targets[0]} = d[{source} >> 2]"]
    layout = "<"
    for at, letter in enumerate(signature):
        size = 4 if letter == "i" else 8
        before = offset if at == 0 else 0
        layout += f"{before}x{'I' if letter == 'i' else 'Q'}{stride - size}x"
    layout = layout[: layout.rindex("I" if signature[-1] == "i" else "Q") + 1]
    unpack = names.bind(Struct(layout).unpack_from, "unpack")
    return [f"        {', '.join(targets)}, = {unpack}(w, {source})"]


def _lift(hostcall: Hostcall, params: list[str], pointers: list[str], names: Names) -> list[str]:
    """Argument lines; out pointers are checked before anything happens, so nothing is lost."""
    lines = [
        f"if {pointer} > m.size - {result.width}: m.require({pointer}, {result.width})"
        for pointer, result in zip(pointers, hostcall.results, strict=True)
    ]
    at = 0
    for number, param in enumerate(hostcall.params):
        end = at + len(param.wasm)
        lines += param.lift(params[at:end], f"a{number}", names)
        at = end
    return lines


def _lower(hostcall: Hostcall, pointers: list[str], names: Names) -> list[str]:
    results = hostcall.results
    if len(results) == 1:
        return results[0].lower(pointers[0], "r", names)
    lines = []
    if results:
        lines.append(f"{', '.join(f'r{i}' for i in range(len(results)))} = r")
    for number, (result, pointer) in enumerate(zip(results, pointers, strict=True)):
        lines += result.lower(pointer, f"r{number}", names)
    return lines


def _compile(lines: list[str], names: Names, hostcall: Hostcall) -> Callable[..., Any]:
    where = f"<trampoline {hostcall.module}.{hostcall.name}>"
    exec(compile("\n".join(lines), where, "exec"), names.values)  # noqa: S102  our own text
    function: Callable[..., Any] = names.values["trampoline"]
    return function

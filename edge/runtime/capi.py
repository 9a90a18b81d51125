"""The C functions we call by hand, and the only module that imports ctypes.

The wheel's own wrappers interpret types at every call and drop the GIL around each; the calls here
take well under a microsecond, so they are declared with plain integers on a `PyDLL` handle, which
keeps the GIL (measured: 26,000 requests/s against 13,600).  Addresses are ints everywhere.

Rules that keep this sound:
* whatever C may still point at is kept alive by its owner here (`keep`, `Callbacks`);
* callbacks never raise: ctypes would print the exception and return 0;
* polls do not nest, and one future exists per store at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import (
    CFUNCTYPE,
    PyDLL,
    c_bool,
    c_char,
    c_char_p,
    c_int,
    c_long,
    c_size_t,
    c_uint8,
    c_void_p,
)
from typing import Any, Final

from wasmtime import _ffi as ffi

from edge.abi.trampoline import RAW_STRIDE, VAL_OFFSET, VAL_STRIDE

assert ctypes.sizeof(ffi.wasmtime_val_raw_t) == RAW_STRIDE
assert ctypes.sizeof(ffi.wasmtime_val_t) == VAL_STRIDE
assert ffi.wasmtime_val_t.of.offset == VAL_OFFSET

# All of the process as one array: slices of it are bytes (60-75 ns against 300 ns for string_at).
# Only GuestMemory and generated trampolines index it, behind their bounds checks.
WINDOW: Final[Any] = (c_char * 2**47).from_address(0)
VIEW: Final = memoryview(WINDOW).cast("B")

INSTANCE_SIZE: Final = ctypes.sizeof(ffi.wasmtime_instance_t)
EXTERN_SIZE: Final = ctypes.sizeof(ffi.wasmtime_extern_t)
EXTERN_VALUE: Final = ffi.wasmtime_extern_t.of.offset

# Every 64-bit integer argument is declared `c_void_p`: the ABI is the same, and ctypes converts an
# int to it in half the time (store_limiter: 0.75 us with c_int64, 0.39 us so).
_PATH: Final = ffi.dll._name
_fast = PyDLL(_PATH)
_constants: list[Any] = []


def _declare(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(_fast, name)
    function.restype = result
    function.argtypes = arguments
    return function  # type: ignore[no-any-return]


store_new = _declare("wasmtime_store_new", c_void_p, c_void_p, c_void_p, c_void_p)
store_context = _declare("wasmtime_store_context", c_void_p, c_void_p)
store_delete = _declare("wasmtime_store_delete", None, c_void_p)
store_limiter = _declare("wasmtime_store_limiter", None, *[c_void_p] * 6)
set_epoch_deadline = _declare("wasmtime_context_set_epoch_deadline", None, c_void_p, c_void_p)
# Declared in the header to return an error; the library returns nothing.  Never look at it.
epoch_yield = _declare(
    "wasmtime_context_epoch_deadline_async_yield_and_update", None, c_void_p, c_void_p
)
instantiate_async = _declare("wasmtime_instance_pre_instantiate_async", c_void_p, *[c_void_p] * 5)
call_async = _declare("wasmtime_func_call_async", c_void_p, *[c_void_p] * 8)
future_poll = _declare("wasmtime_call_future_poll", c_bool, c_void_p)
future_delete = _declare("wasmtime_call_future_delete", None, c_void_p)
export_get = _declare("wasmtime_instance_export_get", c_bool, *[c_void_p] * 5)
memory_data = _declare("wasmtime_memory_data", c_void_p, c_void_p, c_void_p)
memory_size = _declare("wasmtime_memory_data_size", c_size_t, c_void_p, c_void_p)
global_get = _declare("wasmtime_global_get", None, c_void_p, c_void_p, c_void_p)
increment_epoch = _declare("wasmtime_engine_increment_epoch", None, c_void_p)
trap_delete = _declare("wasm_trap_delete", None, c_void_p)
error_delete = _declare("wasmtime_error_delete", None, c_void_p)
_trap_new = _declare("wasmtime_trap_new", c_void_p, c_char_p, c_size_t)
_trap_code = _declare("wasmtime_trap_code", c_bool, c_void_p, c_void_p)
_trap_message = _declare("wasm_trap_message", None, c_void_p, c_void_p)
_error_message = _declare("wasmtime_error_message", None, c_void_p, c_void_p)
_vec_delete = _declare("wasm_byte_vec_delete", None, c_void_p)

# The fourth argument, the number of slots, is left where it is: nobody asks for it.
IMMEDIATE: Final = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)
SUSPENDING: Final = CFUNCTYPE(
    None, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p
)
_define_immediate = _declare(
    "wasmtime_linker_define_func_unchecked",
    c_void_p,
    c_void_p,
    c_char_p,
    c_size_t,
    c_char_p,
    c_size_t,
    c_void_p,
    IMMEDIATE,
    c_void_p,
    c_void_p,
)
_define_suspending = _declare(
    "wasmtime_linker_define_async_func",
    c_void_p,
    c_void_p,
    c_char_p,
    c_size_t,
    c_char_p,
    c_size_t,
    c_void_p,
    SUSPENDING,
    c_void_p,
    c_void_p,
)


class _ByteVec(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("data", c_void_p)]


def address_of(owner: Any) -> int:
    """The pointer inside one of the wheel's objects; keep the object while C may use it."""
    return ctypes.cast(owner.ptr(), c_void_p).value or 0


# Messages ------------------------------------------------------------------------------------


def new_trap(message: str) -> int:
    """A trap with our own words; whoever gets the address owns it."""
    text = message.encode()
    trap: int = _trap_new(text, len(text))
    return trap


def take_trap(trap: int) -> tuple[int | None, str]:
    """(trap code or None, message) of a trap, which is freed."""
    code = c_uint8(0)
    has_code = _trap_code(trap, ctypes.addressof(code))
    text = _text(_trap_message, trap)
    trap_delete(trap)
    return (code.value if has_code else None), text


def trap_text(cell: int) -> str:
    """The whole message of the trap whose address stands at `cell`, which stays; "" for none."""
    trap = c_void_p.from_address(cell).value
    return _text(_trap_message, trap) if trap else ""


def take_error(error: int) -> str:
    """The message of an error, which is freed."""
    text = _text(_error_message, error)
    error_delete(error)
    return text


def _text(read: Callable[[int, int], None], source: int) -> str:
    vec = _ByteVec()
    read(source, ctypes.addressof(vec))
    data = ctypes.string_at(vec.data, vec.size) if vec.size else b""
    _vec_delete(ctypes.addressof(vec))
    return data.rstrip(b"\0").decode(errors="replace")


# Memory that C writes into -------------------------------------------------------------------


def constant(text: bytes) -> tuple[int, int]:
    """Address and length of bytes that live for ever."""
    owner = ctypes.create_string_buffer(text, len(text))
    _constants.append(owner)
    return ctypes.addressof(owner), len(text)


def buffer(size: int) -> tuple[Any, int]:
    """A zeroed buffer and its address; the first value must be kept."""
    owner = ctypes.create_string_buffer(size)
    return owner, ctypes.addressof(owner)


# Continuations without Python ----------------------------------------------------------------
#
# Wasmtime asks a suspended hostcall "are you ready?" through a C function that is given `env` and
# answers a bool.  strlen is such a function: at b"\0" it answers 0, at b"\1\0" it answers 1.  A
# Python callback there costs 0.5 us per question, and each suspending call asks at least once.

_libc = ctypes.CDLL(None, use_errno=True)
CONTINUATION: Final[int] = ctypes.cast(_libc.strlen, c_void_p).value or 0
_ready_cell = ctypes.create_string_buffer(b"\1\0", 2)
READY: Final[int] = ctypes.addressof(_ready_cell)


# Linking -------------------------------------------------------------------------------------


def define_immediate(linker: int, module: str, name: str, functype: int, callback: Any) -> int:
    """Define an immediate hostcall; `callback` stays alive.  An error's address, or 0."""
    m, n = module.encode(), name.encode()
    error = _define_immediate(linker, m, len(m), n, len(n), functype, callback, None, None)
    return error or 0


def define_suspending(linker: int, module: str, name: str, functype: int, callback: Any) -> int:
    """Define a hostcall that may suspend; `callback` stays alive.  An error's address, or 0."""
    m, n = module.encode(), name.encode()
    error = _define_suspending(linker, m, len(m), n, len(n), functype, callback, None, None)
    return error or 0


# The epoch ticker ----------------------------------------------------------------------------

_CLOCK_MONOTONIC = 1
_SIGEV_THREAD = 2


class _Sigevent(ctypes.Structure):
    _fields_ = [
        ("value", c_void_p),
        ("signo", c_int),
        ("notify", c_int),
        ("function", c_void_p),
        ("attributes", c_void_p),
        ("padding", c_int * 8),
    ]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", c_long), ("nanoseconds", c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


_timer_create = _libc.timer_create
_timer_create.argtypes = [c_int, c_void_p, c_void_p]
_timer_settime = _libc.timer_settime
_timer_settime.argtypes = [c_void_p, c_int, c_void_p, c_void_p]
_timer_delete = _libc.timer_delete
_timer_delete.argtypes = [c_void_p]


class EpochTimer:
    """Increments an engine's epoch from a POSIX timer, with no Python and no GIL involved.

    It fails open: glibc starts a thread per tick, and where threads are exhausted ticks vanish
    without a word.  That is why the supervisor watches every worker's heartbeat.
    """

    def __init__(self, engine: int) -> None:
        """Raises OSError when the kernel has no timer for us."""
        event = _Sigevent()
        event.value = engine
        event.notify = _SIGEV_THREAD
        event.function = ctypes.cast(_fast.wasmtime_engine_increment_epoch, c_void_p).value
        self._timer = c_void_p()
        if _timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create for the epoch ticker failed")

    def set(self, period_ns: int) -> None:
        """Tick every `period_ns` (below a second) from now on; 0 is never."""
        every = _Timespec(0, period_ns)
        _timer_settime(self._timer, 0, ctypes.byref(_Itimerspec(every, every)), None)

    def close(self) -> None:
        """Must come before the engine can be freed: a tick into a freed engine is a crash."""
        if self._timer.value is not None:
            self.set(0)
            _timer_delete(self._timer)
            self._timer = c_void_p(None)


# Profiles of guests --------------------------------------------------------------------------

_EPOCH_CALLBACK: Final = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)
_CONTINUE, _YIELD = 0, 1  # wasmtime_update_deadline_kind_t
_profiler_new = _declare("wasmtime_guestprofiler_new", c_void_p, *[c_void_p] * 5)
_profiler_sample = _declare("wasmtime_guestprofiler_sample", None, c_void_p, c_void_p, c_void_p)
_profiler_finish = _declare("wasmtime_guestprofiler_finish", c_void_p, c_void_p, c_void_p)
_epoch_callback = _declare(
    "wasmtime_store_epoch_deadline_callback", None, c_void_p, _EPOCH_CALLBACK, c_void_p, c_void_p
)


class _Modules(ctypes.Structure):
    _fields_ = [("name", c_void_p), ("module", c_void_p)]


class GuestSamples:
    """Where one guest was found, again and again."""

    def __init__(self, engine: int, name: str, module: int, interval_ns: int) -> None:
        """`name` is shown for the guest and its module; `interval_ns` is what we aim at."""
        text = ctypes.create_string_buffer(name.encode())
        vec = _ByteVec(len(text) - 1, ctypes.addressof(text))
        modules = _Modules(ctypes.addressof(vec), module)
        self._profiler: int = _profiler_new(
            engine, ctypes.addressof(vec), interval_ns, ctypes.addressof(modules), 1
        )

    def sample(self, store: int, delta_ns: int) -> None:
        """Note the guest's stack; `delta_ns` of CPU time since the last sample."""
        _profiler_sample(self._profiler, store, delta_ns)

    def finish(self) -> bytes:
        """The profile as JSON.  Nothing can be sampled after it."""
        vec = _ByteVec()
        error = _profiler_finish(self._profiler, ctypes.addressof(vec))
        self._profiler = 0
        if error:
            return take_error(error).encode()
        data = ctypes.string_at(vec.data, vec.size)
        _vec_delete(ctypes.addressof(vec))
        return data


def on_epoch(store: int, ticked: Callable[[], bool]) -> Any:
    """Have `ticked` called in the guest when the epoch ticks, instead of a yield.  Keep the result.

    It says whether the guest is to yield.
    """

    def callback(_context: int, _data: int, delta: int, kind: int) -> int:
        yields = True  # also when we fail: a guest that never yields again would stop the process
        try:
            yields = ticked()
        finally:
            ctypes.c_uint64.from_address(delta).value = 1
            c_uint8.from_address(kind).value = _YIELD if yields else _CONTINUE
        return 0

    kept = _EPOCH_CALLBACK(callback)
    _epoch_callback(store, kept, None, None)
    return kept


# Process settings that Python does not offer -------------------------------------------------

_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1


def unshare_network() -> int:
    """Leave this process without any network.  0, or the errno of the refusal."""
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        return 0
    return ctypes.get_errno()


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to us when the thread that started us ends (Linux)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)

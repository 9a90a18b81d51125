"""A stand-in guest: calls hostcalls through their generated trampolines, with no Wasm involved.

Its memory is a plain buffer; the trampolines read arguments from slots and write results exactly
as they do under the engine.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Any

from edge.abi.hostcall import Hostcall, HostModule
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import GuestExit, Sandbox
from edge.abi.trampoline import (
    RAW_STRIDE,
    VAL_OFFSET,
    VAL_STRIDE,
    Binding,
    Suspended,
    complete,
    immediate,
    suspending,
)

_WINDOW = (ctypes.c_char * 2**47).from_address(0)
_VIEW = memoryview(_WINDOW).cast("B")
_QWORD = Struct("<Q")


class Left(Exception):
    """The guest was told to end, by `proc_exit`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Current:
    box: Sandbox


class FakeGuest:
    """`call(name, *raw)` runs one hostcall and gives its wasm result (a status)."""

    def __init__(
        self, modules: HostModule | Iterable[HostModule], box: Sandbox, size: int = 1 << 20
    ) -> None:
        self.box = box
        self._calls: dict[str, Hostcall] = {}
        for module in [modules] if isinstance(modules, HostModule) else modules:
            for name, hostcall in module.hostcalls.items():
                self._calls.setdefault(name, hostcall)
                self._calls[f"{module.name}.{name}"] = hostcall
        self._ram = ctypes.create_string_buffer(size)
        self.size = size
        self.base = ctypes.addressof(self._ram)
        box.memory = GuestMemory(_WINDOW, _VIEW, self.base, size, lambda: self.size)
        self._top = 16
        self._slots = ctypes.create_string_buffer(32 * VAL_STRIDE)
        self._results = ctypes.create_string_buffer(VAL_STRIDE)
        self._trap = ctypes.create_string_buffer(8)
        self._continuation = ctypes.create_string_buffer(24)
        self._trampolines: dict[str, Callable[..., Any]] = {}
        self._suspended: Suspended | None = None
        self._raised: BaseException | None = None
        current = _Current()
        current.box = box
        self._binding = Binding(
            window=_WINDOW,
            current=current,
            fault=self._raise,
            leave=self._raise,
            suspend=self._suspend,
            continuation=1,
            ready=2,
        )

    # Calling --------------------------------------------------------------------------------

    def call(self, name: str, *raw: int) -> int:
        """Run a hostcall to its end, in an event loop of its own if it suspends."""
        status = self.start(name, *raw)
        if status is None:
            status = asyncio.run(self.finish())
        return status

    async def acall(self, name: str, *raw: int) -> int:
        """The same inside a running event loop."""
        status = self.start(name, *raw)
        return await self.finish() if status is None else status

    def start(self, name: str, *raw: int) -> int | None:
        """First step of a hostcall: its result, or None when the guest is now suspended."""
        hostcall = self._calls[name]
        signature = hostcall.signature
        if len(raw) != len(signature):
            raise TypeError(f"{name} takes ({signature}), not {len(raw)} numbers")
        self._raised = self._suspended = None
        stride, offset = (VAL_STRIDE, VAL_OFFSET) if hostcall.suspends else (RAW_STRIDE, 0)
        for at, (letter, value) in enumerate(zip(signature, raw, strict=True)):
            where = ctypes.addressof(self._slots) + at * stride + offset
            mask = 0xFFFF_FFFF if letter == "i" else 0xFFFF_FFFF_FFFF_FFFF
            _QWORD.pack_into(_WINDOW, where, value & mask)
        trampoline = self._trampoline(name, hostcall)
        slots = ctypes.addressof(self._slots)
        if not hostcall.suspends:
            trampoline(0, 0, slots)
            self._check()
            return int.from_bytes(self._slots.raw[:4], "little")
        _QWORD.pack_into(self._trap, 0, 0)
        results, trap = ctypes.addressof(self._results), ctypes.addressof(self._trap)
        trampoline(0, 0, slots, len(raw), results, 1, trap, ctypes.addressof(self._continuation))
        self._check()
        return None if self._suspended else self._result()

    async def finish(self) -> int:
        """Drive a suspended hostcall to its end, the way the engine's driver does."""
        call = self._suspended
        assert call is not None
        value: object = None
        error: BaseException | None = None
        waiting = call.waiting
        while True:
            await _until(waiting)
            try:
                waiting = call.coro.send(None)
            except StopIteration as done:
                value = done.value
                break
            except Exception as failure:
                error = failure
                break
        complete(self._binding, self.box, call, value, error)
        self._suspended = None
        self._check()
        return self._result()

    def cancel(self) -> None:
        """The guest is killed while it waits."""
        assert self._suspended is not None
        self._suspended.coro.close()

    def _trampoline(self, name: str, hostcall: Hostcall) -> Callable[..., Any]:
        if name not in self._trampolines:
            make = suspending if hostcall.suspends else immediate
            self._trampolines[name] = make(hostcall, self._binding)
        return self._trampolines[name]

    def _result(self) -> int:
        return int.from_bytes(self._results.raw[VAL_OFFSET : VAL_OFFSET + 4], "little")

    def _suspend(self, box: Sandbox, call: Suspended) -> int:
        self._suspended = call
        return 3

    def _raise(self, error: BaseException) -> int:
        self._raised = error
        return 4

    def _check(self) -> None:
        if isinstance(self._raised, GuestExit):
            raise Left(self._raised.code)
        if self._raised is not None:
            raise self._raised

    # Memory ---------------------------------------------------------------------------------

    def put(self, data: bytes) -> tuple[int, int]:
        """Place bytes in guest memory; (ptr, len), ready to splat."""
        ptr = self.room(max(len(data), 1))
        _VIEW[self.base + ptr : self.base + ptr + len(data)] = data
        return ptr, len(data)

    def room(self, size: int) -> int:
        """`size` fresh bytes, 8-byte aligned."""
        ptr, self._top = self._top, (self._top + size + 7) & ~7
        assert self._top <= self.size, "the fake guest is out of memory"
        return ptr

    def bytes_at(self, ptr: int, size: int) -> bytes:
        return bytes(_VIEW[self.base + ptr : self.base + ptr + size])

    def u16_at(self, ptr: int) -> int:
        return int.from_bytes(self.bytes_at(ptr, 2), "little")

    def u32_at(self, ptr: int) -> int:
        return int.from_bytes(self.bytes_at(ptr, 4), "little")

    def u64_at(self, ptr: int) -> int:
        return int.from_bytes(self.bytes_at(ptr, 8), "little")

    def i64_at(self, ptr: int) -> int:
        return int.from_bytes(self.bytes_at(ptr, 8), "little", signed=True)


async def _until(waiting: Any) -> None:
    if waiting is None:
        await asyncio.sleep(0)
        return
    waiting._asyncio_future_blocking = False
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not done.done():
            done.set_result(None)

    waiting.add_done_callback(wake)
    await done

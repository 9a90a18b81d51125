"""Template: a compiled module linked once, ready to be instantiated for every request.

A template, an instance and a hostcall are words that do not assume core modules: another family
would bring another `link` and another way in, not another driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import wasmtime

from edge.abi.hostcall import Hostcall, HostModule
from edge.abi.trampoline import Binding, immediate, suspending
from edge.errors import ModuleRefused
from edge.model.limits import Limits
from edge.runtime import capi
from edge.runtime.rewrite import MEMORY_REFUSALS

PAGE = 64 * 1024
_VALTYPES = {"i": wasmtime.ValType.i32, "I": wasmtime.ValType.i64}


@dataclass(slots=True, eq=False)
class Template:
    """What one version of a service needs to start a guest.

    `pre` is the address of the linked module; `owners` keeps what it points at alive.
    """

    service: str
    limits: Limits
    series: int  # which series of the shared counters it is, for the breaker
    pre: int
    owners: tuple[Any, ...]
    counts_refusals: bool
    cpu_ns: int  # limits.cpu, in the unit that thread time comes in
    memory: int
    table_elements: int
    initial_memory: int  # bytes of linear memory that an instance begins with
    imports_from: frozenset[str]  # import modules, which tell what a program was written for

    @classmethod
    def of(cls, service: str, limits: Limits, series: int, module: Any, linker: Any) -> Template:
        exports = {export.name: export.type for export in module.exports}
        _refuse_what_cannot_be_called(exports)
        linked = linker.instantiate_pre(module)
        return cls(
            service=service,
            limits=limits,
            series=series,
            pre=capi.address_of(linked),
            owners=(linked, linker, module),
            counts_refusals=MEMORY_REFUSALS in exports,
            cpu_ns=int(limits.cpu * 1e9),
            memory=limits.memory,
            table_elements=limits.table_elements,
            initial_memory=exports["memory"].limits.min * PAGE,
            imports_from=frozenset(item.module for item in module.imports),
        )


def _refuse_what_cannot_be_called(exports: dict[str, Any]) -> None:
    """The driver asks for both exports on the fast path and looks at no answer.

    An absent one would leave the last guest's handle in place, which belongs to a dead store.
    """
    start = exports.get("_start")
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        raise ModuleRefused("exports no function _start without parameters and results")
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        raise ModuleRefused("exports no memory under the name memory")


class HostLibrary:
    """All hostcalls this process offers; a trampoline is generated when one is first imported."""

    def __init__(self, engine: Any, binding: Binding, modules: Iterable[HostModule]) -> None:
        self._engine = engine
        self._binding = binding
        self._hostcalls: dict[tuple[str, str], Hostcall] = {
            (module.name, hostcall.name): hostcall
            for module in modules
            for hostcall in module.hostcalls.values()
        }
        self._functypes: dict[tuple[str, str], Any] = {}
        # C holds bare pointers to these for the process's life; one serves every linker.
        self._callbacks: dict[tuple[str, str], Any] = {}

    def linker_for(self, module: Any, *, trap_unknown: bool) -> Any:
        """A linker holding just what `module` imports.

        Raises ModuleRefused naming every import that we do not have, unless they are to trap.
        """
        linker = wasmtime.Linker(self._engine)
        unknown: list[str] = []
        seen: set[tuple[str, str]] = set()
        for item in module.imports:  # some toolchains import one function twice
            key = (item.module, item.name or "")
            if key in seen:
                continue
            seen.add(key)
            hostcall = self._hostcalls.get(key)
            if hostcall is None:
                unknown.append(f"{key[0]}.{key[1]}")
            else:
                self._define(linker, hostcall)
        if unknown and not trap_unknown:
            raise ModuleRefused(f"imports that this server does not have: {', '.join(unknown)}")
        if unknown:
            linker.define_unknown_imports_as_traps(module)
        return linker

    def _define(self, linker: Any, hostcall: Hostcall) -> None:
        key = (hostcall.module, hostcall.name)
        callback = self._callbacks.get(key)
        if callback is None:
            generate: Any = suspending if hostcall.suspends else immediate
            kind = capi.SUSPENDING if hostcall.suspends else capi.IMMEDIATE
            callback = self._callbacks[key] = kind(generate(hostcall, self._binding))
        define = capi.define_suspending if hostcall.suspends else capi.define_immediate
        functype = self._functype(hostcall.signature, hostcall.returns)
        error = define(capi.address_of(linker), *key, capi.address_of(functype), callback)
        if error:
            raise ModuleRefused(f"{key[0]}.{key[1]}: {capi.take_error(error)}")

    def _functype(self, params: str, results: str) -> Any:
        key = (params, results)
        if key not in self._functypes:
            self._functypes[key] = wasmtime.FuncType(
                [_VALTYPES[letter]() for letter in params],
                [_VALTYPES[letter]() for letter in results],
            )
        return self._functypes[key]


def cause_of(error: Exception) -> str:
    """The innermost line of what Wasmtime says: the outer ones name paths of ours."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not more:
        return first
    cause = more[-1].partition(": ")[2] if more[-1][:1].isdigit() else more[-1]
    return cause if first.startswith("failed deserialization") else f"{first}: {cause}"

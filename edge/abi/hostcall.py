"""Declaring hostcalls.

A hostcall is an ordinary function.  Its parameters are the ABI parameters in ABI order; what it
returns, the ABI returns through trailing out pointers.  `def` finishes inside the guest's call;
`async def` may suspend the guest, and may await futures only (it is stepped without a task, its
first step inside the call, so a call that need not wait costs no suspension).
`-> Never` has no wasm result at all (`proc_exit`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never, TypeVar, get_args, get_origin, get_type_hints

from edge.abi.codec import Codec, Int
from edge.abi.unsupported_log import UNSUPPORTED_LOG
from edge.errors import HostcallError, Unsupported

if TYPE_CHECKING:
    from edge.abi.sandbox import Sandbox

F = TypeVar("F", bound=Callable[..., Any])

_RAW: dict[str, Codec] = {"i": Int(), "I": Int(wasm="I", width=8)}


class Dialect:
    """How one family of ABIs spells success and failure."""

    def __init__(
        self, *, ok: int, default: int, statuses: Mapping[type[HostcallError], int]
    ) -> None:
        self.ok = ok
        self._default = default
        self._statuses = dict(statuses)

    def status_of(self, error: HostcallError) -> int:
        for cls in type(error).__mro__:
            if cls in self._statuses:
                return self._statuses[cls]
        return self._default


@dataclass(frozen=True, slots=True)
class Hostcall:
    """One function that a guest can import."""

    module: str
    name: str
    handler: Callable[..., Any]
    params: tuple[Codec, ...]
    results: tuple[Codec, ...]
    dialect: Dialect
    returns: str = "i"  # the wasm result: a status, or "" when the call never returns
    unsupported: str = ""  # the reason, when the call only answers UNSUPPORTED
    doc: str = ""
    may_suspend: bool = False  # a plain function that gives its result, or a coroutine for it

    @property
    def signature(self) -> str:
        """Core wasm parameters, one letter each."""
        return "".join(param.wasm for param in self.params) + "i" * len(self.results)

    @property
    def suspends(self) -> bool:
        return self.may_suspend or inspect.iscoroutinefunction(self.handler)


@dataclass(slots=True)
class HostModule:
    """One wasm import module, such as `fastly_dictionary`: a name, a dialect and its hostcalls."""

    name: str
    dialect: Dialect
    hostcalls: dict[str, Hostcall] = field(default_factory=dict)

    def hostcall(self, handler: F) -> F:
        """Add `handler` under its own name (a trailing underscore is dropped)."""
        return self.named(handler.__name__.rstrip("_"))(handler)

    def may_suspend(self, handler: F) -> F:
        """Add a plain function that answers at once or gives a coroutine: `-> U32 | Coroutine[…]`.

        For calls that hardly ever wait and stand on the hot path: it saves making a coroutine.
        """
        return self.named(handler.__name__.rstrip("_"), may_suspend=True)(handler)

    def named(
        self, name: str, *, may_suspend: bool = False, unsupported: str = "", **crossing: Any
    ) -> Callable[[F], F]:
        """Add a handler under another name, such as an older spelling.

        `unsupported`: the reason, of one that looks at its arguments and then raises Unsupported.

        `crossing` gives annotations in place of the handler's own, by parameter: one handler
        serves two modules whose handles differ.
        """

        def add(handler: F) -> F:
            hints = get_type_hints(handler, include_extras=True) | crossing
            result = hints.pop("return", type(None))
            if may_suspend:
                result = get_args(result)[0]
            _, *params = inspect.signature(handler).parameters  # the first is the sandbox
            self._add(
                Hostcall(
                    module=self.name,
                    name=name,
                    handler=self._telling(handler, name, unsupported) if unsupported else handler,
                    params=tuple(codec_of(hints[p], f"{self.name}.{name}") for p in params),
                    results=tuple(codec_of(r, f"{self.name}.{name}") for r in _each(result)),
                    dialect=self.dialect,
                    returns="" if result is Never else "i",
                    unsupported=unsupported,
                    doc=inspect.getdoc(handler) or "",
                    may_suspend=may_suspend,
                )
            )
            return handler

        return add

    def unsupported(self, name: str, signature: str, reason: str) -> None:
        """A function that links and answers UNSUPPORTED, with the reason for the docs."""
        params = tuple(_RAW[letter] for letter in signature)

        def answer(box: object, *raw: int) -> None:
            raise Unsupported(f"{self.name}.{name}: {reason}")

        handler = self._telling(answer, name, reason)
        self._add(Hostcall(self.name, name, handler, params, (), self.dialect, unsupported=reason))

    def _telling(self, handler: Callable[..., Any], name: str, reason: str) -> Callable[..., Any]:
        """A handler whose operator hears of it when it raises Unsupported."""

        def answer(box: Sandbox, *args: Any) -> Any:
            try:
                return handler(box, *args)
            except Unsupported:
                UNSUPPORTED_LOG.tell(box.service.name, self.name, name, reason)
                raise

        return answer

    def alias(self, name: str, hostcall: Hostcall) -> None:
        """The same function under this module's name (`env.xqd_*`)."""
        self._add(
            Hostcall(
                self.name,
                name,
                hostcall.handler,
                hostcall.params,
                hostcall.results,
                hostcall.dialect,
                hostcall.returns,
                hostcall.unsupported,
                f"Older name of `{hostcall.module}.{hostcall.name}`.",
                hostcall.may_suspend,
            )
        )

    def _add(self, hostcall: Hostcall) -> None:
        if hostcall.name in self.hostcalls:
            raise ValueError(f"{self.name}.{hostcall.name} is declared twice")
        self.hostcalls[hostcall.name] = hostcall


def codec_of(hint: Any, where: str) -> Codec:
    """The codec an annotation carries.  Raises TypeError, naming the function, if it has none."""
    codec = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Codec)), None)
    if codec is None:
        raise TypeError(f"{where}: {hint!r} does not say how it crosses the ABI")
    return codec


def _each(result: Any) -> tuple[Any, ...]:
    if result is type(None) or result is Never:
        return ()
    return get_args(result) if get_origin(result) is tuple else (result,)

"""Runs WAT guests to their outcome on the real engine, in this process.  No sockets, no dispatcher.

One `Arena` is a uvloop loop, a `Runtime` with a small pool, and every hostcall there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import uvloop
import wasmtime

from edge.abi.hostcall import Hostcall, HostModule
from edge.abi.sandbox import Sandbox
from edge.abi.wasi.program import flush
from edge.hostmodules import HOST_MODULES
from edge.http.body import Account, Ledger
from edge.model.limits import Limits
from edge.outcome import Ending, Outcome
from edge.runtime.driver import Runtime
from edge.runtime.engine import MIB, PoolSettings
from edge.runtime.guest import Guest
from edge.runtime.rewrite import count_refusals
from edge.runtime.template import Template
from tests.support.fake_downstream import FakeDownstream
from tests.support.sandboxes import LogLines, make_service

PATIENCE = 20.0  # seconds until a guest that should have ended is called lost

SMALL_POOL = PoolSettings(slots=16, memory_bytes=128 * MIB, table_elements=98_765)

_WASM_TYPES = {"i": "i32", "I": "i64"}
_HOSTCALLS = {
    (module.name, name): hostcall
    for module in HOST_MODULES
    for name, hostcall in module.hostcalls.items()
}
_FULL_NAMES = {"wasi": "wasi_snapshot_preview1", "env": "env"}
_SHORT_NAMES = {full: short for short, full in _FULL_NAMES.items()}

# Every hostcall there is, as `program` spells it.
HOSTCALL_NAMES = tuple(
    f"{_SHORT_NAMES.get(module, module.removeprefix('fastly_'))}.{name}"
    for module, name in _HOSTCALLS
)


def hostcall(name: str) -> Hostcall:
    """The declaration behind a name as `program` spells it."""
    short, _, function = name.partition(".")
    return _HOSTCALLS[_FULL_NAMES.get(short, f"fastly_{short}"), function]


def invocation(name: str, *values: int) -> str:
    """WAT that calls a hostcall with `values`, repeated as needed, and drops its answer."""
    declared = hostcall(name)
    arguments = " ".join(
        f"({_WASM_TYPES[letter]}.const {values[at % len(values)]})"
        for at, letter in enumerate(declared.signature)
    )
    call = f"(call ${name} {arguments})"
    return f"(drop {call})" if declared.returns else call


def program(body: str, *imports: str, memory: str = "1", extra: str = "") -> str:
    """WAT of a guest whose `_start` is `body`; `memory` is its limits in pages.

    `imports` are spelt `http_body.new` or `wasi.fd_write`, and `$http_body.new` calls them; their
    signatures come from the declarations.  `extra` stands before `_start`.
    """
    lines = []
    for name in imports:
        declared = hostcall(name)
        params = " ".join(_WASM_TYPES[letter] for letter in declared.signature)
        result = "(result i32)" if declared.returns else ""
        lines.append(
            f'(import "{declared.module}" "{declared.name}"'
            f" (func ${name} (param {params}) {result}))"
        )
    return "\n".join(
        [
            "(module",
            *lines,
            f'(memory (export "memory") {memory})',
            "(func $must (param $status i32) (if (local.get $status) (then unreachable)))",
            extra,
            f'(func (export "_start") {body}))',
        ]
    )


@dataclass(eq=False)
class Run:
    """One guest and what became of it; `outcome` is None while it lives."""

    box: Sandbox
    client: FakeDownstream
    account: Account
    log: LogLines
    guest: Guest | None = None
    outcome: Outcome | None = None
    endings: list[Outcome] = field(default_factory=list)
    latency: float = 0.0  # seconds from its start to its end

    @property
    def ending(self) -> Ending:
        """How it ended; it must have."""
        assert self.outcome is not None, "the guest is still alive"
        return self.outcome.ending

    @property
    def cpu_ms(self) -> float:
        assert self.guest is not None
        return self.guest.cpu_used / 1e6

    @property
    def sent(self) -> bytes:
        """The response body as far as it is here."""
        return self.client.sent


class Arena:
    """A loop and a runtime; close it, or the interpreter crashes when it ends."""

    def __init__(
        self,
        pool: PoolSettings = SMALL_POOL,
        *,
        modules: Iterable[HostModule] = HOST_MODULES,
    ) -> None:
        # As a worker does: a collection of all that a test run has piled up takes 50 ms and would
        # be charged to the guest in whose slice it happens.
        gc.collect()
        gc.freeze()
        self.loop = uvloop.new_event_loop()
        self.faults: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.runtime = Runtime(pool, modules, self.loop)
        self.ledger = Ledger()
        self.alive: set[Run] = set()
        self._change: asyncio.Future[None] | None = None

    def template(
        self,
        wat: str | bytes,
        *,
        limits: Limits | None = None,
        service: str = "shop",
        counted: bool = True,
    ) -> Template:
        """Compile a module here and link it; `counted` as deployment does, with its refusals."""
        wasm = bytes(wasmtime.wat2wasm(wat)) if isinstance(wat, str) else wat
        if counted:
            wasm = count_refusals(wasm)
        return self.runtime.compile(wasm, service=service, limits=limits or Limits())

    def start(self, template: Template, *, client: FakeDownstream | None = None) -> Run:
        """Start a guest; it may have ended on return."""
        limits = template.limits
        client = client or FakeDownstream()
        account = Account(self.ledger, limits.host_memory)
        log: LogLines = []
        box = Sandbox(
            service=make_service(limits=limits),
            version=1,
            limits=limits,
            downstream=client,
            account=account,
            log_line=lambda box, stream, text, cut: log.append((stream, text, cut)),
        )
        run = Run(box, client, account, log)
        began = time.perf_counter()

        def ended(guest: Guest, outcome: Outcome) -> None:
            run.latency = time.perf_counter() - began
            run.guest = guest
            run.outcome = outcome
            run.endings.append(outcome)
            flush(box)
            box.close()
            self.alive.discard(run)
            if self._change is not None and not self._change.done():
                self._change.set_result(None)

        self.alive.add(run)
        # Hostcalls may only be made from inside the running loop: go there.
        if self.loop.is_running():
            run.guest = self.runtime.start(template, box, ended)
        else:
            self.loop.run_until_complete(self._start(run, template, box, ended))
        return run

    async def _start(self, run: Run, template: Template, box: Sandbox, ended: object) -> None:
        run.guest = self.runtime.start(template, box, ended)  # type: ignore[arg-type]

    def run(
        self,
        wat: str | bytes,
        *,
        limits: Limits | None = None,
        client: FakeDownstream | None = None,
        counted: bool = True,
        patience: float = PATIENCE,
    ) -> Run:
        """Compile, start, and let the loop run until the guest has ended."""
        run = self.start(self.template(wat, limits=limits, counted=counted), client=client)
        self.finish(run, patience=patience)
        return run

    def finish(self, *runs: Run, patience: float = PATIENCE) -> None:
        """Let the loop run until all of them have ended.  Fails after `patience` seconds.

        The loop sleeps when it has nothing to do, so thread time around this is the guests'.
        """
        self.loop.run_until_complete(self._ended(runs, patience))
        assert not self.faults, self.faults

    async def _ended(self, runs: Sequence[Run], patience: float) -> None:
        stop = time.monotonic() + patience
        while any(run.outcome is None for run in runs):
            self._change = self.loop.create_future()
            try:
                await asyncio.wait_for(self._change, stop - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"still running after {patience:g} s") from None

    def worst_turn(self, run: Run, *, patience: float = PATIENCE) -> float:
        """Let the loop run until `run` has ended; the longest that one of its turns took (s)."""
        worst = 0.0

        async def wait() -> None:
            nonlocal worst
            last = time.perf_counter()
            stop = last + patience
            while run.outcome is None:
                await asyncio.sleep(0)
                now = time.perf_counter()
                assert now < stop, f"still running after {patience:g} s"
                worst = max(worst, now - last)
                last = now

        self.loop.run_until_complete(wait())
        return worst

    def until(self, condition: Callable[[], bool], *, patience: float = PATIENCE) -> None:
        """Turn the loop until `condition` holds, asked once a turn."""
        if condition():
            return

        async def wait() -> None:
            stop = time.monotonic() + patience
            while not condition():
                if time.monotonic() > stop:
                    raise AssertionError(f"nothing came of it in {patience:g} s")
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())
        assert not self.faults, self.faults

    def turns(self, count: int) -> None:
        """Turn the loop `count` times."""

        async def wait() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.loop.run_until_complete(wait())

    def close(self) -> None:
        """End every guest and stop the ticker."""
        gone = Outcome(Ending.SHUTDOWN)
        for run in list(self.alive):
            if run.guest is not None:
                self.runtime.end(run.guest, gone)
        self.runtime.close()
        with contextlib.suppress(RuntimeError):
            self.turns(3)
        self.loop.close()
        gc.unfreeze()


@contextlib.contextmanager
def arena(
    pool: PoolSettings = SMALL_POOL, *, modules: Iterable[HostModule] = HOST_MODULES
) -> Iterator[Arena]:
    """An arena that is closed whatever happens."""
    made = Arena(pool, modules=modules)
    try:
        yield made
    finally:
        made.close()

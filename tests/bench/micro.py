"""Micro-benchmarks: `python -m tests.bench.micro`.  One thread, no sockets; judges nothing.

What a sandbox and a hostcall cost by themselves, each the median of many short rounds, with the
best round beside it: a busy machine moves the median, hardly ever the best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import uvloop
import wasmtime

from edge.abi.sandbox import Sandbox
from edge.hostmodules import HOST_MODULES
from edge.http.body import Account, Body, Ledger
from edge.http.message import Answer, Headers, RequestHead, ResponseHead
from edge.model.limits import DEFAULT_LIMITS, Limits
from edge.model.service import Service
from edge.outcome import Ending, Outcome
from edge.runtime import capi
from edge.runtime.driver import Runtime
from edge.runtime.engine import MIB, PoolSettings, compiling_engine
from edge.runtime.guest import Guest, Slot
from edge.runtime.rewrite import count_refusals
from edge.runtime.template import Template
from tests.support.guests import GUESTS, build
from tests.support.runtime import program

POOL = PoolSettings(slots=64, memory_bytes=128 * MIB, table_elements=98_765)
PATIENT = replace(DEFAULT_LIMITS, cpu=60.0, wall=120.0)
BURST = 50  # whole cycles per turn of the loop
CALLS = 20_000  # hostcalls in one guest: what surrounds them vanishes


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement, in microseconds; `target` is what the project aims at, 0 for nothing."""

    name: str
    median_us: float
    best_us: float
    target_us: float = 0


class Client:
    """The least that can be answered: one request, its response kept."""

    __slots__ = ("body", "client_address", "head", "request_id", "responded", "server_address")

    def __init__(self) -> None:
        self.head = RequestHead(b"GET", b"/", b"example.com")
        self.body = Body()
        self.client_address = self.server_address = b"\x7f\0\0\1"
        self.request_id = "0" * 32
        self.responded = False

    @property
    def wants_websocket(self) -> bool:
        return False

    def inform(self, status: int, headers: Headers) -> None: ...

    def hand_over(self, answer: Answer) -> None: ...

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None: ...

    def respond(self, head: ResponseHead, body: Body) -> None:
        self.responded = True
        body.peek_all()

    def abort(self) -> None: ...


def _drop_line(box: Sandbox, stream: str, text: bytes, cut: int) -> None:
    """Log lines of guests that are measured go nowhere."""


def _closing(guest: Guest, outcome: Outcome) -> None:
    assert outcome.ending is Ending.OK, outcome
    guest.box.close()


class Bench:
    """A runtime, its loop, and templates made the way deployment makes them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, directory: Path) -> None:
        self.loop = loop
        self.runtime = Runtime(POOL, HOST_MODULES, loop)
        self._directory = directory
        self._ledger = Ledger()
        self._service = Service("bench", Path("bench.wasm"), ())

    def template(self, wasm: bytes, limits: Limits = PATIENT) -> Template:
        """Rewritten, compiled without the pool, mapped from a file."""
        module = wasmtime.Module(compiling_engine(), count_refusals(wasm))
        artifact = self._directory / f"{abs(hash(wasm))}.artifact"
        artifact.write_bytes(module.serialize())
        return self.runtime.load(str(artifact), service="bench", limits=limits)

    def start(
        self, template: Template, on_end: Callable[[Guest, Outcome], None] = _closing
    ) -> Guest:
        """One request as a worker makes it: client, account, sandbox, guest."""
        box = Sandbox(
            service=self._service,
            version=1,
            limits=template.limits,
            downstream=Client(),
            account=Account(self._ledger, template.limits.host_memory),
            log_line=_drop_line,
        )
        return self.runtime.start(template, box, on_end)

    async def whole(self, template: Template) -> Guest:
        """Start a guest and wait for its end."""
        ended: asyncio.Future[None] = self.loop.create_future()

        def on_end(guest: Guest, outcome: Outcome) -> None:
            _closing(guest, outcome)
            ended.set_result(None)

        guest = self.start(template, on_end)
        await ended
        return guest


def _rounds(name: str, samples: list[float], target: float = 0) -> Figure:
    return Figure(name, round(statistics.median(samples), 2), round(min(samples), 2), target)


def _timed(act: Callable[[], object], count: int) -> float:
    """Microseconds of wall time per call of `act`."""
    began = time.perf_counter_ns()
    for _ in range(count):
        act()
    return (time.perf_counter_ns() - began) / count / 1000


def instantiation(bench: Bench, name: str, template: Template, target: float = 0) -> Figure:
    """Store, limits, instance, teardown: no call, no Python around it."""
    slot = Slot()
    engine = bench.runtime._engine_at

    def act() -> None:
        store = capi.store_new(engine, None, None)
        context = capi.store_context(store)
        capi.store_limiter(store, template.memory, template.table_elements, 1, 1, 1)
        capi.set_epoch_deadline(context, 1 << 40)
        future = capi.instantiate_async(template.pre, context, slot.instance, slot.trap, slot.error)
        while not capi.future_poll(future):
            pass
        capi.future_delete(future)
        capi.store_delete(store)

    _timed(act, 200)
    return _rounds(name, [_timed(act, 500) for _ in range(15)], target)


async def cycle(bench: Bench, template: Template) -> Figure:
    """A request's whole sandbox: objects, store, instance, 7 hostcalls, answer, teardown."""
    samples = []
    for _ in range(200):
        # Fewer than a turn of the loop has time for: more would be queued and not be run.
        samples.append(_timed(lambda: bench.start(template), BURST))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # those that a tick interrupted have ended now
    return _rounds("whole sandbox cycle, 7 hostcalls", samples, 20)


async def per_call(
    bench: Bench, name: str, setup: str, call: str, *imports: str, target: float = 0
) -> Figure:
    """What one of many calls in one guest costs, the empty loop taken off."""

    def wat(body: str) -> bytes:
        loop = (
            f"(local $i i32) {setup} (loop {body}"
            " (local.set $i (i32.add (local.get $i) (i32.const 1)))"
            f" (br_if 0 (i32.lt_u (local.get $i) (i32.const {CALLS}))))"
        )
        return bytes(wasmtime.wat2wasm(program(loop, *imports)))

    async def run(template: Template) -> float:
        began = time.perf_counter_ns()
        await bench.whole(template)
        return (time.perf_counter_ns() - began) / CALLS / 1000

    full, empty = bench.template(wat(f"(call $must {call})")), bench.template(wat(""))
    floor = min([await run(empty) for _ in range(5)])
    return _rounds(name, [await run(full) - floor for _ in range(9)], target)


async def javascript(bench: Bench, module: bytes) -> list[Figure]:
    """The official JavaScript SDK's hello world: 11.5 MB of Wasm."""
    template = bench.template(module)
    figures = [instantiation(bench, "store + instantiate + teardown, JS hello", template, 15)]
    cpu = [(await bench.whole(template)).cpu_used / 1000 for _ in range(100)]
    figures.append(_rounds("JS hello, CPU of a whole request's sandbox", cpu))
    return figures


async def measure(bench: Bench, js: bytes | None) -> list[Figure]:
    """All figures, in the order of the table."""
    hello = bench.template(bytes(wasmtime.wat2wasm((GUESTS / "wat" / "hello.wat").read_text())))
    await bench.whole(hello)
    make_body = "(call $must (call $http_body.new (i32.const 0)))"
    handle = "(i32.load (i32.const 0))"
    figures = [
        instantiation(bench, "store + instantiate + teardown", hello),
        await cycle(bench, hello),
        await per_call(
            bench,
            "sync hostcall (status_set)",
            "(call $must (call $http_resp.new (i32.const 0)))",
            f"(call $http_resp.status_set {handle} (i32.const 200))",
            "http_resp.new",
            "http_resp.status_set",
            target=1.2,
        ),
        await per_call(
            bench,
            "sync hostcall with a result (known_length)",
            make_body,
            f"(call $http_body.known_length {handle} (i32.const 8))",
            "http_body.new",
            "http_body.known_length",
        ),
        await per_call(
            bench,
            "suspending hostcall that need not wait (read)",
            make_body,
            f"(call $http_body.read {handle} (i32.const 64) (i32.const 64) (i32.const 8))",
            "http_body.new",
            "http_body.read",
        ),
        await per_call(
            bench,
            "suspending hostcall with a turn of the loop (sched_yield)",
            "",
            "(call $wasi.sched_yield)",
            "wasi.sched_yield",
        ),
    ]
    if js is not None:
        figures += await javascript(bench, js)
    return figures


@contextmanager
def _bench() -> Iterator[Bench]:
    loop = uvloop.new_event_loop()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(loop, Path(directory))
        try:
            yield bench
        finally:
            bench.runtime.close()
            loop.close()


def table(figures: list[Figure]) -> str:
    """For people, and for docs/performance.md."""
    lines = ["| what | median µs | best µs | target µs |", "|---|---|---|---|"]
    lines += [
        f"| {each.name} | {each.median_us:g} | {each.best_us:g} | "
        f"{f'≤ {each.target_us:g}' if each.target_us else ''} |"
        for each in figures
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-js", action="store_true", help="leave the JavaScript guest out")
    parser.add_argument("--js", type=Path, help="a JavaScript guest that is built already")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    js = None if arguments.no_js else (arguments.js or build("js/hello")).read_bytes()
    with _bench() as bench:
        figures = bench.loop.run_until_complete(measure(bench, js))
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in figures], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

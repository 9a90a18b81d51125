"""What a hostile neighbour costs: latency of good services while another burns all it is given.

`python -m tests.bench.neighbours` prints the table of docs/performance.md.  The server runs with
one worker; client and worker are pinned to cores of their own where there are two.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.guests import build
from tests.support.load import Crowd, Probe, eager_threads, percentile
from tests.support.server import DEADLINE, Server, server
from tests.support.toolchain import cache_directory

SLOTS = 1000
SHARE = 500  # `limits.slots` is half of them
COMPILE_SECONDS = 120.0

LOOP = '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'
# 2048 pages are 128 MiB: one instruction writes them all, and nothing can interrupt it.
BULK = """(module (memory (export "memory") 2048) (func (export "_start")
  (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 134217728)) (br $l))))"""

# service: program, CPU limit in seconds
HOSTILE = {"loop": (LOOP, 0.05), "short": (LOOP, 0.01), "bulk": (BULK, 0.05)}


@dataclass(frozen=True, slots=True)
class Attack:
    """What the hostile service does, by how many clients, and for how long we look."""

    name: str
    service: str  # one of `HOSTILE`
    clients: int
    seconds: float


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("none", "loop", 0, 4),
        Attack("8 loops", "loop", 8, 8),
        # They rise together: 25 s of CPU until the first has had its 50 ms, and the neighbours
        # take their own; then all end within a second, and all come back.
        Attack("500 loops", "loop", SHARE, 80),
        # The same with a fifth of the budget: many such waves in a short window.
        Attack("500 short loops", "short", SHARE, 20),
        Attack("8 bulk fills", "bulk", 8, 10),
    )
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one neighbour in one window; seconds."""

    requests: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Window:
    """What one window showed."""

    attack: str
    wat: Latency
    js: Latency
    killed: int  # hostile guests stopped for their CPU
    cpu_most: float  # the largest CPU time of one of them; seconds
    others: dict[str, int]  # other outcomes of hostile guests


def _config(folder: Path) -> str:
    services = ""
    for name, guest in (("wat", "wat/hello"), ("js", "js/hello")):
        services += f"  {name}:\n    module: {build(guest)}\n    routes: [{{host: {name}.test}}]\n"
    for name, (wat, cpu) in HOSTILE.items():
        (folder / f"{name}.wat").write_text(wat)
        services += (
            f"  {name}:\n    module: {name}.wat\n    routes: [{{host: {name}.test}}]\n"
            f"    limits: {{cpu: {cpu * 1e3:.0f}ms}}\n"
        )
    return (
        'server: {listen: "127.0.0.1:0", workers: 1, drain: 1s}\n'
        'admin: {listen: "127.0.0.1:0"}\n'
        f"pool: {{slots: {SLOTS}}}\nlog: {{access: json}}\n"
        f"state_dir: {cache_directory() / 'process-state'}\nservices:\n{services}"
    )


@contextmanager
def place(folder: Path) -> Iterator[Server]:
    """A server with two good services, WAT and JavaScript, and three hostile ones.

    It has a core of its own where there are two: on a virtual machine whose host takes one core
    away for 30 ms, a ticker on that core is late for a guest on the other.
    """
    under: Sequence[str] = ()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        under = ("taskset", "-c", str(cores[0]))
        os.sched_setaffinity(0, cores[1:])
    try:
        with server(folder, _config(folder), under=under, seconds=COMPILE_SECONDS) as running:
            yield running
    finally:
        os.sched_setaffinity(0, cores)


def measure(running: Server, attack: Attack) -> Window:
    """One window: the crowd is let in, counted, kept alive throughout; probes ask all the time."""
    probes = [Probe(running.port, host) for host in ("wat.test", "js.test")]
    crowd = Crowd(running.port, f"{attack.service}.test", attack.clients)
    with eager_threads():
        crowd.start()
        try:
            # One or two may be between two lives when the worker publishes its gauge.
            _wait_for(running, lambda: running.metric("edge_sandboxes") >= 0.75 * attack.clients)
            for probe in probes:
                probe.start()
            killed, most, others = 0, 0.0, dict[str, int]()
            for record in running.records_for(attack.seconds):
                if record["service"] == attack.service:
                    if record["outcome"] == "cpu_limit":
                        killed += 1
                        most = max(most, record["cpu_us"] / 1e6)
                    else:
                        others[record["outcome"]] = others.get(record["outcome"], 0) + 1
            for probe in probes:
                probe.stop()
        finally:
            crowd.stop()
    wrong = [answer for probe in probes for answer in probe.wrong]
    assert not wrong, f"a neighbour was not served: {wrong[0][:200]!r}"
    _wait_for(running, lambda: running.metric("edge_sandboxes") == 0)
    wat, js = (_latency(probe.seconds) for probe in probes)
    return Window(attack.name, wat, js, killed, most, others)


def _wait_for(running: Server, done: Callable[[], bool]) -> None:
    """Workers publish ten times a second; the log is read meanwhile, so that it never fills."""
    for _ in range(int(DEADLINE / 0.1)):
        if done():
            return
        for _ in running.records_for(0.1):
            pass
    raise AssertionError("the server did not get there in time")


def _latency(seconds: list[float]) -> Latency:
    return Latency(len(seconds), percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds))


def line(window: Window) -> str:
    """One row of the table, in Markdown."""

    def cells(found: Latency) -> str:
        return " | ".join(f"{s * 1e3:.1f}" for s in (found.p50, found.p99, found.most))

    return (
        f"| {window.attack} | {cells(window.wat)} | {cells(window.js)} | {window.killed} |"
        f" {window.cpu_most * 1e3:.1f} |"
    )


HEADER = """\
| hostile service | WAT p50 ms | p99 | most | JS p50 ms | p99 | most | stopped | most CPU ms |
|---|---|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every attack and print the table."""
    parser = argparse.ArgumentParser(description="Latency of services beside a hostile one.")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only this one")
    chosen = parser.parse_args(arguments).attack or list(ATTACKS)
    print(HEADER)
    with (
        tempfile.TemporaryDirectory(prefix="neighbours-") as folder,
        place(Path(folder)) as running,
    ):
        for name in chosen:
            window = measure(running, ATTACKS[name])
            print(line(window), flush=True)
            if window.others:
                print(f"other outcomes: {window.others}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The benchmark of requests to backends: `python -m tests.bench.proxy`, or `make bench`.

Our server and nginx proxy the same backend; both also answer by themselves, so that what a backend
adds can be told from what a server costs.  Two more of our services: a lookup in a KV store, and
three requests at once.  Each is measured busy (16 connections: throughput and processor time) and
quiet (one connection: latency), in turns as in `tests.bench.run`.

The server under test has a core to itself; backend and load generator share the other one, and one
that is busy with both bounds the requests per second.  Processor time is counted of the server
alone, and is what to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.clock import SystemClock
from edge.serving import KV_FILE
from edge.stores.kv import KvLimits, identity_of, insertion_of
from edge.stores.kv_sqlite import SqliteKvEngine
from tests.bench import nginx
from tests.bench.measure import Plan, Sample, Unfit, measure, serving
from tests.bench.micro import Figure
from tests.bench.micro import table as micro_table
from tests.bench.micro_kv import kv_figures
from tests.bench.peers import BODY, Peer, edge
from tests.bench.run import machine, spread
from tests.support.kv import done
from tests.support.toolchain import ROOT, BuildFailed, MissingTool, cache_directory

# What the project aims at.
MOST_ADDED_LATENCY = 150e-6  # seconds of median latency, over our server without a backend
MOST_TIMES_NGINX = 2.5  # processor time per request
METADATA = b"m" * 32

Rounds = Sequence["Both"]
Results = Mapping[str, Rounds]


@dataclass(frozen=True, slots=True)
class Both:
    """One round of one peer."""

    busy: Sample
    quiet: Sample


def peers(backend_port: int) -> dict[str, Peer]:
    """All of them, by name; those that need a backend ask the one on that port."""
    origin = (f'backends: {{origin: {{url: "http://127.0.0.1:{backend_port}"}}}}',)
    log = nginx.proxy(backend_port, log=True)
    every = (
        Peer("edge-front", "ours, no backend: WAT, log off", edge("wat/hello", "off")),
        Peer("edge-pass", "ours, proxy: C, log off", edge("c/pass", "off", origin)),
        Peer("edge-pass-json", "ours, proxy: C, JSON log", edge("c/pass", "json", origin)),
        Peer("nginx-front", "nginx, no backend, log off", nginx.constant),
        Peer("nginx-pass", "nginx, proxy, log off", nginx.proxy(backend_port, log=False)),
        Peer("nginx-pass-log", "nginx, proxy, log as shipped", log),
        Peer(
            "edge-kvget",
            "ours, KV lookup: C",
            edge("c/kvget", "off", ("kv_stores: [cart]",), _seed),
        ),
        Peer(
            "edge-fanout", "ours, 3 requests at once: C", edge("c/fanout", "off", origin), BODY * 3
        ),
    )
    return {peer.name: peer for peer in every}


def _seed(state: Path) -> None:
    """What c/kvget looks up, in the file that the server will open."""

    async def write() -> None:
        limits = KvLimits(value_bytes=1 << 20, store_bytes=1 << 30)
        engine = SqliteKvEngine(state / KV_FILE, limits, SystemClock())
        await engine.start()
        try:
            store = engine.open(identity_of("hello", "cart", ""))
            await done(store.insert("item", insertion_of(BODY, metadata=METADATA)))
        finally:
            await engine.aclose()

    asyncio.run(write())


def table(results: Results, known: Mapping[str, Peer]) -> str:
    """One Markdown line per peer: medians and, in brackets, lowest and highest round."""
    lines = [
        "| peer | requests/s | CPU µs/request | p99 ms | p50 µs, one connection | what it is |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in results.items():
        busy, quiet = [each.busy for each in rounds], [each.quiet for each in rounds]
        columns = (
            name,
            spread(busy, lambda s: s.requests_per_second, ",.0f"),
            spread(busy, lambda s: s.cpu_per_request * 1e6, ".1f"),
            spread(busy, lambda s: s.p99 * 1e3, ".2f"),
            spread(quiet, lambda s: s.p50 * 1e6, ".0f"),
            known[name].what,
        )
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def verdicts(results: Results) -> list[str]:
    """What the targets speak of, as far as it was measured; both sides of a pair in one round."""
    lines = []
    for front, through, most in (
        ("edge-front", "edge-pass", MOST_ADDED_LATENCY),
        ("nginx-front", "nginx-pass", 0.0),
    ):
        added = _pairs(results, front, through, lambda a, b: b.quiet.p50 - a.quiet.p50)
        if added is not None:
            words = f" (target {most * 1e6:.0f}: {_met(added <= most)})" if most else ""
            lines.append(f"{through}, median latency added to {front}: {added * 1e6:.0f} µs{words}")
    for theirs, ours in (("nginx-pass", "edge-pass"), ("nginx-pass-log", "edge-pass-json")):
        ratio = _pairs(
            results, theirs, ours, lambda a, b: b.busy.cpu_per_request / a.busy.cpu_per_request
        )
        if ratio is not None:
            met = _met(ratio <= MOST_TIMES_NGINX)
            lines.append(f"{ours} / {theirs}, CPU: {ratio:.2f} (target {MOST_TIMES_NGINX}: {met})")
    for ours in ("edge-pass", "edge-kvget", "edge-fanout"):
        more = _pairs(
            results,
            "edge-front",
            ours,
            lambda a, b: b.busy.cpu_per_request - a.busy.cpu_per_request,
        )
        if more is not None:
            lines.append(f"{ours}, CPU beyond that of edge-front: {more * 1e6:.1f} µs")
    return lines


def _pairs(
    results: Results, first: str, second: str, figure: Callable[[Both, Both], float]
) -> float | None:
    """Median of a figure over pairs of samples that were taken in the same round."""
    if first not in results or second not in results:
        return None
    return statistics.median(map(figure, results[first], results[second]))


def _met(met: bool) -> str:
    return "met" if met else "NOT met"


def _round(peer: Peer, plan: Plan, quiet: Plan) -> Both:
    return Both(measure(peer, plan), measure(peer, quiet))


def _interleave(
    known: Mapping[str, Peer], names: Sequence[str], rounds: int, plan: Plan
) -> dict[str, list[Both]]:
    quiet = dataclasses.replace(plan, connections=1)
    results: dict[str, list[Both]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in [*names[start:], *names[:start]]:
            try:
                both = _round(known[name], plan, quiet)
            except Unfit as error:
                raise SystemExit(f"{name}, round {number + 1}: {error}") from None
            results[name].append(both)
            print(
                f"round {number + 1}  {name:15} {both.busy.requests_per_second:>8,.0f} req/s"
                f"  {both.busy.cpu_per_request * 1e6:6.1f} µs CPU"
                f"  p50 with one connection {both.quiet.p50 * 1e6:5.0f} µs",
                flush=True,
            )
    return results


@contextlib.contextmanager
def _backend(core: int) -> Iterator[int]:
    """The backend, on the load generator's core; its port."""
    backend = Peer("backend", "nginx, a constant", nginx.constant)
    with serving(backend, core) as (_, port):
        yield port


def _kv_table() -> list[Figure]:
    with tempfile.TemporaryDirectory(dir=cache_directory()) as folder:
        rows = asyncio.run(kv_figures(Path(folder)))
    return [Figure(*row) for row in rows]


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = list(peers(0))
    parser.add_argument("--peers", default=",".join(names), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of a measured run")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1, help="of wrk and of the backend")
    parser.add_argument("--no-kv", action="store_true", help="leave the KV table out")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench-proxy.json")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.peers.split(",") if name not in names]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are: {', '.join(names)}")
    if chosen.rounds < 1 or chosen.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    cores = {chosen.server_core, chosen.client_core}
    if len(cores) < 2 or not cores <= os.sched_getaffinity(0):
        parser.error("server and client each need a core of their own that we may use")
    return chosen


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON file. 0, or the error of the first peer that failed."""
    chosen = _arguments(words)
    plan = Plan(chosen.server_core, chosen.client_core, chosen.seconds)
    about = machine()
    try:
        with _backend(plan.client_core) as port:
            known = peers(port)
            results = _interleave(known, chosen.peers.split(","), chosen.rounds, plan)
    except (MissingTool, BuildFailed, Unfit) as error:
        raise SystemExit(str(error)) from None
    print("\n" + ", ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"\n{table(results, known)}\n")
    print("\n".join(verdicts(results)))
    figures = [] if chosen.no_kv else _kv_table()
    if figures:
        print(f"\n{micro_table(figures)}")
    document = {
        "machine": about,
        "plan": dataclasses.asdict(plan) | {"rounds": chosen.rounds},
        "samples": {name: [dataclasses.asdict(s) for s in got] for name, got in results.items()},
        "kv": [dataclasses.asdict(figure) for figure in figures],
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nwritten: {chosen.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

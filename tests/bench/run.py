"""The benchmark: `python -m tests.bench.run`, or `make bench`. It judges nothing by itself.

Peers take turns, several rounds, a fresh process each time, server and load generator on a core
each: what disturbs the machine then disturbs all of them. Medians are printed with the lowest and
highest round; ratios hold from day to day, absolute figures do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.measure import CLIENT_TOO_BUSY, Plan, Sample, Unfit, measure
from tests.bench.peers import PEERS
from tests.support.toolchain import ROOT, BuildFailed, MissingTool

# What the project aims at: ours, the peer, and how many times its requests per second.
TARGETS = (
    ("edge-off", "wasmtime-tuned", 1.5),
    ("edge-json", "wasmtime-tuned", 1.25),
    ("edge-off", "wasmtime-default", 2.1),
    ("edge-off", "workerd", 1.4),
)

Results = Mapping[str, Sequence[Sample]]


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((x.partition(":")[2] for x in info.splitlines() if x.startswith("model name")), "")
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model.strip() or platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def spread(samples: Sequence[Sample], figure: Callable[[Sample], float], form: str) -> str:
    """Median and, in brackets, the lowest and the highest round."""
    values = [figure(sample) for sample in samples]
    middle = format(statistics.median(values), form)
    return f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def _rate(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.requests_per_second for sample in samples)


def table(results: Results) -> str:
    """One Markdown line per peer: median and, in brackets, lowest and highest round."""
    lines = [
        "| peer | requests/s | p50 ms | p99 ms | CPU µs/request | wrk's core | what it is |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, samples in results.items():
        columns = (
            name,
            spread(samples, lambda s: s.requests_per_second, ",.0f"),
            spread(samples, lambda s: s.p50 * 1e3, ".2f"),
            spread(samples, lambda s: s.p99 * 1e3, ".2f"),
            spread(samples, lambda s: s.cpu_per_request * 1e6, ".1f"),
            f"{max(s.client_busy for s in samples):.0%}",
            PEERS[name].what,
        )
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def ratios(results: Results) -> list[str]:
    """Each target that both sides were measured for, met or not."""
    lines = []
    for ours, peer, wanted in TARGETS:
        if ours in results and peer in results:
            ratio = _rate(results[ours]) / _rate(results[peer])
            verdict = "met" if ratio >= wanted else "NOT met"
            lines.append(f"{ours} / {peer}: {ratio:.2f} (target {wanted}: {verdict})")
    return lines


def _interleave(names: Sequence[str], rounds: int, plan: Plan) -> dict[str, list[Sample]]:
    results: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        # Everyone goes first once: whoever follows a heavy neighbour meets a warmer processor.
        start = number % len(names)
        for name in [*names[start:], *names[:start]]:
            try:
                sample = measure(PEERS[name], plan)
            except Unfit as error:
                raise SystemExit(f"{name}, round {number + 1}: {error}") from None
            results[name].append(sample)
            note = "  wrk was the bottleneck" if sample.client_busy > CLIENT_TOO_BUSY else ""
            print(
                f"round {number + 1}  {name:17} {sample.requests_per_second:>9,.0f} req/s"
                f"  p99 {sample.p99 * 1e3:6.2f} ms  {sample.cpu_per_request * 1e6:6.1f} µs{note}",
                flush=True,
            )
    return results


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of a measured run")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.peers.split(",") if name not in PEERS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are: {', '.join(PEERS)}")
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
        results = _interleave(chosen.peers.split(","), chosen.rounds, plan)
    except (MissingTool, BuildFailed) as error:
        raise SystemExit(str(error)) from None
    print("\n" + ", ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"\n{table(results)}\n")
    print("\n".join(ratios(results)))
    document = {
        "machine": about,
        "plan": dataclasses.asdict(plan) | {"rounds": chosen.rounds},
        "samples": {name: [dataclasses.asdict(s) for s in got] for name, got in results.items()},
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nwritten: {chosen.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starts one pinned server, loads it with wrk from another core, reads off what it cost.

Figures: requests per second and latency as wrk reports them, and processor time per request of the
server's whole process tree from `/proc/PID/stat` (proc(5): utime and stime of all its threads), so
that a server with child processes pays for them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import Peer, free_port

# Compiling the JavaScript service takes 5 to 9 s on an idle machine, the first time.
START_SECONDS = 120.0
STOP_SECONDS = 15.0
CONNECTIONS = 16
CLIENT_TOO_BUSY = 0.97
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Unfit(RuntimeError):
    """A run whose numbers must not be believed: the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one peer. Latencies in seconds, processor time in seconds per request."""

    requests_per_second: float
    p50: float
    p99: float
    cpu_per_request: float
    client_busy: float  # share of its core that wrk used; near 1 it was the bottleneck


@dataclass(frozen=True, slots=True)
class Plan:
    """How a round is run: which cores, how long, how long to warm up."""

    server_core: int
    client_core: int
    seconds: int
    warm_up: int = 1
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class WrkReport:
    """What one run of wrk printed."""

    requests: int
    requests_per_second: float
    p50: float
    p99: float


def parse_wrk(text: str) -> WrkReport:
    """Read wrk's report. Raises `Unfit` if it saw errors or wrong statuses."""
    for complaint in ("Socket errors", "Non-2xx"):
        if complaint in text:
            line = next(line for line in text.splitlines() if complaint in line)
            raise Unfit(f"wrk reports {line.strip()}")

    def find(pattern: str) -> tuple[str, ...]:
        match = re.search(pattern, text)
        if match is None:
            raise Unfit(f"wrk's report has no {pattern!r}:\n{text}")
        return match.groups()

    def latency(percent: int) -> float:
        value, unit = find(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b")
        return float(value) * UNITS[unit]

    return WrkReport(
        requests=int(find(r"(\d+) requests in")[0]),
        requests_per_second=float(find(r"Requests/sec:\s+([\d.]+)")[0]),
        p50=latency(50),
        p99=latency(99),
    )


def tree_seconds(root: int) -> float:
    """Processor seconds used so far by a process and its living and reaped descendants."""
    fields: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                # The command may hold spaces and brackets; what follows its last ")" does not.
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
                parent, times = int(rest[1]), sum(map(int, rest[11:15]))
                fields[int(entry.name)] = (parent, times)
    family, ticks = {root}, 0
    for pid in sorted(fields):  # a child's pid is larger but for wrap-around, hence the second pass
        family |= {pid} if fields[pid][0] in family else set()
    for pid in sorted(fields):
        family |= {pid} if fields[pid][0] in family else set()
    ticks = sum(fields[pid][1] for pid in family if pid in fields)
    return ticks / TICKS_PER_SECOND


def _answer(port: int) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None


def _wait_until_ready(
    process: subprocess.Popen[bytes], port: int, log: Path, wanted: bytes
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while (body := _answer(port)) is None:
        if process.poll() is not None:
            raise Unfit(f"ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        if time.monotonic() > deadline:
            raise Unfit(f"no answer within {START_SECONDS:.0f} s:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
    if body != wanted:
        raise Unfit(f"wrong body: {body[:80]!r}")


@contextlib.contextmanager
def serving(peer: Peer, core: int) -> Iterator[tuple[int, int]]:
    """Run a peer pinned to `core`; gives its pid and port. Its output goes to a file, unread."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{peer.name}-") as name:
        folder, port = Path(name), free_port()
        log = folder / "output.log"
        command = ["taskset", "-c", str(core), *peer.command(folder, port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        try:
            _wait_until_ready(process, port, log, peer.body)
            yield process.pid, port
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else's
                process.wait()


def _wrk(plan: Plan, port: int, seconds: int, *extra: str) -> str:
    command: Sequence[str] = (
        *("taskset", "-c", str(plan.client_core)),
        *("wrk", "-t1", f"-c{plan.connections}", f"-d{seconds}s"),
        *extra,
        f"http://127.0.0.1:{port}/",
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unfit(f"{error.filename} is missing: apt-get install wrk util-linux") from None
    if done.returncode:
        raise Unfit(f"wrk ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def measure(peer: Peer, plan: Plan) -> Sample:
    """One round: a fresh process, a warm-up, a measured run. Raises `Unfit`."""
    with serving(peer, plan.server_core) as (pid, port):
        _wrk(plan, port, plan.warm_up)
        spent, client = tree_seconds(pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        report = parse_wrk(_wrk(plan, port, plan.seconds, "--latency"))
        spent = tree_seconds(pid) - spent
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if _answer(port) != peer.body:
            raise Unfit("no right answer after the run")
    used = after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime
    return Sample(
        requests_per_second=report.requests_per_second,
        p50=report.p50,
        p99=report.p99,
        cpu_per_request=spent / report.requests,
        client_busy=used / plan.seconds,
    )

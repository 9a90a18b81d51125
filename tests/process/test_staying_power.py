"""A worker over a long or a hard day: many parked at once, many in a row, much in one.

`EDGE_SOAK=1` asks for the full counts; without it they are a tenth or less.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.support.load import pump, request
from tests.support.procfs import MIB, forget_peak, resident, resident_anonymous, resident_peak
from tests.support.runtime import program
from tests.support.server import DEADLINE, ROOT, Server, config_of, server, service
from tests.support.streams import stream

pytestmark = [pytest.mark.process, pytest.mark.soak]

SOAK = bool(os.environ.get("EDGE_SOAK"))
GUESTS = ROOT / "tests" / "guests" / "wat"
HELLO = GUESTS / "hello.wat"
ECHO = GUESTS / "echo.wat"

PARKED = 1000
NAP_SECONDS = 4
# One subscription at 16: kind clock (0) at 24, clock id monotonic (1) at 32, relative time at 40.
NAP = program(
    f"""(i32.store (i32.const 32) (i32.const 1))
    (i64.store (i32.const 40) (i64.const {NAP_SECONDS}000000000))
    (drop (call $wasi.poll_oneoff
      (i32.const 16) (i32.const 128) (i32.const 1) (i32.const 256)))
    (call $must (call $http_resp.new (i32.const 0)))
    (call $must (call $http_body.new (i32.const 4)))
    (call $must (call $http_body.write (i32.load (i32.const 4))
      (i32.const 512) (i32.const 5) (i32.const 0) (i32.const 8)))
    (call $must (call $http_resp.send_downstream
      (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 0)))""",
    "wasi.poll_oneoff",
    "http_resp.new",
    "http_body.new",
    "http_body.write",
    "http_resp.send_downstream",
    extra='(data (i32.const 512) "awake")',
)


def _roomy(services: str, more: str = "") -> str:
    return config_of(services, more=more).replace("slots: 20", f"slots: {PARKED}")


def test_a_thousand_parked_sandboxes_are_all_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nap.wat").write_text(NAP)
    services = service("nap", tmp_path / "nap.wat", more="limits: {slots: 100%}")
    with server(tmp_path, _roomy(services)) as running, contextlib.ExitStack() as clients:
        (pid,) = running.worker_pids()
        before = resident_anonymous(pid)
        asked = []
        for _ in range(PARKED):
            client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
            asked.append(clients.enter_context(client))
        idle = resident_anonymous(pid)
        for client in asked:
            client.sendall(request("edge.test", close=True))
        most = parked = 0
        while parked < PARKED:
            parked = int(running.metric("edge_sandboxes_parked"))
            most = max(most, resident_anonymous(pid))
            assert running.process.poll() is None
            assert running.metric("edge_request_outcome_total", service="nap") == 0, (
                f"some woke before all slept: {parked} at once"
            )
        for client in asked:
            with client.makefile("rb") as answer:
                text = answer.read()
            assert text.startswith(b"HTTP/1.1 200 ")
            assert text.endswith(b"awake")
        assert running.metric("edge_request_outcome_total", service="nap", outcome="ok") == PARKED
    with capsys.disabled():
        print(
            f"\n{PARKED} parked: {(most - idle) / PARKED / 1024:.1f} KiB each, and"
            f" {(idle - before) / PARKED / 1024:.1f} KiB for its connection"
        )
    assert most - idle <= PARKED * 256 * 1024


def test_memory_does_not_grow_with_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What is bounded fills first: the log's ring (4 MiB), the heads that are remembered, the pools.
    early, total = (100_000, 1_000_000) if SOAK else (40_000, 100_000)
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        (pid,) = running.worker_pids()

        def ask(count: int) -> int:
            assert pump(running.port, "edge.test", count) == count
            return resident(pid)

        first = running.discard_log_while(lambda: ask(early))
        last = running.discard_log_while(lambda: ask(total - early))
        assert running.worker_pids() == [pid]
    with capsys.disabled():
        print(
            f"\nresident after {early:,} requests {first / MIB:.1f} MiB,"
            f" after {total:,} {last / MIB:.1f} MiB"
        )
    assert last - first <= 5 * MIB


def test_a_huge_body_flows_through_a_sandbox_in_constant_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = (10 if SOAK else 1) * 1_000_000_000
    limits = "limits: {cpu: 1h, wall: 1h, request_body: 11GiB, response: 11GiB}"
    more = "ceilings: {cpu: 1h}\n"
    with server(tmp_path, config_of(service("echo", ECHO, more=limits), more=more)) as running:
        (pid,) = running.worker_pids()
        idle = resident(pid)
        forget_peak(pid)
        done = stream(running.port, size, host="edge.test")
        grown = resident_peak(pid) - idle
        assert (done.status, done.received, done.same) == (200, size, True)
        cpu = running.wait_for_access("/")["cpu_us"] / 1e6
    with capsys.disabled():
        print(
            f"\n{size / 1e9:.0f} GB through a sandbox: {grown / MIB:.1f} MiB above idle,"
            f" {cpu:.1f} s of its CPU"
        )
    assert grown <= 32 * MIB


def test_a_log_reader_that_stops_costs_lines_and_no_request(tmp_path: Path) -> None:
    count = 30_000
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        # Nobody reads stdout from here on: the pipe takes 64 KiB and the ring 8 MiB.
        assert pump(running.port, "edge.test", count) == count
        assert running.metric("edge_request_outcome_total", service="hello", outcome="ok") == count
        dropped = int(running.metric("edge_log_lines_dropped_total"))
        assert dropped > 0
        assert running.get()[0] == 200
        # The reader comes back: what was kept comes out whole, and new lines follow.
        kept = 0
        while kept < count + 1 - dropped:
            running.wait_for_access("/")
            kept += 1
        assert running.get("/back")[0] == 200
        running.wait_for_access("/back")
        assert running.metric("edge_log_lines_dropped_total") == dropped


def test_an_orderly_end_does_not_wait_for_a_log_reader(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        pump(running.port, "edge.test", 3000)
        running.process.terminate()
        assert running.process.wait(DEADLINE) == 0


class Visitors:
    """Clients that come, ask once, leave and come back, from several threads."""

    def __init__(self, running: Server, threads: int) -> None:
        self._port = running.port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.good = 0
        self.broken: list[str] = []  # connections that ended without an answer
        self._threads = [threading.Thread(target=self._visit) for _ in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _visit(self) -> None:
        while not self._stop.is_set():
            try:
                # A refusal to connect is not caught: the queue outlives the worker.
                client = socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE)
            except OSError as error:
                with self._lock:
                    self.broken.append(f"refused: {error}")
                continue
            answer = b""
            with client, contextlib.suppress(ConnectionError):
                client.sendall(request("edge.test", close=True))
                while piece := client.recv(65536):
                    answer += piece
            with self._lock:
                if answer.endswith(b"hello from wasm\n"):
                    self.good += 1
                else:
                    self.broken.append(f"no answer: {answer[:80]!r}")


def test_a_worker_killed_under_load_costs_what_it_had_taken_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients, kills = 16, 3
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        visitors = Visitors(running, clients)
        visitors.start()
        try:
            for _ in range(kills):
                (pid,) = running.worker_pids()
                served = visitors.good
                os.kill(pid, 9)
                running.wait_for("starting another")
                running.wait_for("worker ready")
                while visitors.good < served + 200:
                    running.wait_for_access("/")
        finally:
            visitors.stop()
        assert running.metric("edge_worker_restarts_total", reason="signal") == kills
        with capsys.disabled():
            print(
                f"\n{kills} kills under load: {visitors.good} answered,"
                f" {len(visitors.broken)} broken of {kills * clients} that could be in its hands"
            )
        # Each client has one request at a time: a kill can break that one and no other.
        assert len(visitors.broken) <= kills * clients
        assert not [text for text in visitors.broken if text.startswith("refused")]

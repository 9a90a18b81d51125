"""Workers that die, hang or are killed on purpose, and what that costs: only what they had read."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import pytest

from tests.support.procfs import processor_seconds
from tests.support.server import DEADLINE, ROOT, Server, config_of, server, service

pytestmark = pytest.mark.process

GUESTS = ROOT / "tests" / "guests" / "wat"
HELLO = GUESTS / "hello.wat"
ECHO = GUESTS / "echo.wat"
SPIN = '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'


def test_a_killed_worker_is_replaced_and_its_queue_is_served(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        assert running.get()[0] == 200
        running.wait_for_access("/")
        (before,) = running.worker_pids()
        os.kill(before, signal.SIGSTOP)  # it accepts nothing more: what comes now is queued
        waiting = [
            socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
            for _ in range(5)
        ]
        for client in waiting:
            client.sendall(b"GET / HTTP/1.1\r\nhost: edge.test\r\nconnection: close\r\n\r\n")
        os.kill(before, signal.SIGKILL)
        running.wait_for("worker ready")
        for client in waiting:
            with client, client.makefile("rb") as answer:
                assert answer.read().endswith(b"hello from wasm\n")
        for _ in waiting:
            running.wait_for_access("/")
        assert running.worker_pids() != [before]
        assert running.metric("edge_worker_restarts_total", reason="signal") == 1
        # Counted before, counted after: nothing was lost with the process.
        assert running.metric("edge_requests_total", service="hello") == 6


def test_a_silent_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        (before,) = running.worker_pids()
        os.kill(before, signal.SIGSTOP)
        assert "heartbeat" in running.wait_for("starting another")["message"]
        running.wait_for("worker ready")
        assert running.get()[0] == 200
        assert running.metric("edge_worker_restarts_total", reason="heartbeat") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_signals_meant_for_the_supervisor_do_not_end_a_worker(
    tmp_path: Path, number: signal.Signals
) -> None:
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        pids = running.worker_pids()
        os.kill(pids[0], number)
        assert running.get()[0] == 200
        assert running.worker_pids() == pids


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("hello", HELLO), workers=2), workers=2) as running:
        handles = [os.pidfd_open(pid) for pid in running.worker_pids()]
        running.process.kill()
        for handle in handles:
            assert select.select([handle], [], [], DEADLINE)[0], "the worker outlived it"
            os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_version_that_keeps_killing_workers_is_quarantined_until_a_reload(
    tmp_path: Path, number: signal.Signals
) -> None:
    """No guest we know can end its worker; SIGABRT is how the engine itself would (a panic)."""
    (tmp_path / "spin.wat").write_text(SPIN)
    config = config_of(
        service("hello", HELLO)
        + service("spin", tmp_path / "spin.wat", host="spin.test", more="limits: {cpu: 60s}"),
        more="ceilings: {cpu: 60s}\n",
    )
    with server(tmp_path, config) as running:
        _kill_while_spinning(running, number)
        status, _, headers = running.get(host="spin.test")
        assert (status, headers["x-edge-outcome"]) == (503, "quarantined")
        assert running.get()[0] == 200
        states = {s["name"]: s["state"] for s in running.status()["services"]}
        assert states == {"hello": "loaded", "spin": "quarantined"}
        assert running.metric("edge_quarantines_total", service="spin") == 1
        running.reload()
        running.wait_for("reloaded")
        states = {s["name"]: s["state"] for s in running.status()["services"]}
        assert states == {"hello": "loaded", "spin": "loaded"}


def _kill_while_spinning(running: Server, number: signal.Signals) -> None:
    """End workers in the middle of the guest until the breaker has seen enough."""
    for _ in range(12):
        client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: spin.test\r\n\r\n")
            assert running.get()[:2] == (200, b"hello from wasm\n")
            # Its answer may be here before its guest has ended; what the worker uses after that,
            # it uses for the guest that spins.
            (pid,) = running.worker_pids()
            enough = processor_seconds(pid) + 0.05
            while processor_seconds(pid) < enough:
                pass
            os.kill(pid, number)
            assert number.name in running.wait_for("starting another")["message"]
            running.wait_for("worker ready")
        if running.metric("edge_quarantines_total", service="spin"):
            if not any(line.get("message") == "service quarantined" for line in running.lines):
                running.wait_for("service quarantined")
            return
    raise AssertionError("never quarantined")


def test_artifacts_that_were_deleted_are_compiled_again_for_the_next_worker(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("hello", HELLO))) as running:
        for path in (tmp_path / "var" / "artifacts").iterdir():
            path.unlink()
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        running.wait_for("cannot load")
        running.wait_for("worker ready")
        assert running.get()[0] == 200

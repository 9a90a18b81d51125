"""A user who may have no more threads: the engine's ticks vanish, and loops run until help comes.

The ticker fails open (glibc starts a thread for each tick), so what stops an endless loop then is
the supervisor, which replaces a worker that has been silent for a second.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import request
from tests.support.server import DEADLINE, ROOT, Server, config_of, server, service

pytestmark = pytest.mark.process

HELLO = ROOT / "tests" / "guests" / "wat" / "hello.wat"
SPIN = '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'
NOBODY = 65534


def _as_somebody_with_limits() -> tuple[str, ...]:
    """Root is exempt from RLIMIT_NPROC (setrlimit(2)): as root, run the server as nobody.

    It keeps the right to read what root can, since that is where the tests and their Python lie.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "run these tests as an ordinary user, or install util-linux"
    user = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return (setpriv, *user, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "spin.wat").write_text(SPIN)
    services = service("hello", HELLO) + service("spin", tmp_path / "spin.wat", host="spin.test")
    with server(tmp_path, config_of(services), under=_as_somebody_with_limits()) as started:
        yield started


# As the server's own user: whoever is root in a container may not change another user's limits.
_SET = """
import resource, sys
pid, most = int(sys.argv[1]), int(sys.argv[2])
_, hard = resource.prlimit(pid, resource.RLIMIT_NPROC)
resource.prlimit(pid, resource.RLIMIT_NPROC, (most or hard, hard))
"""


def allow_threads(pid: int, most: int) -> None:
    """So many for all processes of its user together, as this process counts; 0: no such bound."""
    command = [*_as_somebody_with_limits(), sys.executable, "-c", _SET, str(pid), str(most)]
    subprocess.run(command, check=True, timeout=DEADLINE)


def test_a_worker_whose_ticks_vanish_in_a_loop_is_replaced(running: Server) -> None:
    assert running.get(host="spin.test")[0] == 503, "with ticks, its CPU limit ends it"
    (before,) = running.worker_pids()
    allow_threads(before, 1)  # and it has several
    client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
    with client:
        client.sendall(request("spin.test"))
        assert "heartbeat" in running.wait_for("starting another")["message"]
        assert client.recv(1) == b"", "the request went with its worker"
    running.wait_for("worker ready")
    assert running.worker_pids() != [before]
    assert running.get()[:2] == (200, b"hello from wasm\n")
    assert running.get(host="spin.test")[0] == 503
    assert running.metric("edge_worker_restarts_total", reason="heartbeat") == 1


def test_a_supervisor_that_can_start_no_process_tries_until_it_can(running: Server) -> None:
    (before,) = running.worker_pids()
    allow_threads(running.process.pid, 1)
    os.kill(before, 9)
    running.wait_for("could not be started")
    assert running.admin("/livez")[0] == 200
    assert running.admin("/readyz")[0] == 503
    allow_threads(running.process.pid, 0)
    running.wait_for("worker ready")
    assert running.get()[:2] == (200, b"hello from wasm\n")
    assert running.stop() == 0

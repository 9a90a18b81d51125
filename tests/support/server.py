"""Starts the real server for process tests: a temporary configuration, its log read line by line.

Tests wait for log lines and for answers, never for time to pass.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edge.stores.rates_file import choose_directory

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
DEADLINE = 30.0  # seconds for anything; a loaded machine is slow, a bug is for ever


class Server:
    """A running edge-server.  The kernel chooses its ports; its first log line tells them."""

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """`under`: a command that runs the server's own, such as `setpriv` with its options."""
        self.folder = folder
        self.path = folder / "edge.yaml"
        self.path.write_text(config)
        named = re.search(r"^state_dir: (.+)$", config, re.MULTILINE)
        self.state_dir = folder / (named[1] if named else "var")
        self.lines: list[dict[str, Any]] = []
        self._rest = b""
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "edge", "--config", str(self.path)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.port = 0
        self.admin_port = 0

    def wait_until_ready(self, workers: int = 1, *, seconds: float = DEADLINE) -> None:
        """Until this many workers have said that they serve; `seconds` for each to say so."""
        first = self.wait_for("starting")
        self.port = int(first["fields"]["listen"].rpartition(":")[2])
        self.admin_port = int(first["fields"]["admin"].rpartition(":")[2])
        for _ in range(workers):
            self.wait_for("worker ready", seconds=seconds)

    def wait_for(self, message: str, *, seconds: float = DEADLINE) -> dict[str, Any]:
        """The next line of the server's own whose message contains this."""
        for line in self._read_lines(seconds):
            if message in str(line.get("message", "")):
                return line
        raise AssertionError(f"no line {message!r}; the log ends with {self.lines[-5:]}")

    def wait_for_access(self, path: str) -> dict[str, Any]:
        """The next access record of this path."""
        for line in self._read_lines():
            if "status" in line and line.get("path") == path:
                return line
        raise AssertionError(f"no access record of {path}; the log ends with {self.lines[-5:]}")

    def records_for(self, seconds: float) -> Iterator[dict[str, Any]]:
        """The access records of the next `seconds`, as they come: reading them is the waiting."""
        return (line for line in self._read_lines(seconds) if "status" in line)

    def discard_log_while(self, work: Callable[[], T]) -> T:
        """Do `work` while somebody reads the log and keeps nothing of it."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                if select.select([fd], [], [], 0.1)[0]:
                    data = self._rest + os.read(fd, 1 << 20)
                    self._rest = data[data.rfind(b"\n") + 1 :]

        reader = threading.Thread(target=read, name="log-reader")
        reader.start()
        try:
            return work()
        finally:
            done.set()
            reader.join(DEADLINE)

    def _read_lines(self, seconds: float = DEADLINE) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        fd = self.process.stdout.fileno()
        while True:
            while b"\n" in self._rest:
                raw, self._rest = self._rest.split(b"\n", 1)
                line: dict[str, Any] = json.loads(raw)
                self.lines.append(line)
                yield line
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return
            data = os.read(fd, 65536)
            if not data:
                return
            self._rest += data

    def get(
        self, path: str = "/", *, host: str = "edge.test", body: bytes | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One request on a connection of its own: status, body, headers in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("POST" if body else "GET", path, body, {"host": host})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read(), headers
        finally:
            connection.close()

    def admin(self, path: str) -> tuple[int, bytes]:
        """One request to the control API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=DEADLINE)
        try:
            token = self.state_dir / "admin.token"
            shown = f"Bearer {token.read_text().strip()}" if token.exists() else "none"
            connection.request("GET", path, headers={"authorization": shown})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """/v1/status."""
        found: dict[str, Any] = json.loads(self.admin("/v1/status")[1])
        return found

    def worker_pids(self) -> list[int]:
        """Of the workers alive, by slot."""
        return [worker["pid"] for worker in self.status()["workers"]]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        total = 0.0
        for line in self.admin("/metrics")[1].decode().splitlines():
            found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if found is None or found[1] != name:
                continue
            have = dict(re.findall(r'([a-z_]+)="([^"]*)"', found[2] or ""))
            if labels.items() <= have.items():
                total += float(found[3])
        return total

    def reload(self, config: str | None = None) -> None:
        """Write a new configuration and send SIGHUP."""
        if config is not None:
            self.path.write_text(config)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self) -> int:
        """Wait for the end; the rest of the log goes to `lines`."""
        for _ in self._read_lines():
            pass
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """Whatever happened, nothing is left running, and no memory taken."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # What a server that is killed keeps for its next start.
        kept = choose_directory(self.state_dir, 0)
        for left in kept.parent.glob(f"edge-rates-*-{kept.name.rpartition('-')[2]}"):  # any user's
            shutil.rmtree(left, ignore_errors=True)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def server(
    folder: Path,
    config: str,
    *,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    seconds: float = DEADLINE,
) -> Iterator[Server]:
    """A server that is ready within `seconds`, and is gone afterwards."""
    running = Server(folder, config, env=env, under=under)
    try:
        running.wait_until_ready(workers, seconds=seconds)
        yield running
    finally:
        running.close()


def config_of(services: str, *, workers: int = 1, more: str = "") -> str:
    """A configuration on loopback, ports of the kernel's choice; `services` is indented YAML."""
    return (
        f'server: {{listen: "127.0.0.1:0", workers: {workers}, drain: 5s}}\n'
        'admin: {listen: "127.0.0.1:0"}\n'
        f"pool: {{slots: 20}}\n{more}"
        f"services:\n{services}"
    )


def service(name: str, module: Path, *, host: str = "edge.test", more: str = "") -> str:
    """One service of a configuration."""
    return f'  {name}:\n    module: {module}\n    routes: [{{host: "{host}", path: /}}]\n' + (
        f"    {more}\n" if more else ""
    )

"""Starts the real `edge-dev` for tests: what it prints is read line by line, and waited for."""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # for anything; a loaded machine is slow, a bug is for ever
COMMAND = (sys.executable, "-m", "edge.dev.cli")


class EdgeDev:
    """A running process; a context manager that ends it."""

    def __init__(
        self, folder: Path, arguments: Sequence[str | Path], *, command: Sequence[str | Path] = ()
    ) -> None:
        """`command`: what is run in place of `edge-dev`, such as a CLI that calls it."""
        self.lines: list[str] = []
        self._rest = b""
        self.port = 0
        self.process = subprocess.Popen(
            [*map(str, command or COMMAND), *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> EdgeDev:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_until_listening(self) -> None:
        """Until it says where it listens."""
        line = self.wait_for("Listening on http://")
        match = re.search(r"http://[^:]+:(\d+)", line)
        assert match, line
        self.port = int(match[1])

    def wait_for(self, text: str) -> str:
        """The next line with this in it."""
        deadline = time.monotonic() + SECONDS
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while True:
            while b"\n" in self._rest:
                raw, self._rest = self._rest.split(b"\n", 1)
                line = raw.decode()
                self.lines.append(line)
                if text in line:
                    return line
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([fd], [], [], left)[0]
            data = os.read(fd, 65536) if ready else b""
            if not data:
                raise AssertionError(f"no line {text!r} among {self.lines[-20:]}")
            self._rest += data

    def get(self, path: str, *, host: str = "edge.test") -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", path, headers={"host": host})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its return code, negative for the signal that ended it."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def run_edge_dev(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

"""Serves guests built with SDKs by a real server, and asks them: for tests/process/test_sdk_*.py.

What the supervisor compiled is kept between runs, beside the guests, because a JavaScript service
takes five seconds and more. Nothing else that a run left is there for the next one.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.guests import build
from tests.support.server import DEADLINE, Server, server
from tests.support.toolchain import cache_directory

# JavaScript services of 11.5 MB, 5 to 9 s each where nothing else runs, the first time only.
COMPILE_SECONDS = 240.0
MOST_AT_ONCE = 8  # each has a state directory of its own, and compiles what that one lacks


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, whole. Names of fields in lower case."""

    status: int
    body: bytes
    fields: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for found, value in self.fields if found == name), None)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body, parsed; whatever is no JSON shows up whole in the error."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AssertionError(f"{self.status}: {self.body!r} is not JSON") from error


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the configuration: which guest, and its settings as lines of YAML."""

    name: str  # also its host: NAME.test
    guest: str
    settings: tuple[str, ...] = ()

    def yaml(self) -> str:
        """Its part of `services`, indented."""
        lines = [
            f"module: {build(self.guest)}",
            f'routes: [{{host: "{self.name}.test"}}]',
            *self.settings,
        ]
        return f"  {self.name}:\n" + "".join(f"    {line}\n" for line in lines)


class Town:
    """A server with its services; `ask` goes to one of them by name."""

    def __init__(self, running: Server) -> None:
        self.server = running

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the server, to be closed by the caller."""
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=DEADLINE)

    def ask(
        self,
        service: str,
        path: str = "/",
        *,
        method: str = "GET",
        body: bytes | Iterable[bytes] | None = None,
        **fields: str,
    ) -> Answer:
        """One request on a connection of its own. `x_key="a"` sends the field `x-key`.

        A body in pieces is sent without a length, each piece in a chunk of its own.
        """
        connection = self.connect()
        try:
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            headers.setdefault("host", f"{service}.test")
            connection.request(method, path, body, headers)
            return received(connection.getresponse())
        finally:
            connection.close()


def received(response: http.client.HTTPResponse) -> Answer:
    """The rest of a response."""
    fields = tuple((name.lower(), value) for name, value in response.getheaders())
    return Answer(response.status, response.read(), fields)


@contextmanager
def town(
    folder: Path,
    services: Iterable[Service],
    *,
    workers: int = 1,
    more: str = "",
    port: int = 0,
    env: Mapping[str, str] | None = None,
) -> Iterator[Town]:
    """A running server with these services; `more` is YAML for the top level."""
    with state_directory() as state:
        config = (
            f'server: {{listen: "127.0.0.1:{port}", workers: {workers}, drain: 5s}}\n'
            'admin: {listen: "127.0.0.1:0"}\n'
            f"pool: {{slots: 20}}\nstate_dir: {state}\n{more}services:\n"
        ) + "".join(service.yaml() for service in services)
        with server(folder, config, workers=workers, env=env, seconds=COMPILE_SECONDS) as running:
            yield Town(running)


@contextmanager
def state_directory() -> Iterator[Path]:
    """A state directory with nothing but compiled artifacts: the first that nobody else uses."""
    for number in range(MOST_AT_ONCE):
        state = cache_directory() / f"sdk-state-{number}"
        with (cache_directory() / f".lock-{state.name}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file closes
            except BlockingIOError:
                continue
            state.mkdir(exist_ok=True, mode=0o700)
            for left in state.iterdir():
                if left.name.startswith("artifacts"):
                    continue
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            yield state
            return
    raise AssertionError(f"{MOST_AT_ONCE} servers of this kind run already")

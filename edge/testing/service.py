"""A service under test: how it is started, asked, and what is known of its requests afterwards."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge.dev.manifest import read_manifest
from edge.local.compiled import default_state_directory
from edge.local.faults import Fault
from edge.local.seen import Seen
from edge.local.server import LocalOptions
from edge.local.world import LocalWorld
from edge.settings import Listen
from edge.stores.kv import KvValue
from edge.stores.kv_settled import settled
from edge.testing.backend import Handler, PythonBackend
from edge.testing.parts import world_of
from edge.testing.records import MARK, WAIT_SECONDS, LogLine, Records
from edge.testing.thread import ServerThread


@dataclass(slots=True)
class Response:
    """What a service answered."""

    status: int
    headers: list[tuple[str, str]]  # lower-case names
    body: bytes
    hints: list[tuple[int, list[tuple[str, str]]]]  # interim responses before it
    _wait: Callable[[], Seen] = field(repr=False)
    _lines: Callable[[str], Sequence[LogLine]] = field(repr=False)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first field of this name."""
        return next((value for known, value in self.headers if known == name.lower()), None)

    def wait(self) -> Seen:
        """What is known of the request, once its guest has ended too: see `wait_for_background`."""
        return self._wait()

    def log(self, stream: str | None = None) -> list[str]:
        """The lines that its guest wrote by its end, of one stream or of all."""
        lines = self._lines(self._wait().request_id)
        return [line.text for line in lines if stream in (None, line.stream)]


class Edge:
    """Starts services and backends, and ends what it started."""

    def __init__(self, state_dir: Path | None = None) -> None:
        """`state_dir` keeps compiled programs; without one it is that of `edge-dev`."""
        self._state_dir = state_dir or default_state_directory()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything.  Raises what went wrong in a backend's handler or in the server."""
        self._open.close()

    def backend(self, handler: Handler) -> PythonBackend:
        """A backend that is a function from `Request` to `Reply`, bytes or text."""
        backend = PythonBackend(handler)
        backend.start()
        self._open.callback(backend.close)
        return backend

    def service(
        self,
        module: Path | str,
        *,
        backends: Mapping[str, Handler | PythonBackend | str] | None = None,
        trace: bool = True,
        **parts: Any,
    ) -> ServiceUnderTest:
        """Start a program on a port of its own.  Raises ConfigError when it is refused.

        `backends`: a function, a started backend or a URL by name.  `trace`: keep every hostcall.
        Other parts are those of `edge.testing.parts.world_of`: stores, limits, faults and more.
        """
        made: dict[str, PythonBackend] = {}
        urls: dict[str, str] = {}
        for name, backend in (backends or {}).items():
            if isinstance(backend, str):
                urls[name] = backend
                continue
            made[name] = backend if isinstance(backend, PythonBackend) else self.backend(backend)
            urls[name] = made[name].url
        world = world_of(Path(module), backends=urls, **parts)
        return self._start(world, made, trace=trace)

    def fastly_toml(self, config: Path | str, module: Path | str) -> ServiceUnderTest:
        """Start what a `fastly.toml` says, as `edge-dev` would."""
        world = read_manifest(Path(config), Path(module), os.environ).world
        return self._start(world, {}, trace=True)

    def _start(
        self, world: LocalWorld, backends: Mapping[str, PythonBackend], *, trace: bool
    ) -> ServiceUnderTest:
        service = ServiceUnderTest(world, backends, self._state_dir, trace=trace)
        service.start()
        self._open.callback(service.close)
        return service


class ServiceUnderTest:
    """A running service.  Its methods block and may be called from any thread of the test."""

    def __init__(
        self,
        world: LocalWorld,
        backends: Mapping[str, PythonBackend],
        state_dir: Path,
        *,
        trace: bool,
    ) -> None:
        self.backends = backends  # those that are Python functions
        self._world = world
        self._marks = itertools.count(1)
        self._records = Records()
        options = LocalOptions(state_dir, trace=trace, on_request=self._records.begins)
        self._thread = ServerThread(options, self._records)

    def start(self) -> None:
        """Serve on a port that the kernel chooses."""
        self._thread.start(self._world, Listen("127.0.0.1", 0))

    def close(self) -> None:
        """End it.  Fails when the server met errors of its own."""
        self._thread.close()
        assert not self._thread.faults, f"errors in the server: {self._thread.faults}"

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._thread.server.port

    @property
    def url(self) -> str:
        """For HTTP clients of one's own; what they ask is found in `finished`."""
        return f"http://127.0.0.1:{self.port}"

    # Requests ---------------------------------------------------------------------------------

    def get(self, target: str = "/", **options: Any) -> Response:
        """A GET; see `request`."""
        return self.request("GET", target, **options)

    def post(self, target: str, body: bytes | str | Iterator[bytes], **options: Any) -> Response:
        """A POST; see `request`."""
        return self.request("POST", target, body=body, **options)

    def request(
        self,
        method: str,
        target: str = "/",
        *,
        body: bytes | str | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        host: str = "edge.test",
        seconds: float = WAIT_SECONDS,
    ) -> Response:
        """One request on a connection of its own.

        A body that is an iterator is sent in chunks.  Raises OSError or http.client.HTTPException
        when there is no whole response.
        """
        mark = str(next(self._marks))
        fields = {"host": host, "connection": "close", **(headers or {}), MARK.decode(): mark}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        connection.response_class = _WithHints
        try:
            connection.request(method, target, body, fields)
            answer = connection.getresponse()
            assert isinstance(answer, _WithHints)
            return Response(
                answer.status,
                [(name.lower(), value) for name, value in answer.getheaders()],
                answer.read(),
                answer.hints,
                lambda: self._records.wait_for(mark),
                self._records.lines,
            )
        finally:
            connection.close()

    def wait_for_background(self, response: Response | None = None) -> None:
        """Wait until the guest of a response has ended, work after its response included.

        Without a response: until no request is under way.
        """
        if response is not None:
            response.wait()
            return
        server = self._thread.server
        self._records.wait_until(lambda: not server.busy, "requests are still under way")

    # What is known ----------------------------------------------------------------------------

    @property
    def finished(self) -> Sequence[Seen]:
        """Every request that is over, in the order in which they ended."""
        return self._records.all_seen()

    @property
    def log(self) -> Sequence[LogLine]:
        """Every line that guests wrote so far."""
        return self._records.lines()

    def kv(self, store: str, key: str) -> bytes | None:
        """What a KV store has under a key now."""
        server = self._thread.server
        shared = next(s.kv_stores[store] for s in self._world.services if store in s.kv_stores)

        async def lookup() -> KvValue | None:
            return await settled(server.features.kv_store(shared).lookup(key))

        found = self._thread.call(lookup)
        return None if found is None else b"".join(found.pieces)

    def inject(self, **faults: Fault) -> None:
        """Give backends faults from now on, by name; the others lose theirs."""
        services = self._world.services
        self.reload(replace(self._world, faults={service.name: faults for service in services}))

    def reload(self, world: LocalWorld) -> None:
        """Serve another world; requests under way end in the one they began in."""
        self._thread.call(lambda: self._thread.server.reload(world))
        self._world = world


class _WithHints(http.client.HTTPResponse):
    """A response that keeps the interim ones before it, which http.client takes for the answer."""

    hints: list[tuple[int, list[tuple[str, str]]]]

    def _read_status(self) -> tuple[str, int, str]:
        self.hints = getattr(self, "hints", [])
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status <= 199:
                return version, status, reason
            fields = http.client.parse_headers(self.fp)
            self.hints.append((status, [(k.lower(), v) for k, v in fields.items()]))

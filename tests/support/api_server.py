"""The control API on a loopback port, over a real catalogue and a control plane without workers.

It runs in a thread with a loop of its own, so that tests use it as any client does: blocking.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from edge.admin.api import Route
from edge.admin.app import AdminApp
from edge.admin.around import Around
from edge.admin.calls import Calls
from edge.admin.status import Status
from edge.admin.v1 import routes as v1_routes
from edge.catalogue import tokens
from edge.catalogue.database import STARTUP, Catalogue, CatalogueLimits
from edge.catalogue.keyring import Keyring
from edge.catalogue.packages import PackageStore
from edge.catalogue.records import Scope
from edge.clock import Clock, SystemClock
from edge.model.parse import Config
from edge.server.front import Front, HttpLimits
from edge.server.listener import Listener
from edge.server.timers import Sweeper
from edge.settings import MIB, Admin, Listen, Settings
from edge.stores.kv import KvLimits
from edge.stores.kv_memory import MemoryKvEngine
from edge.supervisor.admin_side import LINGER_BYTES, MAX_TARGET, close_admin
from tests.support.fake_control import FakeControl

T = TypeVar("T")
SECONDS = 30.0
STATUS = Status("1.2.3", True, False, 1, (), ())
ALL_SCOPES = tuple(Scope)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        return str(self.json["code"])


@dataclass(slots=True)
class ApiServer:
    """Started by `api_server`."""

    folder: Path
    settings: Settings
    clock: Clock
    make_routes: Callable[[Around], list[Route]]
    limits: HttpLimits
    tls: ssl.SSLContext | None
    port: int = 0
    admin: str = ""  # text of a token that may do everything
    faults: list[Mapping[str, Any]] = field(default_factory=list)
    document: Config = field(init=False)  # tests put another one here, as a reload would
    control: FakeControl = field(init=False)
    around: Around = field(init=False)
    app: AdminApp = field(init=False)
    calls: Calls = field(init=False)
    front: Front = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    _stop: asyncio.Event = field(init=False)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | object | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON.

        `token` is that of `admin`; an empty one sends none.
        """
        fields = dict(headers or {})
        shown = self.admin if token is None else token
        if shown:
            fields["authorization"] = f"Bearer {shown}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            fields.setdefault("content-type", "application/json")
        connection = self.connect()
        try:
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def token(self, *scopes: Scope, service_id: str = "", expires_at: float | None = None) -> str:
        """The text of a new token."""
        return self.run(
            lambda: self.around.catalogue.write(
                STARTUP,
                lambda tx: tokens.create(
                    tx, "test", scopes, service_id=service_id, expires_at=expires_at
                ),
            )
        )[1]

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(SECONDS)

    async def serve(self, ready: threading.Event) -> None:
        """Until `stop`."""
        self.loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._stop = asyncio.Event()
        limits = CatalogueLimits.of(self.settings.deploy)
        keyring = Keyring(self.folder / "secrets.key")
        catalogue = Catalogue(
            self.folder / "catalogue.sqlite3", clock=self.clock, limits=limits, keyring=keyring
        )
        catalogue.start()
        packages = PackageStore(self.folder)
        packages.start()
        self.admin = catalogue.write_now(
            STARTUP, lambda tx: tokens.create(tx, "tests", ALL_SCOPES)
        )[1]
        self.document = Config(self.settings)
        self.control = FakeControl(catalogue)
        storage = self.settings.storage
        kv = MemoryKvEngine(KvLimits(storage.kv_value_bytes, storage.kv_store_bytes), self.clock)
        self.around = Around(
            catalogue=catalogue,
            packages=packages,
            keyring=keyring,
            control=self.control,
            kv=kv,
            settings=self.settings,
            document=lambda: self.document,
            clock=self.clock,
            report=lambda: STATUS,
            listens=lambda: (Listen("127.0.0.1", 8080),),
        )
        self.app = AdminApp(lambda: STATUS, lambda accept: (b"metrics\n", "text/plain"), loop)
        self.calls = Calls(self.around, self.make_routes(self.around), loop)
        self.app.serve(self.calls, self.settings.admin.hosts)
        sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = sock.getsockname()[1]
        self.front = Front(
            handler=self.app.handle,
            loop=loop,
            sweeper=Sweeper(loop, self.clock),
            limits=replace(self.limits, linger_bytes=LINGER_BYTES, max_target=MAX_TARGET),
            scheme=b"http" if self.tls is None else b"https",
        )
        listener = Listener(sock, self.front, loop, self.tls)
        listener.start()
        ready.set()
        try:
            await self._stop.wait()
        finally:
            await close_admin([listener], self.app)
            catalogue.close()
            sock.close()

    def stop(self) -> None:
        """End `serve`."""
        self.loop.call_soon_threadsafe(self._stop.set)


@contextmanager
def api_server(
    folder: Path,
    *,
    admin: Admin | None = None,
    clock: Clock | None = None,
    make_routes: Callable[[Around], list[Route]] = v1_routes,
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[ApiServer]:
    """The API with packages of at most 1 MiB, until the block ends; faults fail the test."""
    settings = Settings(admin=admin or Admin(package_bytes=MIB), state_dir=folder)
    server = ApiServer(
        folder, settings, clock or SystemClock(), make_routes, limits or HttpLimits(), tls
    )
    ready = threading.Event()
    failures: list[BaseException] = []

    def main() -> None:
        try:
            asyncio.run(server.serve(ready))
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="api-server", daemon=True)
    thread.start()
    assert ready.wait(SECONDS)
    if failures:
        raise failures[0]
    try:
        yield server
    finally:
        server.stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not failures, failures
    assert not server.faults, server.faults

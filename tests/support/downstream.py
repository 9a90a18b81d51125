"""A whole worker but for its process: dispatcher, runtime and connections whose sockets are lists.

`Town.ask` sends one request on a connection of its own; what became of it is read there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import wasmtime

from edge.dispatch import Dispatcher
from edge.model.limits import DEFAULT_LIMITS, Limits
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.model.snapshot import Snapshot
from edge.outcome import Ending
from edge.runtime.engine import PoolSettings, compiling_engine
from edge.runtime.rewrite import count_refusals
from edge.server.exchange import Exchange
from edge.settings import Settings
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.layout import (
    ENDINGS,
    IN_FLIGHT,
    LIMITS,
    OUTCOMES,
    Rejection,
    SoftLimit,
)
from edge.telemetry.log_sink import LogSink
from edge.telemetry.shared import SharedCells
from tests.support.runtime import SMALL_POOL, Arena
from tests.support.transport import Driven

# Blocks below this are the telemetry's own.
FIRST_SERIES = 2


class Town:
    """Services by name; each answers on the host of its name."""

    def __init__(self, pool: PoolSettings = SMALL_POOL, *, memory_budget: int = 1 << 40) -> None:
        self.arena = Arena(pool)
        self.shared = SharedCells.create(1, 16)
        self.cells = self.shared.worker(0)
        self.cells.begin(os.getpid())
        self._null = os.open(os.devnull, os.O_WRONLY)
        sink = LogSink(self._null)
        self.dispatcher = Dispatcher(
            runtime=self.arena.runtime,
            cells=self.cells,
            access=AccessLog("off", sink),
            guest_log=GuestLog("json", sink),
            loop=self.arena.loop,
            memory_budget=memory_budget,
        )
        self._compiler = compiling_engine()
        self._versions: list[Version] = []
        self._generation = 0
        self.clients: list[Driven] = []

    def deploy(self, directory: Path, name: str, wat: str, limits: Limits = DEFAULT_LIMITS) -> None:
        """Compile the way deployment does, and serve it beside what is there."""
        artifact = self.compile(directory / f"{name}.artifact", wat)
        service = Service(name, Path(f"{name}.wasm"), (Route(host=name),), limits)
        series = FIRST_SERIES + len(self._versions)
        version = Version(service, 1, sha256=name, artifact=artifact, series=series)
        self.serve(*self._versions, version)

    def compile(self, artifact: Path, wat: str) -> Path:
        """A module as a worker maps it."""
        code = wasmtime.Module(self._compiler, count_refusals(bytes(wasmtime.wat2wasm(wat))))
        artifact.write_bytes(code.serialize())
        return artifact

    def serve(self, *versions: Version, keep: bool = False) -> None:
        """Exactly these from now on; `keep` as the dispatcher has it."""
        self._versions = list(versions)
        self._generation += 1
        snapshot = Snapshot(self._generation, Settings(), versions)
        self.dispatcher.commit(
            self.dispatcher.prepare(snapshot, lambda version: str(version.artifact), keep=keep)
        )

    def ask(
        self,
        name: str,
        request: bytes = b"",
        *,
        reads: bool = True,
        remote: str = "192.0.2.7",
        handler: Callable[[Exchange], None] | None = None,
    ) -> Driven:
        """A client sends one request (a GET if none is given) to a service."""
        client = Driven(handler or self.dispatcher.handle, remote=remote)
        client.transport.reads = reads
        self.clients.append(client)
        request = request or b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % name.encode()
        self._inside(lambda: client.send(request))
        return client

    def say(self, client: Driven, data: bytes) -> None:
        """The client sends more on its connection."""
        self._inside(lambda: client.send(data))

    def settle(self) -> None:
        """Turn the loop once, and let every connection do what it had put off."""
        self.arena.turns(1)
        self._inside(self._settle_clients)

    def until(self, *clients: Driven, patience: float = 20.0) -> None:
        """Turn the loop until all of them have been answered or cut off."""

        def over() -> bool:
            self._settle_clients()
            return all(client.exchanges and client.exchanges[0].ended for client in clients)

        self.arena.until(over, patience=patience)

    def count(self, name: str, ending: Ending) -> int:
        """How many requests to a service ended this way, as the metrics tell it."""
        return self.count_series(self._series(name), ending)

    def count_series(self, series: int, ending: Ending) -> int:
        """The same for what is counted in one block."""
        return self.shared.block_sum(series)[OUTCOMES + ENDINGS.index(ending)]

    def refusals(self, name: str, limit: SoftLimit) -> int:
        """In how many requests to a service a guest was refused something for this limit."""
        return self.shared.block_sum(self._series(name))[LIMITS + limit]

    def in_flight(self, name: str) -> int:
        """Requests to a service that run or wait, as last published."""
        return self.cells.cells[self.cells.base + IN_FLIGHT + self._series(name)]

    def _series(self, name: str) -> int:
        return next(v.series for v in self._versions if v.service.name == name)

    def rejections(self, why: Rejection) -> int:
        """How often admission turned a request away for this reason."""
        return self.cells.get(why)

    def close(self) -> None:
        """End every guest, stop the ticker, unmap the counters."""
        with contextlib.suppress(AssertionError):
            self._inside(self.dispatcher.shut_down)
            self._inside(self._settle_clients)
        self.dispatcher.close()
        self.arena.close()
        self.dispatcher = None  # type: ignore[assignment]  # lets go of views into the counters
        os.close(self._null)

    def _settle_clients(self) -> None:
        for client in self.clients:
            client.loop.settle()

    def _inside(self, act: object) -> None:
        async def run() -> None:
            act()  # type: ignore[operator]

        self.arena.loop.run_until_complete(run())


@contextlib.contextmanager
def town(pool: PoolSettings = SMALL_POOL, *, memory_budget: int = 1 << 40) -> Iterator[Town]:
    """A town that is closed whatever happens."""
    made = Town(pool, memory_budget=memory_budget)
    try:
        yield made
    finally:
        made.close()


def outcome_of(client: Driven) -> str:
    """The `x-edge-outcome` field of what a client has received; "" when it has none."""
    head = client.received.partition(b"\r\n\r\n")[0]
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"x-edge-outcome":
            return value.decode()
    return ""


def status_of(client: Driven) -> int:
    """The status of what a client has received; 0 when it has received nothing."""
    line = client.received.partition(b"\r\n")[0].split(b" ")
    return int(line[1]) if len(line) > 1 else 0

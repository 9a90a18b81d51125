"""Micro-benchmark of requests to backends: `python -m tests.bench.micro_proxy`.  No sockets.

The whole way of a request in one thread, from the bytes of its head to those of its response, with
transports that keep nothing: what is left is the server's own time.  `--opcodes` counts executed
bytecodes of one request by function instead, which no busy machine disturbs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import uvloop
import wasmtime

from edge.abi.capabilities import Capabilities
from edge.clock import SystemClock
from edge.dispatch import Dispatcher
from edge.hostmodules import HOST_MODULES
from edge.http.addresses import TrustedProxies
from edge.http.request_view import peer_of
from edge.metering import backend_counter
from edge.model.backend import Backend
from edge.model.backend_reader import read_origin
from edge.model.route import Route
from edge.model.service import Service, Version
from edge.model.snapshot import Snapshot
from edge.runtime.driver import Runtime
from edge.runtime.engine import compiling_engine
from edge.runtime.rewrite import count_refusals
from edge.server.connection import Connection
from edge.server.front import Front
from edge.server.timers import Sweeper
from edge.settings import Settings
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.log_sink import LogSink
from edge.telemetry.service_block import ServiceBlock
from edge.telemetry.shared import SharedCells
from edge.upstream.client import Client
from edge.upstream.dialing import Dialed, ProtocolFactory
from tests.bench.micro import PATIENT, POOL, Figure, table
from tests.support.guests import build

CLIENTS = 16
REQUESTS = 2000  # in a round, by all clients together
ROUNDS = 15
COUNTED = 200  # requests whose bytecodes are counted
# What wrk sends, and what Debian's nginx answers with.
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:18101\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 20:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 16\r\nConnection: keep-alive\r\n\r\n"
    b"hello from wasm\n"
)
SERIES = 2  # counter blocks below this are the telemetry's own


class Wire(asyncio.Transport):
    """Drops what is written, and lets whoever is at the other end know."""

    def __init__(self, told: Callable[[], object]) -> None:
        super().__init__()
        self._told = told

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data
        self._told()

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Origin:
    """Dials nothing: each connection answers what is written to it in the loop's next turn."""

    async def dial(
        self, backend: Backend, protocol_factory: ProtocolFactory, deadline: float
    ) -> Dialed:
        del deadline
        loop = asyncio.get_running_loop()
        protocol: Any = protocol_factory(None)
        transport = Wire(lambda: loop.call_soon(protocol.data_received, RESPONSE))
        protocol.connection_made(transport)
        return Dialed(transport, protocol, b"\x7f\0\0\1", backend.url.port, None)


class Town:
    """A worker whose sockets are callbacks, with one service."""

    def __init__(self, guest: str, folder: Path) -> None:
        """Inside a running loop."""
        loop = asyncio.get_running_loop()
        self._cells = SharedCells.create(1, 16)
        cells = self._cells.worker(0)
        cells.begin(os.getpid())
        self.runtime = Runtime(POOL, HOST_MODULES, loop)
        self.client = Client(Origin())
        null = LogSink(os.open(os.devnull, os.O_WRONLY))
        self.dispatcher = Dispatcher(
            runtime=self.runtime,
            cells=cells,
            access=AccessLog("off", null),
            guest_log=GuestLog("json", null),
            loop=loop,
            memory_budget=1 << 40,
            equip=self._equip,
        )
        artifact = folder / "artifact"
        code = wasmtime.Module(compiling_engine(), count_refusals(build(guest).read_bytes()))
        artifact.write_bytes(code.serialize())
        backend = Backend("origin", read_origin("http://127.0.0.1:18102"))
        service = Service(
            "hello", Path("guest.wasm"), (Route(host="*"),), PATIENT, backends={"origin": backend}
        )
        version = Version(service, 1, sha256="0", artifact=artifact, series=SERIES)
        snapshot = Snapshot(1, Settings(), (version,))
        self.dispatcher.commit(self.dispatcher.prepare(snapshot, lambda _: str(artifact)))
        self._front = Front(
            handler=self.dispatcher.handle,
            loop=loop,
            sweeper=Sweeper(loop, SystemClock()),
            hurried=self.runtime.is_crowded,
        )
        self._loop = loop
        self._left = self._over = 0
        self._done: asyncio.Future[None] = loop.create_future()
        self._clients = [self._connect() for _ in range(CLIENTS)]

    def _equip(self, version: Version, block: ServiceBlock) -> Capabilities:
        done = backend_counter(block, version.backend_slots)
        upstream = self.client.for_service(version.service.name, on_done=done)
        return Capabilities(upstream=upstream, backends=version.service.backends)

    def _connect(self) -> Connection:
        peer = peer_of("127.0.0.1", "127.0.0.1", TrustedProxies([]), b"http")
        connection = Connection(self._front, peer)
        connection.connection_made(Wire(lambda: self._answered(connection)))
        return connection

    def _answered(self, connection: Connection) -> None:
        if self._left:
            self._left -= 1
            self._loop.call_soon(connection.data_received, REQUEST)
            return
        self._over += 1
        if self._over == CLIENTS:
            self._done.set_result(None)

    async def serve(self, count: int) -> None:
        """`count` requests and one more for each client, as fast as they are answered."""
        self._left, self._over, self._done = count - CLIENTS, 0, self._loop.create_future()
        for connection in self._clients:
            self._loop.call_soon(connection.data_received, REQUEST)
        await self._done

    async def aclose(self) -> None:
        for connection in self._clients:
            connection.connection_lost(None)
        for link in tuple(self.client.pool.links):
            link.connection_lost(None)  # type: ignore[attr-defined]
        await self.client.aclose()
        self.dispatcher.close()
        self.runtime.close()


async def timed(guest: str, name: str) -> Figure:
    """Thread time per request; ticks are other threads'."""
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        town = Town(guest, Path(folder))
        await town.serve(REQUESTS)
        for _ in range(ROUNDS):
            began = time.thread_time_ns()
            await town.serve(REQUESTS)
            samples.append((time.thread_time_ns() - began) / REQUESTS / 1000)
        await town.aclose()
    return Figure(name, round(statistics.median(samples), 1), round(min(samples), 1))


async def counted(guest: str) -> Counter[str]:
    """Executed bytecodes by function, per request."""
    counts: Counter[CodeType] = Counter()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        del arg
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            counts[frame.f_code] += 1
        return trace

    with tempfile.TemporaryDirectory() as folder:
        town = Town(guest, Path(folder))
        await town.serve(COUNTED)
        sys.settrace(trace)
        try:
            await town.serve(COUNTED)
        finally:
            sys.settrace(None)
        await town.aclose()
    result: Counter[str] = Counter()
    for code, count in counts.items():
        where = code.co_filename.rpartition("/edge/")[2]
        result[f"{where}:{code.co_firstlineno} {code.co_qualname}"] += count
    return Counter({name: count // COUNTED for name, count in result.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--opcodes", metavar="GUEST", help="count bytecodes instead (c/pass)")
    chosen = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # as `edge.worker` does
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if chosen.opcodes:
            counts = runner.run(counted(chosen.opcodes))
            for name, count in counts.most_common(80):
                if count:
                    print(f"{count:6} {name}")
            print(f"{counts.total():6} in all")
            return 0
        figures = [
            runner.run(timed("wat/hello", "a request without backend")),
            runner.run(timed("c/pass", "a request to a backend")),
            runner.run(timed("c/fanout", "three requests to a backend at once")),
        ]
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""An HTTP/2 server for tests, scripted frame by frame with hyper-h2 or with raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from edge.http.body import Account, Body, Ledger
from edge.model.backend import Backend
from edge.upstream.client import Client, ServiceUpstream
from edge.upstream.fetch import Pending, UpstreamRequest, UpstreamResponse
from edge.upstream.h2 import make_h2
from tests.support.backends import backend, dialer
from tests.support.serving import until

MIB = 1024 * 1024


class Served(asyncio.Protocol):
    """One connection of the scripted server.  `script` is called with each event."""

    def __init__(self, script: Callable[[Served, Event], None]) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        # Tests also play servers that break the rules.
        self.h2.config.validate_outbound_headers = False
        self.h2.config.normalize_outbound_headers = False
        self.script = script
        self.transport: asyncio.Transport | None = None
        self.events: list[Event] = []
        self.requests: list[int] = []
        self.bodies: dict[int, bytes] = {}
        self.lost = False
        self.quiet = False  # do not read what the client sends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        events: list[Event] = []
        with suppress(ProtocolError):  # a test may have made the library unhappy on purpose
            events = self.h2.receive_data(data)
        for event in events:
            self.events.append(event)
            if isinstance(event, RequestReceived):
                self.requests.append(event.stream_id)
            if isinstance(event, DataReceived):
                held = self.bodies.get(event.stream_id, b"")
                self.bodies[event.stream_id] = held + event.data
            with suppress(ProtocolError):  # its stream may have been reset in the meantime
                self.script(self, event)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def raw(self, data: bytes) -> None:
        """Bytes past the library."""
        self.flush()
        assert self.transport is not None
        self.transport.write(data)

    def head(
        self, stream: int, status: int = 200, *fields: tuple[bytes, bytes], end: bool = False
    ) -> None:
        headers = [(b":status", b"%d" % status), *fields]
        self.h2.send_headers(stream, headers, end_stream=end)

    def answer(self, stream: int, body: bytes = b"ok", *fields: tuple[bytes, bytes]) -> None:
        """A whole small response."""
        self.head(stream, 200, *fields)
        self.h2.send_data(stream, body, end_stream=True)

    def resets(self) -> list[tuple[int, int]]:
        """Streams that the client gave up, with the error code."""
        return [
            (each.stream_id, int(each.error_code))
            for each in self.events
            if isinstance(each, StreamReset)
        ]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes (RFC 9113 section 4.1)."""
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


def when_asked(answer: Callable[[Served, int], None]) -> Callable[[Served, Event], None]:
    """A script that answers each request once its body is here."""

    def script(served: Served, event: Event) -> None:
        if isinstance(event, StreamEnded):
            answer(served, event.stream_id)

    return script


class Scene:
    """A scripted server, a client, and what connects them."""

    def __init__(self, client: Client, upstream: ServiceUpstream, port: int) -> None:
        self.client = client
        self.upstream = upstream
        self.port = port
        self.connections: list[Served] = []

    @property
    def served(self) -> Served:
        """The only connection."""
        assert len(self.connections) == 1
        return self.connections[0]

    def backend(self, **settings: object) -> Backend:
        """The server, spoken to with prior knowledge (no TLS)."""
        wanted = {"grpc": True, "first_byte_timeout": 5.0, **settings}
        return backend(f"http://127.0.0.1:{self.port}", **wanted)

    def send(
        self,
        to: Backend | None = None,
        *,
        method: bytes = b"GET",
        body: Body | bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        limit: int = 64 * MIB,
        auto_decompress: bool = False,
    ) -> Pending:
        """A request on its way."""
        if isinstance(body, bytes):
            content, body = body, Body()
            if content:
                body = Body(live=True)
                body.write(content)
                body.finish()
        return self.upstream.send(
            UpstreamRequest(
                to or self.backend(),
                method,
                b"/path?q",
                headers if headers is not None else [(b"host", b"a.example")],
                body,
                Account(Ledger(), limit),
                auto_decompress=auto_decompress,
            )
        )

    async def fetch(self, *args: object, **settings: object) -> UpstreamResponse:
        """The response, or its failure raised."""
        return await ready(self.send(*args, **settings))  # type: ignore[arg-type]


async def ready(pending: Pending) -> UpstreamResponse:
    """Wait for a response."""
    await until(lambda: pending.is_ready)
    return pending.result()


async def read(body: Body) -> bytes:
    """All of a body; its error raised."""
    parts = []
    while True:
        await body.wait_readable()
        part = body.read(65536)
        parts.append(part)
        if not part and body.at_eof:
            return b"".join(parts)


@asynccontextmanager
async def scene(script: Callable[[Served, Event], None]) -> AsyncIterator[Scene]:
    """A server that plays `script`, and a client for it; nothing is open afterwards."""
    loop = asyncio.get_running_loop()
    made: list[Scene] = []

    def serve() -> Served:
        served = Served(script)
        made[0].connections.append(served)
        return served

    server = await loop.create_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with dialer() as network:
        client = Client(network, make_h2=make_h2)
        made.append(Scene(client, client.for_service("shop"), port))
        try:
            yield made[0]
        finally:
            await client.aclose()
            server.close()
            for served in made[0].connections:
                if served.transport is not None:
                    served.transport.abort()
            await until(lambda: all(served.lost for served in made[0].connections))
            await server.wait_closed()

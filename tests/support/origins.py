"""An HTTP/1.1 backend on loopback for process tests: it records, streams, waits for events, echoes.

`Origin` answers every path with `answer to METHOD PATH`, unless `on` gave the path an `Answer` of
its own. It serves each connection on a thread and ends them all when it closes.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.server import DEADLINE

KEPT_BYTES = 1 << 20  # of each body: large ones flow through


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived; names of fields in lower case, bodies unpacked from their chunks."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    connection: int  # the number of the connection it came on, from 1
    body: bytes = b""  # no more than its first `KEPT_BYTES`

    def header(self, name: str) -> str | None:
        """The only value of a field; None where there is none."""
        values = [value for found, value in self.fields if found == name]
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None


class Exchange:
    """One request while it is answered: `read` it, then `reply`, or `start`, `send` and `end`."""

    def __init__(self, handler: _Handler, seen: Seen) -> None:
        self.seen = seen  # without its body
        self._handler = handler

    def read(self) -> Iterator[bytes]:
        """The body of the request in the pieces it was framed in, as they arrive."""
        return self._handler.pieces

    def reply(self, body: bytes, status: int = 200, **fields: str) -> None:
        """A whole response. `content_type="text/plain"` makes a field."""
        self._handler.head(status, {**fields, "content_length": str(len(body))})
        if self.seen.method != "HEAD":
            self._handler.wfile.write(body)

    def start(self, status: int = 200, **fields: str) -> None:
        """The head of a response without a length; `send` pieces, then `end`."""
        self._handler.head(status, {**fields, "transfer_encoding": "chunked"})

    def send(self, piece: bytes) -> None:
        """One chunk, on its way when this returns."""
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> None:
        """The end of a response that was started."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """End the connection here, in the middle of whatever was being said."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)


Answer = Callable[[Exchange], None]


def echo(exchange: Exchange) -> None:
    """Sends every piece of the body back as it comes."""
    exchange.start(content_type=exchange.seen.header("content-type") or "text/plain")
    for piece in exchange.read():
        exchange.send(piece)
    exchange.end()


def mirror(exchange: Exchange) -> None:
    """Answers with what was asked, as JSON."""
    body = b"".join(exchange.read()).decode()
    seen = exchange.seen
    told = {"method": seen.method, "target": seen.target, "fields": seen.fields, "body": body}
    exchange.reply(json.dumps(told).encode(), content_type="application/json")


def says(text: bytes, status: int = 200, **fields: str) -> Answer:
    """Always the same whole response."""
    return lambda exchange: exchange.reply(text, status, **fields)


def held(gate: threading.Event, text: bytes) -> Answer:
    """Answers when the gate opens, not before."""

    def answer(exchange: Exchange) -> None:
        assert gate.wait(DEADLINE), f"nobody let {exchange.seen.target} go on"
        exchange.reply(text)

    return answer


def in_two(first: bytes, gate: threading.Event, second: bytes) -> Answer:
    """Sends the first part at once and the second when the gate opens."""

    def answer(exchange: Exchange) -> None:
        exchange.start(content_type="text/plain")
        exchange.send(first)
        assert gate.wait(DEADLINE), f"nobody let {exchange.seen.target} go on"
        exchange.send(second)
        exchange.end()

    return answer


@dataclass
class Origin:
    """A backend that listens. `seen` has the requests in the order in which they were done with."""

    seen: list[Seen] = field(default_factory=list)
    _answers: dict[str, Answer] = field(default_factory=dict)
    _gates: list[threading.Event] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, chosen by the kernel."""
        return int(self._server.server_address[1])

    @property
    def connections(self) -> int:
        """How many were accepted so far."""
        return self._server.accepted

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str, answer: Answer) -> None:
        """Answer this path so, from now on; a query does not count."""
        self._answers[path] = answer

    def gate(self) -> threading.Event:
        """An event to hold answers back with; it opens by itself when the origin closes."""
        self._gates.append(gate := threading.Event())
        return gate

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path, its query aside, that are done with."""
        with self._changed:
            return [seen for seen in self.seen if seen.target.partition("?")[0] == path]

    def wait_for(self, path: str, count: int = 1) -> list[Seen]:
        """Until `count` requests for this path are done with."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.asked(path)) >= count, DEADLINE)
        assert done, f"{path} came {len(self.asked(path))} times: {self.seen[-5:]}"
        return self.asked(path)

    def record(self, seen: Seen) -> None:
        """Called by the handler when it is through with a request."""
        with self._changed:
            self.seen.append(seen)
            self._changed.notify_all()

    def answer_for(self, target: str) -> Answer:
        """What answers a target."""
        return self._answers.get(target.partition("?")[0], _answer_plainly)

    def start(self) -> None:
        """Serve, on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Whoever waits goes on, every connection ends, every thread is joined."""
        for gate in self._gates:
            gate.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(DEADLINE)


@contextmanager
def origin() -> Iterator[Origin]:
    """An origin that is served, and is gone afterwards."""
    running = Origin()
    running.start()
    try:
        yield running
    finally:
        running.close()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on: for a backend that refuses, or for ourselves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answer_plainly(exchange: Exchange) -> None:
    for _ in exchange.read():
        pass
    seen = exchange.seen
    exchange.reply(f"answer to {seen.method} {seen.target}".encode(), content_type="text/plain")


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # so that server_close joins them

    def __init__(self, owner: Origin) -> None:
        self.owner = owner
        self.numbers: dict[socket.socket, int] = {}  # of the open connections
        self.accepted = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        self.numbers[request] = self.accepted
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.numbers.pop(request, None)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self.numbers):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the other side was quicker

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no event; what else went wrong, the test finds missing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    pieces: Iterator[bytes]

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The base class looks for `do_` and the method's name; all methods are one to us.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        fields = tuple((name.lower(), value) for name, value in self.headers.items())
        number = self.server.numbers[self.connection]
        body = bytearray()
        self.pieces = self._read(body)
        try:
            exchange = Exchange(self, Seen(self.command, self.path, fields, number))
            self.server.owner.answer_for(self.path)(exchange)
            for _ in self.pieces:  # what the answer left would be taken for the next request
                pass
        finally:
            self.server.owner.record(
                Seen(self.command, self.path, fields, number, bytes(body[:KEPT_BYTES]))
            )

    def _read(self, kept: bytearray) -> Iterator[bytes]:
        for piece in self._framed():
            if len(kept) < KEPT_BYTES:
                kept += piece
            yield piece

    def _framed(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                piece = self.rfile.read(size)
                self.rfile.readline()
                yield piece
            while self.rfile.readline().strip():
                pass  # trailers
        elif size := int(self.headers.get("content-length", "0")):
            while size > 0 and (piece := self.rfile.read1(min(size, 65536))):
                size -= len(piece)
                yield piece

    def head(self, status: int, fields: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: a test says what it wants to know."""

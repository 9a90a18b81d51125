"""Backends that are Python functions, over real HTTP on a loopback port of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MAX_BODY: Final = 256 * 1024 * 1024
_SECONDS: Final = 60.0  # without a byte, until a connection is given up


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a backend got it.  `headers` have lower-case names, in order."""

    method: str
    target: str  # path and query
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first field of this name."""
        return next((value for known, value in self.headers if known == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend answers.  A body of several pieces is sent chunked, each as it comes."""

    status: int = 200
    body: bytes | str | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Reply | bytes | str]


class PythonBackend:
    """One backend; `requests` has what came, in order."""

    def __init__(self, handler: Handler) -> None:
        """Nothing listens before `start`."""
        self.handler = handler
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # that the handler raised
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen on a port of the kernel's choice."""
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="python-backend", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        assert self._server is not None, "start() comes first"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop.  Raises the first error that a handler raised."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            assert self._thread is not None
            self._thread.join()
        if self.errors:
            raise self.errors[0]

    def answer(self, request: Request) -> Reply:
        """What the handler says; 500 when it raised, which `close` raises again."""
        self.requests.append(request)
        try:
            said = self.handler(request)
        except Exception as error:
            self.errors.append(error)
            return Reply(500, f"the handler of this backend raised {error!r}")
        return said if isinstance(said, Reply) else Reply(body=said)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a kept-alive connection would hold us until it is idle for long
    request_queue_size = 128

    def __init__(self, backend: PythonBackend) -> None:
        self.backend = backend
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that leaves early is none of a test's errors; the handler's are kept elsewhere."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self._body()
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        reply = self.server.backend.answer(Request(self.command, self.path, headers, body))
        self._send(reply)
        self.wfile.flush()

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(min(int(self.headers.get("content-length", 0)), MAX_BODY))
        pieces = []
        while size := int(self.rfile.readline(1024).partition(b";")[0], 16):
            pieces.append(self.rfile.read(min(size, MAX_BODY)))
            self.rfile.readline(3)
        while self.rfile.readline(65537).strip():  # trailers
            pass
        return b"".join(pieces)

    def _send(self, reply: Reply) -> None:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        given = {name.lower() for name in reply.headers}
        bodiless = self.command == "HEAD" or reply.status in (204, 304) or reply.status < 200
        if isinstance(body, bytes):
            if "content-length" not in given and reply.status not in (204, 304):
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            if not bodiless:
                self.wfile.write(body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in () if bodiless else body:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
        if not bodiless:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
        """Tests read `requests`."""

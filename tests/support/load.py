"""Clients that press: one that measures its latency, and a crowd that comes back for ever.

Plain blocking sockets in threads: they wake sooner than a loop's callbacks, and what is measured
is the server.  Responses are expected to be small and to carry a Content-Length.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from tests.support.server import DEADLINE

# A thread that wakes waits for the interpreter at most this long, instead of 5 ms.
SWITCH_SECONDS = 0.0002
_STATUS = b"HTTP/1.1 200 OK\r\n"


def request(host: str, path: str = "/", *, close: bool = False) -> bytes:
    """The bytes of a GET."""
    last = "connection: close\r\n\r\n" if close else "\r\n"
    return f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{last}".encode()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(slots=True)
class Probe:
    """One keep-alive client that asks again as soon as it is answered, and notes how long it took.

    The wait for a slow answer is one sample, however long: the sum of all is the window.
    """

    port: int
    host: str
    seconds: list[float] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Connect and begin."""
        self._thread = threading.Thread(target=self._run, name=f"probe-{self.host}")
        self._thread.start()

    def stop(self) -> None:
        """End after the answer that is awaited."""
        self._stop.set()
        assert self._thread is not None
        self._thread.join(DEADLINE)

    def forget(self) -> None:
        """A new window begins: only what is asked from now on counts."""
        self.seconds = []

    def _run(self) -> None:
        asked = request(self.host)
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._stop.is_set():
                window = self.seconds
                began = perf_counter()
                client.sendall(asked)
                answer = _whole_answer(client)
                window.append(perf_counter() - began)
                if not answer.startswith(b"HTTP/1.1 200 ") and len(self.wrong) < 10:
                    self.wrong.append(answer)


def _whole_answer(client: socket.socket) -> bytes:
    data = b""
    while True:
        piece = client.recv(65536)
        if not piece:
            return data
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
            if len(body) >= int(length):
                return data


class Crowd:
    """Many clients of one service: each comes back, on a new connection, as soon as it is answered.

    One thread and one selector for all of them.
    """

    def __init__(self, port: int, host: str, size: int) -> None:
        """Connects to nothing before `start`."""
        self._address = ("127.0.0.1", port)
        self._asked = request(host, close=True)
        self._size = size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd")
        self.answers = 0
        self.statuses: dict[bytes, int] = {}

    def start(self) -> None:
        """Send them all."""
        self._thread.start()

    def stop(self) -> None:
        """Hang up, all of them."""
        self._stop.set()
        self._thread.join(DEADLINE)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for _ in range(self._size):
                self._come(selector)
            while not self._stop.is_set():
                for key, _ in selector.select(0.1):
                    client = key.fileobj
                    assert isinstance(client, socket.socket)
                    data = b""
                    with contextlib.suppress(OSError):
                        data = client.recv(65536)
                    if data[:5] == b"HTTP/":
                        self.answers += 1
                        status = data[9:12]
                        self.statuses[status] = self.statuses.get(status, 0) + 1
                    elif data:
                        continue
                    selector.unregister(client)
                    client.close()
                    self._come(selector)
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()

    def _come(self, selector: selectors.BaseSelector) -> None:
        client = socket.create_connection(self._address, timeout=DEADLINE)
        client.sendall(self._asked)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)


def pump(port: int, host: str, requests: int, *, connections: int = 8, depth: int = 16) -> int:
    """Ask `requests` times over keep-alive connections, `depth` at a time; how many got a 200.

    AssertionError when a connection is closed or falls silent.
    """
    asked = request(host)
    left, good = requests, 0
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as open_sockets:
        expected: dict[socket.socket, int] = {}
        tails: dict[socket.socket, bytes] = {}

        def ask(client: socket.socket) -> None:
            nonlocal left
            count = min(depth, left)
            left -= count
            expected[client] = count
            if count:
                client.sendall(asked * count)

        for _ in range(connections):
            client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
            open_sockets.enter_context(client)
            selector.register(client, selectors.EVENT_READ)
            tails[client] = b""
            ask(client)
        while any(expected.values()):
            ready = selector.select(DEADLINE)
            assert ready, f"silence after {good} answers of {requests}"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                client = key.fileobj
                data = client.recv(1 << 16)
                assert data, f"closed after {good} answers of {requests}"
                # Status lines may be cut by the border between two reads.
                data = tails[client] + data
                found = data.count(_STATUS)
                whole = data.rfind(_STATUS) + len(_STATUS) if found else 0
                tails[client] = data[max(whole, len(data) - len(_STATUS) + 1) :]
                good += found
                expected[client] -= found
                if expected[client] == 0:
                    ask(client)
    return good


@contextmanager
def eager_threads() -> Iterator[None]:
    """Threads of this process hand the interpreter over quickly."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)

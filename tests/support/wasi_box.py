"""A sandbox for WASI tests: a recorded client, log lines in a list, clocks set by hand."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.abi.sandbox import Sandbox
from edge.abi.wasi.cgi import Cgi
from edge.abi.wasi.preview1 import WASI_PREVIEW1
from edge.abi.wasi.program import Program
from edge.http.body import Account, Body, Ledger
from edge.http.message import Answer, Headers, RequestHead, ResponseHead
from edge.model.limits import Limits
from edge.model.service import Service
from tests.support.fake_guest import FakeGuest


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test function in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@dataclass
class RecordedClient:
    """One request, and what was answered."""

    head: RequestHead
    body: Body = field(default_factory=Body)
    client_address: bytes = b"\xc0\x00\x02\x07"
    server_address: bytes = bytes(15) + b"\x01"
    request_id: str = "0123456789abcdef0123456789abcdef"
    response: ResponseHead | None = None
    response_body: Body | None = None

    @property
    def responded(self) -> bool:
        return self.response is not None

    @property
    def wants_websocket(self) -> bool:
        return False

    def inform(self, status: int, headers: Headers) -> None:
        raise AssertionError("nothing here sends interim responses")

    def hand_over(self, answer: Answer) -> None:
        raise AssertionError("nothing here hands its client over")

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        raise AssertionError("nothing here hands its client over")

    def respond(self, head: ResponseHead, body: Body) -> None:
        assert self.response is None, "a second response"
        self.response, self.response_body = head, body

    def abort(self) -> None:
        raise AssertionError("nothing here aborts")

    def read(self) -> bytes:
        """All response bytes that are here."""
        assert self.response_body is not None, "no response yet"
        body = self.response_body
        return b"".join(iter(lambda: body.read(1 << 20), b""))


class HandClocks:
    """Real time and monotonic time, in nanoseconds, moved by tests."""

    def __init__(self) -> None:
        self.real = 1_700_000_000_123_456_789
        self.mono = 5_000_000_000_000

    def realtime_ns(self) -> int:
        return self.real

    def monotonic_ns(self) -> int:
        return self.mono

    def advance(self, nanoseconds: int) -> None:
        self.real += nanoseconds
        self.mono += nanoseconds


class HandMeter:
    """CPU time and memory as tests say."""

    cpu = 0

    def cpu_ns(self) -> int:
        return self.cpu

    def memory_bytes(self) -> int:
        return 65536


class WasiGuest(FakeGuest):
    """A fake guest with all of preview1; `logged` holds (stream, text, bytes cut)."""

    client: RecordedClient
    clocks: HandClocks

    def __init__(
        self,
        *,
        cgi: bool = False,
        limits: Limits | None = None,
        env: dict[str, str] | None = None,
        head: RequestHead | None = None,
        client_body: Body | None = None,
        resolution_ns: int = 1,
        version: int = 7,
    ) -> None:
        self.logged: list[tuple[str, bytes, int]] = []
        limits = limits or Limits()
        head = head or RequestHead(b"GET", b"/", b"example.com")
        self.client = RecordedClient(head, Body() if client_body is None else client_body)
        box = Sandbox(
            service=Service("shop", Path("shop.wasm"), (), limits, env or {}),
            version=version,
            limits=limits,
            downstream=self.client,
            account=Account(Ledger(), limits.host_memory),
            log_line=lambda _, stream, text, cut: self.logged.append((stream, text, cut)),
            clock_resolution_ns=resolution_ns,
        )
        box.meter = HandMeter()
        if cgi:
            box.extras["cgi"] = Cgi(box)
        self.clocks = HandClocks()
        box.extras["wasi"] = Program(box, self.clocks)
        super().__init__(WASI_PREVIEW1, box)
        self.out = self.room(8)

    @property
    def cgi(self) -> Cgi:
        cgi: Cgi = self.box.extras["cgi"]
        return cgi

    def iovecs(self, *ranges: tuple[int, int]) -> tuple[int, int]:
        """Place a scatter list; (ptr, count), ready to splat."""
        words = [word.to_bytes(4, "little") for pair in ranges for word in pair]
        return self.put(b"".join(words))[0], len(ranges)

    def write(self, fd: int, *pieces: bytes) -> tuple[int, int]:
        """fd_write; (errno, bytes written)."""
        errno = self.call("fd_write", fd, *self.iovecs(*map(self.put, pieces)), self.out)
        return errno, self.u32_at(self.out)

    def read(self, size: int, fd: int = 0) -> tuple[int, bytes]:
        """fd_read into one buffer; (errno, bytes)."""
        buffer = self.room(size)
        errno = self.call("fd_read", fd, *self.iovecs((buffer, size)), self.out)
        return errno, b"" if errno else self.bytes_at(buffer, self.u32_at(self.out))

    def strings(self, kind: str) -> list[bytes]:
        """All `args` or all of the `environ`, read the way a libc does."""
        sizes = self.room(8)
        assert self.call(f"{kind}_sizes_get", sizes, sizes + 4) == 0
        count, size = self.u32_at(sizes), self.u32_at(sizes + 4)
        pointers, buffer = self.room(4 * count + 4), self.room(size + 1)
        assert self.call(f"{kind}_get", pointers, buffer) == 0
        found = []
        for at in range(count):
            start = self.u32_at(pointers + 4 * at)
            tail = self.bytes_at(start, buffer + size - start)
            found.append(tail[: tail.index(b"\0")])
        return found

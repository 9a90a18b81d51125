"""Backends that misbehave on cue, for tests of the whole server, and a guest to ask them.

A script plays one accepted connection (`tests.support.backends_h1.Peer`) on a thread of the
backends' own.  It is chosen by what follows the last slash of the first request's target, and given
that request's head.  `Puppet` tells the guest `c/puppet` what to do; `told` is what it said of it.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tests.support.backends_h1 import Peer
from tests.support.guests import build
from tests.support.server import DEADLINE, Server

T = TypeVar("T")
Script = Callable[[Peer, bytes], Awaitable[None]]  # the peer, the first head


class Gate:
    """Opened by a test, waited for by a script."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def open(self) -> None:
        """Let whoever waits go on."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """For a script."""
        await self._event.wait()


class Faulty:
    """Listens on loopback; `on` says what happens to the connections of a path."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty")
        self._servers: list[asyncio.Server] = []
        self._playing: set[asyncio.Task[None]] = set()
        self._scripts: dict[str, Script] = {}
        self._changed = threading.Condition()
        self.port = 0
        self.accepted = 0
        self.open = 0
        self.heads: list[bytes] = []  # the first of each connection
        self.failed: list[BaseException] = []  # what scripts raised

    def on(self, name: str, script: Script) -> None:
        """Play this for connections whose first target ends with `/name`; not for any other."""
        self._scripts[name] = script

    def says(self, name: str, *pieces: bytes, reset: bool = False) -> None:
        """Answer with these bytes, then close (or reset)."""

        async def script(peer: Peer, head: bytes) -> None:
            await peer.send(*pieces)
            if reset:
                peer.reset()

        self.on(name, script)

    def holds(self, name: str, *pieces: bytes) -> None:
        """Answer with these bytes, then wait until the other end closes."""

        async def script(peer: Peer, head: bytes) -> None:
            await peer.send(*pieces)
            await peer.gone()

        self.on(name, script)

    def gate(self) -> Gate:
        """For scripts that wait for the test."""
        return self.call(self._gate())

    def listen(self, context: ssl.SSLContext | None = None, *, greeting: bytes = b"") -> int:
        """Another port, perhaps with TLS; with a `greeting`, that is said and nothing else."""
        return self.call(self._listen(context, greeting))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the backends' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    @contextmanager
    def entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """What an asynchronous context manager gives, on the backends' loop."""

        async def enter() -> T:
            return await manager.__aenter__()

        async def leave() -> None:
            await manager.__aexit__(None, None, None)

        given = self.call(enter())
        try:
            yield given
        finally:
            self.call(leave())

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Until `condition`, which is looked at whenever a connection has changed."""
        with self._changed:
            done = self._changed.wait_for(condition, DEADLINE)
        assert done, f"{what}: {self.accepted} accepted, {self.open} open"

    def wait_for_end(self) -> None:
        """Until the other end has let go of every connection."""
        self.wait_until(lambda: not self.open, "connections were not given up")

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self.port = self.listen()

    def close(self) -> None:
        """Nothing is left."""
        self.call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    async def _gate(self) -> Gate:
        return Gate(self._loop)

    async def _listen(self, context: ssl.SSLContext | None, greeting: bytes = b"") -> int:
        accepted = partial(self._accepted, greeting)
        server = await asyncio.start_server(
            accepted, "127.0.0.1", 0, backlog=2048, limit=1 << 20, ssl=context
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _accepted(
        self, greeting: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        self._count(1)
        try:
            if greeting:
                writer.write(greeting)
                await reader.read()
                return
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            name = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
            await self._scripts[name](Peer(reader, writer), head)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end went away, which is its right; or the test is over
        except Exception as error:
            self.failed.append(error)
        finally:
            self._playing.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._changed:
            self.accepted += step > 0
            self.open += step
            self._changed.notify_all()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        playing = tuple(self._playing)
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


@contextmanager
def faulty() -> Iterator[Faulty]:
    """Backends that listen, and are gone afterwards; a script that failed fails the test."""
    running = Faulty()
    running.start()
    try:
        yield running
    finally:
        running.close()
    assert running.failed == []


# The guest ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What the guest said of one step."""

    letter: str
    status: int
    number: int  # the tag of the error detail, bytes, or an index: by letter


class Puppet:
    """Steps for `c/puppet`; see its source for the letters."""

    def __init__(self) -> None:
        self._steps = b""

    def do(self, letter: str, first: bytes | str = b"", second: bytes | str = b"") -> Puppet:
        """One more step."""
        texts = [text.encode() if isinstance(text, str) else text for text in (first, second)]
        sizes = b"".join(len(text).to_bytes(2, "big") for text in texts)
        self._steps += letter.encode() + sizes + b"".join(texts)
        return self

    def all(self, letters: str) -> Puppet:
        """Steps without texts."""
        for letter in letters:
            self.do(letter)
        return self

    def asking(self, name: str, backend: str = "origin") -> Puppet:
        """A new GET request for a script of the backends."""
        return self.do("q").do("u", f"http://origin.test/{name}").do("b", backend)

    def header(self) -> str:
        """The value of `x-script`."""
        return self._steps.hex()


def told(text: str) -> list[Told]:
    """What the guest said, step by step."""
    found = re.findall(r"(\w)=(\d+):(\d+)", text)
    return [Told(letter, int(status), int(number)) for letter, status, number in found]


def last(text: str, letter: str) -> Told:
    """What it said of the last step of this letter."""
    return next(each for each in reversed(told(text)) if each.letter == letter)


# What must be as it was ---------------------------------------------------------------------


def await_equal(expected: T, look: Callable[[], T], *, seconds: float = DEADLINE) -> None:
    """Until `look` gives `expected`: each look is a request, whose answer is waited for."""
    end = time.monotonic() + seconds
    while (found := look()) != expected:
        assert time.monotonic() < end, f"{found} never became {expected}"


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker holds for requests; nothing of it may stay."""

    sockets: int
    upstream: float
    in_flight: float
    sandboxes: float
    host_bytes: float
    faults: float


def held(server: Server) -> Held:
    """Of the only worker of a server, now."""
    (pid,) = server.worker_pids()
    sockets = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed meanwhile
            sockets += os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    return Held(
        sockets,
        server.metric("edge_upstream_connections", state="open"),
        server.metric("edge_worker_requests_in_flight"),
        server.metric("edge_sandboxes"),
        server.metric("edge_guest_host_bytes"),
        server.metric("edge_faults_total"),
    )


def failure_line(server: Server, backend: str) -> dict[str, Any]:
    """The next line of the log about a request to this backend that failed."""
    while True:
        line = server.wait_for("backend request failed: ")
        if line["fields"]["backend"] == backend:
            return line


@contextmanager
def leaving_nothing(server: Server) -> Iterator[None]:
    """Whatever happens inside, the worker comes to hold no more than before, and no fault."""
    before = held(server)
    assert not before.faults
    yield
    now = before

    def holds_no_more() -> bool:
        nonlocal now
        now = held(server)
        return all(getattr(now, name) <= getattr(before, name) for name in Held.__slots__)

    try:
        await_equal(True, holds_no_more)
    except AssertionError:
        raise AssertionError(f"{before} before, {now} in the end") from None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got; `broken`: why it has not the whole of it."""

    status: int
    body: bytes
    broken: Exception | None = None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def ask(
    server: Server, puppet: Puppet, *, method: str = "GET", body: bytes | None = None
) -> Answer:
    """One request to the guest on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
    fields = {"host": "edge.test", "x-script": puppet.header(), "connection": "close"}
    try:
        with suppress(ConnectionError):  # answered before all of the body was sent
            connection.request(method, "/", body, fields)
        with connection.getresponse() as response:
            try:
                return Answer(response.status, response.read())
            except http.client.IncompleteRead as error:
                return Answer(response.status, error.partial, error)
            except OSError as error:
                return Answer(response.status, b"", error)
    finally:
        connection.close()


def puppet_service(backends: Mapping[str, str], limits: str = "{cpu: 2s, wall: 20s}") -> str:
    """The service of a configuration that serves the puppet; its backends as flow mappings."""
    lines = "".join(f"      {name}: {{{settings}}}\n" for name, settings in backends.items())
    return (
        f"  puppet:\n    module: {build('c/puppet')}\n"
        f'    routes: [{{host: "edge.test"}}]\n    limits: {limits}\n    backends:\n{lines}'
    )

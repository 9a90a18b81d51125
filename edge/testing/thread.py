"""A local server in a thread of its own, with its own loop; blocking calls from the test's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from edge.local.seen import Watcher
from edge.local.server import LocalOptions, LocalServer
from edge.local.world import LocalWorld
from edge.settings import Listen

T = TypeVar("T")

START_SECONDS = 600.0  # a large program is compiled for minutes on a slow machine
CALL_SECONDS = 60.0


class ServerThread:
    """Started by `start`, ended by `close`."""

    def __init__(self, options: LocalOptions, watcher: Watcher) -> None:
        self.server = LocalServer(options, watcher)
        self.faults: list[dict[str, Any]] = []  # exceptions that nobody on the loop caught
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def start(self, world: LocalWorld, listen: Listen) -> None:
        """Serve.  Raises ConfigError, and whatever else it failed with."""
        self._thread = threading.Thread(
            target=self._run, args=(world, listen), name="local-server", daemon=True
        )
        self._thread.start()
        assert self._ready.wait(START_SECONDS), "the server did not start"
        if self._failure is not None:
            self._thread.join(CALL_SECONDS)
            raise self._failure

    def close(self) -> None:
        """End it.  Raises what it ended with."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(CALL_SECONDS)
            assert not self._thread.is_alive(), "the server did not end"
        if self._failure is not None:
            raise self._failure

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the server's loop and wait for its result."""

        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_SECONDS)

    def _run(self, world: LocalWorld, listen: Listen) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(world, listen))
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, world: LocalWorld, listen: Listen) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        self._stop = asyncio.Event()
        await self.server.start(world, listen)
        self._ready.set()
        await self._stop.wait()
        await self.server.aclose()

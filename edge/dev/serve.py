"""Serving a `fastly.toml`: start, reload when a file changes, end when told to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.abi.sandbox import Sandbox
from edge.dev.console import Console, ConsoleHandler
from edge.dev.manifest import Manifest
from edge.dev.probe import probe
from edge.dev.watching import POLL_SECONDS, Changes
from edge.errors import ConfigError
from edge.local.server import LocalOptions, LocalServer
from edge.model.backend import Backend
from edge.runtime.profile import GuestProfiler
from edge.settings import Listen
from edge.upstream.fetch import UpstreamFailed

PROBE_SECONDS: Final = 5.0
UNKNOWN_IMPORTS: Final = "unknown_imports: trap"  # as a refusal says it
DRAIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Serve:
    """What the command line said."""

    read: Callable[[], Manifest]  # may raise ConfigError
    source: str  # what its problems are in
    listen: Listen
    state_dir: Path
    trace: bool = False
    profile_dir: Path | None = None
    profile_interval: float = 0.0  # seconds
    reload: bool = True
    poll: float = POLL_SECONDS


async def serve(order: Serve, console: Console) -> int:
    """Serve until SIGINT or SIGTERM; returns the number of the signal, negative.

    1 when it could not begin.
    """
    loop = asyncio.get_running_loop()
    log = logging.getLogger()
    log.handlers = [ConsoleHandler(console)]
    log.setLevel(logging.INFO)
    # Said by the line of the request, in better words.
    logging.getLogger("edge.limits").setLevel(logging.ERROR)
    try:
        manifest = order.read()
    except ConfigError as error:
        report(console, order.source, error)
        return 1
    changes = Changes(manifest.files)  # before a large program is compiled, for that takes long
    for warning in manifest.warnings:
        console.warn(warning)

    def failed(box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
        console.warn(f"{failure} ({failure.cause.value})")

    server = LocalServer(
        LocalOptions(order.state_dir, trace=order.trace, on_failure=failed), console
    )
    console.several = len(manifest.world.services) > 1
    try:
        await server.start(manifest.world, order.listen)
    except ConfigError as error:
        report(console, order.source, error)
        return 1
    stop: asyncio.Future[int] = loop.create_future()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, _set, stop, int(sign))
    profiler = None
    if order.profile_dir is not None:
        profiler = GuestProfiler(server.runtime, order.profile_dir, order.profile_interval)
        try:
            profiler.start()
        except OSError as error:
            console.fail(f"--profile: {order.profile_dir}: {error.strerror}")
            await server.aclose(0)
            return 1
        console.say(f"Writing a profile of each request to {order.profile_dir}")
    console.say(f"Listening on http://{order.listen.host}:{server.port}")
    console.say("Guests may reach every host and port from here: the egress policy is open")
    async with asyncio.TaskGroup() as tasks:
        backends = [b for s in manifest.world.services for b in s.backends.values()]
        probing = tasks.create_task(probe(backends, console.warn, seconds=PROBE_SECONDS))
        reloading = tasks.create_task(_reload(order, server, changes, console))
        number = await stop
        probing.cancel()
        reloading.cancel()
    console.detail("ending")
    await server.aclose(DRAIN_SECONDS)
    if profiler is not None:
        profiler.close()
    return -number


def _set(stop: asyncio.Future[int], number: int) -> None:
    if stop.done():  # asked twice: do not wait for requests
        os._exit(128 + number)
    stop.set_result(number)


async def _reload(order: Serve, server: LocalServer, changes: Changes, console: Console) -> None:
    """Serve what the files say whenever that is new.  What is broken changes nothing."""
    if not order.reload:
        return
    while True:
        await changes.wait(order.poll)
        try:
            manifest = await asyncio.to_thread(order.read)
            changes.watch(manifest.files)
            await server.reload(manifest.world)
        except ConfigError as error:
            report(console, order.source, error)
            console.warn("a file has changed and cannot be used: serving on as before")
            continue
        console.several = len(manifest.world.services) > 1
        for warning in manifest.warnings:
            console.warn(warning)
        console.say("Reloaded: a file has changed")


def report(console: Console, source: str, error: ConfigError) -> None:
    """Every problem, with where it is, and with our option in place of the server's setting."""
    for problem in error.problems:
        text = str(problem).replace(UNKNOWN_IMPORTS, "--unknown-import-behavior trap")
        console.fail(f"{source}: {text}" if source else text)

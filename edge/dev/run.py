"""`edge-dev run`: a program run once, with arguments, for its exit status.  Test runners use it.

It has no client: the request it could ask for is an empty GET, and what it answers is dropped.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.abi.sandbox import Sandbox, sandbox_maker
from edge.abi.wasi.environment import EMPTY
from edge.abi.wasi.module import WASI_PREVIEW1
from edge.abi.wasi.program import flush, program_of
from edge.abi.wasi.streams import COMMON_RIGHTS, Rights, Stream
from edge.dev.manifest import MAX_RUN_LIMITS, read_manifest
from edge.errors import ConfigError, ModuleRefused
from edge.hostmodules import HOST_MODULES
from edge.http.body import Body, Ledger
from edge.http.message import Answer, Headers, RequestHead, ResponseHead
from edge.local.compiled import MAX_MODULE_BYTES, CompiledModules
from edge.local.features import Features
from edge.local.hostcalls import replaced
from edge.local.server import Size
from edge.local.world import LocalWorld
from edge.model.backend import Backend
from edge.model.service import Version
from edge.outcome import Ending, Outcome
from edge.runtime.artifacts import open_artifact
from edge.runtime.engine import PoolSettings
from edge.runtime.guest import Guest
from edge.runtime.observed import ObservedRuntime
from edge.supervisor.world import read_module
from edge.telemetry.layout import OTHER_BLOCK
from edge.telemetry.shared import SharedCells
from edge.upstream.fetch import UpstreamFailed

EXIT_REFUSED: Final = 1
EXIT_TRAP: Final = 134  # what a shell says of a program that aborted


async def run_program(
    module: Path, arguments: list[str], config: Path | None, state_dir: Path
) -> int:
    """Run it; returns the exit status.  Says on stderr why it could not be run, or trapped."""
    try:
        world = read_manifest(config, module, os.environ).world
        return await _Run(world).run(arguments, state_dir)
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
    except ModuleRefused as refused:
        _say(str(refused))
    return EXIT_REFUSED


class _Run:
    def __init__(self, world: LocalWorld) -> None:
        self._world = world
        self._service = world.services[0]
        self._features = Features(world, ("127.0.0.1", 0), _backend_failed)
        self._backtrace = ""

    async def run(self, arguments: list[str], state_dir: Path) -> int:
        service, loop = self._service, asyncio.get_running_loop()
        modules = CompiledModules(state_dir, exceptions=False)
        compiler = await modules.start()
        async with modules.alone():
            artifact = await compiler.artifact_of(read_module(service.module, MAX_MODULE_BYTES))
        size = Size()
        runtime = ObservedRuntime(
            PoolSettings(1, size.memory_ceiling, size.table_ceiling),
            replaced(HOST_MODULES, _own_arguments(arguments)),
            loop,
            on_trap=self._trapped,
        )
        ended: asyncio.Future[tuple[Guest, Outcome]] = loop.create_future()
        cells = SharedCells.create(1)
        await self._features.start()
        try:
            await self._features.prepare(self._world)
            await self._features.commit(self._world)
            fd = open_artifact(artifact)
            try:
                template = runtime.load(
                    f"/proc/self/fd/{fd}",
                    service=service.name,
                    limits=MAX_RUN_LIMITS,
                    trap_unknown=True,
                )
            finally:
                os.close(fd)
            box = sandbox_maker(
                service=service,
                version=1,
                limits=MAX_RUN_LIMITS,
                ledger=Ledger(),
                log_line=lambda box, stream, text, cut: _print(f"{stream} :: ".encode(), text),
                clock_resolution_ns=1,
                capabilities=self._features.equip(
                    Version(service, 1), cells.worker(0).block(OTHER_BLOCK)
                ),
            )(_NoClient())
            streams = program_of(box).streams
            streams[1], streams[2] = _Output(1), _Output(2)

            def on_end(guest: Guest, outcome: Outcome) -> None:
                flush(box)
                box.close()
                ended.set_result((guest, outcome))

            runtime.start(template, box, on_end)
            guest, outcome = await ended
        finally:
            await self._features.aclose()
            runtime.close()
            cells.close()
        return self._status(guest, outcome)

    def _trapped(self, guest: Guest, backtrace: str) -> None:
        self._backtrace = backtrace

    def _status(self, guest: Guest, outcome: Outcome) -> int:
        if outcome.ending is Ending.OK:
            return 0
        if guest.exit_code is not None:
            return guest.exit_code & 0xFF
        _say(self._backtrace.strip() or f"{outcome.ending.value}: {outcome.detail}")
        return EXIT_TRAP


def _own_arguments(arguments: list[str]) -> dict[tuple[str, str], Callable[..., object]]:
    """The calls that give a program its arguments."""
    block = EMPTY.plus(os.fsencode(argument) for argument in arguments)

    def sizes(box: Sandbox) -> tuple[int, int]:
        return len(block.offsets), len(block.data)

    def place(box: Sandbox, pointers: int, buffer: int) -> None:
        block.place(box.memory, pointers, buffer)

    return {(WASI_PREVIEW1.name, "args_sizes_get"): sizes, (WASI_PREVIEW1.name, "args_get"): place}


class _Output(Stream):
    """A stream of ours as the program's own: it waits for us as any program's would."""

    __slots__ = ("_fd",)

    rights = COMMON_RIGHTS | Rights.FD_WRITE

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)


class _NoClient:
    """A `Downstream` without anybody behind it."""

    def __init__(self) -> None:
        self.head = RequestHead(b"GET", b"/", b"localhost", headers=[(b"host", b"localhost")])
        self.body = Body()
        self.client_address = self.server_address = bytes((127, 0, 0, 1))
        self.request_id = os.urandom(16).hex()
        self.responded = False
        self.wants_websocket = False

    def inform(self, status: int, headers: Headers) -> None:
        """Nobody listens."""

    def respond(self, head: ResponseHead, body: Body) -> None:
        self.responded = True
        body.discard()

    def hand_over(self, answer: Answer) -> None:
        self.responded = True

    def deliver(self, head: ResponseHead, body: Body, incoming: Body | None = None) -> None:
        body.discard()

    def abort(self) -> None:
        """Nobody is there."""


def _backend_failed(box: Sandbox, backend: Backend, failure: UpstreamFailed) -> None:
    _say(str(failure))


def _print(prefix: bytes, text: bytes) -> None:
    os.write(1, prefix + text + b"\n")


def _say(text: str) -> None:
    sys.stderr.write(f"edge-dev: {text}\n")

"""One worker process as the supervisor sees it: started fresh, spoken to, watched, ended, reaped.

It decides nothing: what its messages and its death mean is the fleet's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import edge
from edge.control import (
    MAX_TO_SUPERVISOR,
    Channel,
    Init,
    ToSupervisor,
    ToWorker,
    decode_to_supervisor,
)

# -I keeps the current directory, user packages and PYTHON* out; the one path it needs is named.
_BOOTSTRAP: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from edge.worker import main; main()"
)


HANG_UP_SECONDS: Final = 0.5


class Phase(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"  # no snapshot is served yet
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended.  `cause` is the metric's label: one of a few words."""

    cause: str
    detail: str  # for people


class WorkerProcess:
    """A worker and its channel.  `on_message` is called from the event loop."""

    def __init__(
        self,
        slot: int,
        *,
        on_message: Callable[[WorkerProcess, ToSupervisor], None],
    ) -> None:
        """Starts nothing before `start`."""
        self.slot = slot
        self.phase = Phase.STARTING
        self.pid = 0
        self.generation = 0  # that it serves
        self.asked = 0  # generation it was last asked to prepare and has not answered for
        self.told = 0  # generation it was last told to commit
        self.offered: frozenset[str] = frozenset()  # versions of `asked`, by digest
        self.holds: frozenset[str] = frozenset()  # versions that it need not be sent again
        self.behind = asyncio.Event()  # it is to be sent what is published
        self.engine_ready = False
        self.started_at = 0.0  # loop time, seconds
        self._on_message = on_message
        self._ended: asyncio.Future[End] | None = None
        self._killed = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._channel = Channel(
            limit=MAX_TO_SUPERVISOR, on_body=self._received, on_close=self._hung_up
        )

    async def start(self, init: Init, inherit: Sequence[int]) -> None:
        """Start the process and send it `init`.  OSError when there can be no process.

        The child gets no environment, no standard input and, besides `inherit`, one end of the
        socket pair.
        """
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        try:
            root = str(Path(edge.__file__).parent.parent)
            self._child = subprocess.Popen(  # noqa: ASYNC220 - returns once the child has exec'd
                [sys.executable, "-I", "-c", _BOOTSTRAP, root, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *inherit],
                env={},
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's to handle
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._child.pid
        self._ended = loop.create_future()
        self.started_at = loop.time()
        death = os.pidfd_open(self.pid)
        loop.add_reader(death, self._reap, death)
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: self._channel, sock=ours)
        self.send(init)

    async def wait(self) -> End:
        """How it ended, once it has been reaped."""
        assert self._ended is not None, "start() comes first"
        return await asyncio.shield(self._ended)

    def send(self, message: ToWorker) -> None:
        """Queue a message; lost when the worker is gone, which `wait` tells."""
        self._channel.send(message)

    def send_frame(self, frame: bytes) -> None:
        """`send` for a message that is encoded already."""
        self._channel.send_frame(frame)

    def kill(self, cause: str) -> None:
        """SIGKILL; `cause` becomes that of its `End`.  Harmless when it has ended."""
        if self._child is not None and self._child.returncode is None:
            self._killed = self._killed or cause
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()

    def _received(self, body: bytes) -> None:
        self._on_message(self, decode_to_supervisor(body))

    def _hung_up(self, reason: str) -> None:
        """A worker without its channel cannot be steered; usually it is about to be reaped."""
        if reason:
            self.kill("protocol")
        else:  # a process closes its sockets a moment before it can be waited for
            asyncio.get_running_loop().call_later(HANG_UP_SECONDS, self.kill, "hung_up")

    def _reap(self, death: int) -> None:
        assert self._child is not None
        asyncio.get_running_loop().remove_reader(death)
        os.close(death)
        status = self._child.wait()
        self.phase = Phase.ENDED
        self._channel.close()
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(_end(status, self._killed))


def _end(status: int, killed: str) -> End:
    if killed:
        return End(killed, f"killed by the supervisor: {killed}")
    if status < 0:
        with contextlib.suppress(ValueError):
            return End("signal", f"ended by {signal.Signals(-status).name}")
        return End("signal", f"ended by signal {-status}")
    return End("exit", f"exited with status {status}")

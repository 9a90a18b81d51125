"""A worker: one process, one loop, one thread that runs guests.  Started fresh by the supervisor.

It takes everything from the first message on its control socket and nothing from its environment.
It ends when told to drain, and at once when the control socket closes: without a supervisor nobody
would watch it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

from edge.control import (
    MAX_TO_WORKER,
    ControlError,
    Frames,
    Init,
    Unusable,
    decode_to_worker,
    encode,
)
from edge.errors import ConfigError

log = logging.getLogger("edge.worker")

# Hostcalls run on the guests' stacks (2 MiB): a Python recursion must end in an exception before
# the stack ends the process.
RECURSION_LIMIT = 200
EXIT_UNUSABLE = 78  # EX_CONFIG of sysexits.h
EXIT_ORPHANED = 70


def main() -> NoReturn:
    """Entry point; the one argument is the descriptor of the control socket."""
    # Before any engine: enabled after one, it takes the engine's signal handlers away, and the
    # first guest to leave its memory would kill the process.
    faulthandler.enable()
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # the supervisor speaks for us
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    try:
        init = _read_init(control)
    except (ControlError, OSError) as error:
        sys.stderr.write(f"worker: no orders: {error}\n")
        sys.exit(EXIT_ORPHANED)
    handed = (init.cells_fd, init.log_fd, init.watch_fd, *(item.fd for item in init.listeners))
    for fd in handed:
        if fd >= 0:
            os.set_inheritable(fd, False)
    # Here and not above: the heavy imports come after the orders, and after faulthandler.
    from edge.runtime.capi import die_with_parent
    from edge.serving import Serving

    die_with_parent(signal.SIGKILL)
    status = 0
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            serving = Serving(init, control, runner.get_loop())
            _settle()
            status = runner.run(serving.run())
    except ConfigError as error:
        frame = encode(Unusable(tuple(str(problem) for problem in error.problems)))
        with contextlib.suppress(OSError):
            control.sendall(frame)
        status = EXIT_UNUSABLE
    # Threads of the engine and the log may still be running; a worker has nothing to tidy up.
    sys.stderr.flush()
    os._exit(status)


def _read_init(control: socket.socket) -> Init:
    """The first message.  Blocks; the supervisor bounds how long.

    Nothing follows it: the supervisor waits for `Started` before it sends more.
    """
    frames = Frames(MAX_TO_WORKER)
    while True:
        data = control.recv(65536)
        if not data:
            raise ControlError("the supervisor closed the control socket")
        for body in frames.feed(data):
            message = decode_to_worker(body)
            if not isinstance(message, Init):
                raise ControlError(f"{type(message).__name__} before Init")
            return message


def _settle() -> None:
    """After the imports: what is there now stays, and hostile recursion ends early."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    gc.collect()
    gc.freeze()
    # The request path makes few cycles; the default of 700 collects every few dozen requests.
    gc.set_threshold(50_000, 20, 20)

"""Where a process of ours writes its log: one sink on an inherited descriptor, logging on top."""

from __future__ import annotations

import logging
import os
from typing import Final

from edge.errors import ConfigError, Problem
from edge.settings import Log
from edge.telemetry.layout import Total
from edge.telemetry.log_sink import LogSink
from edge.telemetry.server_log import ServerLogHandler
from edge.telemetry.shared import WorkerCells

STDOUT: Final = 1


def open_log(log: Log) -> int:
    """The descriptor that all processes write: stdout, or the file.  ConfigError if there is none.

    Opened once, by the supervisor, and inherited: a file that is moved away goes on being written
    until the server restarts.
    """
    if log.file is None:
        return STDOUT
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(log.file, flags, 0o640)
    except OSError as error:
        raise ConfigError(Problem("log.file", f"{log.file}: {error.strerror}")) from error


def start_log(
    log: Log, fd: int, *, lock_fd: int, process: str, cells: WorkerCells | None = None
) -> LogSink:
    """Start the sink and send everything of `logging` there.  `cells` count what is dropped."""
    sink = LogSink(
        fd,
        lock_fd=lock_fd,
        on_dropped=lambda lines: cells.add(Total.LOG_LINES_DROPPED, lines) if cells else None,
        on_failed=lambda lines: cells.add(Total.LOG_LINES_FAILED, lines) if cells else None,
    )
    sink.start()
    root = logging.getLogger()
    root.handlers = [ServerLogHandler(log.messages.value, sink, process=process)]
    root.setLevel(log.level.value.upper())
    logging.captureWarnings(capture=True)
    return sink

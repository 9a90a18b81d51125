"""What the developer reads: one line for each request, what guests print, and our own words.

Text that guests, clients or backends wrote cannot move the cursor or pretend to be a line of ours
in another place: control characters are shown, not sent.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from edge.local.seen import Seen
from edge.outcome import Ending
from edge.telemetry.log_sink import LogSink

_RED, _YELLOW, _GREEN, _DIM, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
_MIB: Final = 1024 * 1024
MAX_TARGET: Final = 512
# Endings that say no more than the status does.
_GOOD: Final = frozenset((Ending.OK, Ending.CLIENT_GONE))


class Console:
    """Implements `edge.local.seen.Watcher`."""

    def __init__(
        self,
        sink: LogSink,
        *,
        colour: bool = False,
        verbosity: int = 0,
        prefixed: frozenset[str] = frozenset(),
    ) -> None:
        """`prefixed`: those of stdout and stderr whose lines begin with their name."""
        self._sink = sink
        self._colour = colour
        self._verbosity = verbosity
        self._prefixed = prefixed
        self.several = False  # more than one service: say which

    # Our own words ----------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Something that went as it should."""
        self._put(shown(text))

    def detail(self, text: str) -> None:
        """Something for those who asked to know more."""
        if self._verbosity > 0:
            self._put(self._in(_DIM, shown(text)))

    def warn(self, text: str) -> None:
        """Something that may not be meant."""
        self._put(f"{self._in(_YELLOW, 'warning')}: {shown(text)}")

    def fail(self, text: str) -> None:
        """Something that could not be done."""
        self._put(f"{self._in(_RED, 'error')}: {shown(text)}")

    # Requests and guests ----------------------------------------------------------------------

    def line(self, service: str, request_id: str, stream: str, text: bytes) -> None:
        """As `Watcher.line`: endpoints by name, the program's own output bare."""
        said = shown(text.decode("utf-8", "backslashreplace"))
        if stream in ("stdout", "stderr") and stream not in self._prefixed:
            self._put(said)
        else:
            self._put(f"{self._in(_DIM, shown(stream) + ' ::')} {said}")

    def finished(self, seen: Seen) -> None:
        """As `Watcher.finished`."""
        outcome = seen.outcome
        colour = _GREEN if outcome.ending in _GOOD and seen.status < 500 else _RED
        who = f"[{seen.service or '-'}] " if self.several else ""
        word = self._in(colour, f"{seen.status or '---'} {outcome.ending.value}")
        target = seen.target if len(seen.target) <= MAX_TARGET else seen.target[:MAX_TARGET] + "..."
        numbers = (
            f"cpu {_duration(seen.cpu_ns)} wall {_duration(seen.wall_ns)} "
            f"memory {seen.memory / _MIB:.1f}MiB hostcalls {seen.hostcalls} "
            f"subrequests {seen.subrequests}"
        )
        self._put(f"{who}{shown(seen.method)} {shown(target)} {word} {self._in(_DIM, numbers)}")
        if outcome.ending is not Ending.OK and outcome.detail:
            limit = f" ({outcome.value} of {outcome.limit})" if outcome.limit else ""
            setting = outcome.setting.rpartition(".limits.")[2] if outcome.limit else ""
            hint = f"; local_server.limits.{setting} raises it" if setting else ""
            self._put(f"  {shown(outcome.detail)}{limit}{hint}")
        for frame in _frames(seen.backtrace):
            self._put(f"  {shown(frame)}")
        if self._verbosity > 1:
            for call in seen.calls:
                self._put(self._in(_DIM, f"    {call.name} -> {call.status}"))
            if seen.calls_left_out:
                self._put(self._in(_DIM, f"    and {seen.calls_left_out} more"))

    # ------------------------------------------------------------------------------------------

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def _put(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S ") if self._verbosity > 0 else ""
        self._sink.put(f"{stamp}{text}\n")


class ConsoleHandler(logging.Handler):
    """What our parts log, as warnings and errors of the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """An error in here never reaches the code that logged."""
        try:
            text = record.getMessage()
            for name in ("service", "hostcall", "reason", "detail", "error"):
                value = getattr(record, name, None)
                if value:
                    text += f" {name}={value}"
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            if record.levelno >= logging.ERROR:
                self._console.fail(text)
            elif record.levelno >= logging.WARNING:
                self._console.warn(text)
            else:
                self._console.detail(text)
        except Exception:
            self.handleError(record)


def shown(text: str) -> str:
    """Text with everything escaped that could move a cursor, and nothing else."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter == "\t" or letter.isprintable() else ascii(letter)[1:-1] for letter in text
    )


def _duration(nanoseconds: int) -> str:
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.0f}us"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1e6:.1f}ms"
    return f"{nanoseconds / 1e9:.2f}s"


def _frames(backtrace: str) -> list[str]:
    """The lines of a backtrace that name functions."""
    return [line.strip() for line in backtrace.splitlines() if line.strip()[:1].isdigit()]

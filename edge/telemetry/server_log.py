"""Our own operational log: a standard logging handler that writes to the same sink as the rest.

Code calls `logging` as ever and passes facts in `extra`; they become fields of the line.
"""

from __future__ import annotations

import logging
import math
import traceback
from typing import Final, Literal

from edge.telemetry.escape import json_string, plain, word
from edge.telemetry.log_sink import LogSink
from edge.telemetry.timestamp import Timestamps

_MAX_MESSAGE: Final = 8 * 1024  # characters
_MAX_FIELD: Final = 1024
_MAX_FIELDS: Final = 32
_MAX_TRACEBACK: Final = 16 * 1024
_STANDARD: Final = frozenset(
    (*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime", "taskName")
)


class ServerLogHandler(logging.Handler):
    """Formats at once (these lines are few) and never waits."""

    def __init__(
        self, form: Literal["json", "text"], sink: LogSink, *, process: str = "supervisor"
    ) -> None:
        """`process` says who speaks: `supervisor`, `worker-0`."""
        super().__init__()
        self._json = form == "json"
        self._sink = sink
        self._process = process
        self._stamp = Timestamps()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line.  An error in here never reaches the code that logged."""
        try:
            self._sink.put(self._line(record))
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str:
        message = _tail_cut(record.getMessage(), _MAX_MESSAGE)
        level = record.levelname.lower()
        fields = [(key, value) for key, value in vars(record).items() if key not in _STANDARD]
        trace = _trace(record)
        time = self._stamp(record.created)
        if self._json:
            extra = ",".join(
                f"{json_string(key)}:{_json_value(value)}" for key, value in fields[:_MAX_FIELDS]
            )
            return (
                f'{{"time":"{time}","level":"{level}","logger":{json_string(record.name)},'
                f'"process":{json_string(self._process)},"message":{json_string(message)}'
                + (f',"fields":{{{extra}}}' if extra else "")
                + (f',"traceback":{json_string(trace)}' if trace else "")
                + "}\n"
            )
        extra = "".join(
            f" {word(key)}={word(_tail_cut(str(value), _MAX_FIELD))}"
            for key, value in fields[:_MAX_FIELDS]
        )
        return (
            f"server {time} {level} {word(self._process)} {word(record.name)}: {plain(message)}"
            + extra
            + (f" traceback={word(trace)}" if trace else "")
            + "\n"
        )


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    text = "".join(traceback.format_exception(record.exc_info[1]))
    return text[-_MAX_TRACEBACK:]  # the end of a traceback is the part that says what happened


def _tail_cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}[+{len(text) - limit} characters]"


def _json_value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))
    return json_string(_tail_cut(str(value), _MAX_FIELD))

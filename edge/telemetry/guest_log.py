"""What guests print and log: lines of their own shape, that no guest can make look like ours.

In JSON all a guest says is inside `message`; in text every line begins with `guest`, and a line
cannot be ended from inside.  Bounded twice: a line is cut at 8 KiB here, and a request's total is
counted in its sandbox.
"""

from __future__ import annotations

from typing import Final, Literal

from edge.telemetry.escape import MAX_TEXT_BYTES, cut, json_string, plain_of, text_of, word
from edge.telemetry.log_sink import LogSink
from edge.telemetry.tap import Tap
from edge.telemetry.timestamp import Timestamps

MAX_WAITING: Final = 512
MAX_WAITING_BYTES: Final = 256 * 1024  # what one flush formats: under 2 ms at its worst


class GuestLog:
    """Collects lines in order; `flush` is called with the access log's, and here when many wait."""

    def __init__(self, form: Literal["json", "text"], sink: LogSink, *, worker: int = 0) -> None:
        """The access log's switch does not silence guests: give the format of its lines here."""
        self._format = self._json if form == "json" else self._text
        self._sink = sink
        self._worker = worker
        self.tap: Tap | None = None  # for those who watch
        self._stamp = Timestamps()
        self._waiting: list[str] = []
        self._bytes = 0

    def line(
        self, wall: float, service: str, version: str, request: str, stream: str, data: bytes
    ) -> int:
        """Take one line without its newline (others inside are escaped), `wall` in seconds.

        `stream`: stdout, stderr or the name of a log endpoint.  Returns how many bytes were cut.
        """
        kept, left_out = cut(data, MAX_TEXT_BYTES)
        self._waiting.append(self._format(wall, service, version, request, stream, kept, left_out))
        self._bytes += len(kept)
        if self.tap is not None:
            self.tap.guest(wall, service, version, request, stream[:256], kept, left_out)
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self.flush()
        return left_out

    def flush(self) -> None:
        """Hand what waits to the sink."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._bytes = 0
            self._sink.put("".join(waiting), len(waiting))

    def _json(
        self,
        wall: float,
        service: str,
        version: str,
        request: str,
        stream: str,
        data: bytes,
        left_out: int,
    ) -> str:
        mark = f',"truncated_bytes":{left_out}' if left_out else ""
        return (
            f'{{"time":"{self._stamp(wall)}","level":"info","guest":{{'
            f'"service":{json_string(service)},"version":{json_string(version)},'
            f'"request":{json_string(request)},"stream":{json_string(stream[:256])}}},'
            f'"worker":{self._worker},"message":{json_string(text_of(data))}{mark}}}\n'
        )

    def _text(
        self,
        wall: float,
        service: str,
        version: str,
        request: str,
        stream: str,
        data: bytes,
        left_out: int,
    ) -> str:
        mark = f" truncated={left_out}" if left_out else ""
        return (
            f"guest {self._stamp(wall)} {word(service)}/{word(version)} "
            f"request={word(request)} stream={word(stream[:256])} worker={self._worker}{mark} "
            f"{plain_of(data)}\n"
        )

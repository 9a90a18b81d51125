"""One line for each finished request: collected on the request path, formatted in batches.

Not the guests' own output (`guest_log.py`) and not ours (`server_log.py`): an access line begins
with the word `access`, or is the JSON object that has a `status` and no `message`.

The query of a target is left out unless asked for: tokens and mail addresses travel in queries,
and a log is kept longer and read by more people than a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from edge.outcome import Ending, Outcome
from edge.telemetry.escape import MAX_TEXT_BYTES, cut, json_string, text_of, word, word_of
from edge.telemetry.log_sink import LogSink
from edge.telemetry.tap import AccessRecord, Tap
from edge.telemetry.timestamp import Timestamps

AccessFormat = Literal["json", "text", "off"]

MAX_WAITING: Final = 512  # about 1 ms of formatting, and never more than one 50 ms timer's worth
_MAX_FIELD: Final = 1024  # of host and method, in bytes; `MAX_TEXT_BYTES` for the path
_FAST_CHARS: Final = 4096  # longer than this, all fields together take the careful way


class AccessLog:
    """Collects records; `flush` is called every 50 ms by a loop timer, and here when many wait."""

    def __init__(
        self, form: AccessFormat, sink: LogSink, *, worker: int = 0, query: bool = False
    ) -> None:
        """`query`: also log what follows the `?` of a target."""
        self.enabled = form != "off"  # whether records are wanted at all
        self.tap: Tap | None = None  # for those who watch; see `watch`
        self._written = self.enabled
        self._sink = sink
        self._worker = worker
        self._query = query
        self._as_json = form == "json"
        self._careful = self._careful_json if form == "json" else self._careful_text
        self._stamp = Timestamps()
        self._waiting: list[AccessRecord] = []

    def record(
        self,
        wall: float,
        request: str,
        client: str,
        service: str,
        version: str,
        method: bytes,
        host: bytes,
        target: bytes,
        status: int,
        outcome: Outcome,
        cpu_ns: int,
        wall_ns: int,
        memory_peak: int,
        bytes_in: int,
        bytes_out: int,
        hostcalls: int,
        queue_ns: int,
    ) -> None:
        """Note one finished request: `wall` in seconds since 1970, the rest in ns and bytes.

        `status` 0: nothing was sent.  Strings without a value are empty.
        """
        if self.enabled:
            waiting = self._waiting
            waiting.append((
                wall, request, client, service, version, method, host, target, status, outcome,
                cpu_ns, wall_ns, memory_peak, bytes_in, bytes_out, hostcalls, queue_ns,
            ))  # fmt: skip
            if len(waiting) >= MAX_WAITING:
                self.flush()

    def watch(self) -> None:
        """Who is followed has changed: records are wanted by the log, by followers, or by nobody.

        Without a log, records are there only while somebody follows.
        """
        self.enabled = self._written or (self.tap is not None and self.tap.follows)

    def flush(self) -> None:
        """Format what waits and hand it to the sink, and to the tap."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            if self._written:
                self._sink.put("".join(self._lines(waiting)), len(waiting))
            if self.tap is not None:
                self.tap.records(waiting)
                self.watch()  # what it expected may have come

    def _lines(self, records: list[AccessRecord]) -> list[str]:
        """The fast way for requests that ended well and have nothing to escape, else careful."""
        stamp, worker, as_json, lines = self._stamp, self._worker, self._as_json, []
        for record in records:
            (
                wall, request, client, service, version, method, host, target, status, outcome,
                cpu, took, memory, bytes_in, bytes_out, hostcalls, queue,
            ) = record  # fmt: skip
            try:
                verb, name, path = str(method, "ascii"), str(host, "ascii"), str(target, "ascii")
            except UnicodeDecodeError:
                lines.append(self._careful(record))
                continue
            text = f"{request}{client}{service}{version}{verb}{name}{path}"
            if (
                outcome.ending is not Ending.OK
                or len(text) > _FAST_CHARS
                or not text.isprintable()
                or '"' in text
                or "\\" in text
            ):
                lines.append(self._careful(record))
                continue
            if not self._query:
                path = path.partition("?")[0]
            if as_json:
                lines.append(
                    f'{{"time":"{stamp(wall)}","request":"{request}","client":"{client}",'
                    f'"service":"{service}","version":"{version}","method":"{verb}",'
                    f'"host":"{name}","path":"{path}","status":{status},"outcome":"ok",'
                    f'"cpu_us":{cpu // 1000},"wall_us":{took // 1000},"memory_bytes":{memory},'
                    f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},"hostcalls":{hostcalls},'
                    f'"queue_us":{queue // 1000},"worker":{worker}}}\n'
                )
            elif " " in text or not (request and client and service and version and name and path):
                lines.append(self._careful(record))
            else:
                lines.append(
                    f"access {stamp(wall)} {client} {service}/{version} {verb} {name} {path} "
                    f"{status} ok cpu={cpu // 1000}us wall={took // 1000}us memory={memory} "
                    f"in={bytes_in} out={bytes_out} hostcalls={hostcalls} "
                    f"queue={queue // 1000}us worker={worker} request={request}\n"
                )
        return lines

    def _careful_json(self, record: AccessRecord) -> str:
        (
            wall, request, client, service, version, method, host, target, status, outcome,
            cpu, took, memory, bytes_in, bytes_out, hostcalls, queue,
        ) = record  # fmt: skip
        why = "".join(
            f'"{key}":{json_string(_short(value))},' for key, value in _reasons(outcome) if value
        )
        return (
            f'{{"time":"{self._stamp(wall)}","request":{json_string(_short(request))},'
            f'"client":{json_string(_short(client))},"service":{json_string(_short(service))},'
            f'"version":{json_string(_short(version))},"method":{_wire(method, _json_of)},'
            f'"host":{_wire(host, _json_of)},"path":{self._path(target, _json_of)},'
            f'"status":{status},"outcome":"{outcome.ending.value}",{why}"cpu_us":{cpu // 1000},'
            f'"wall_us":{took // 1000},"memory_bytes":{memory},"bytes_in":{bytes_in},'
            f'"bytes_out":{bytes_out},"hostcalls":{hostcalls},"queue_us":{queue // 1000},'
            f'"worker":{self._worker}}}\n'
        )

    def _careful_text(self, record: AccessRecord) -> str:
        (
            wall, request, client, service, version, method, host, target, status, outcome,
            cpu, took, memory, bytes_in, bytes_out, hostcalls, queue,
        ) = record  # fmt: skip
        why = "".join(f" {key}={word(_short(value))}" for key, value in _reasons(outcome) if value)
        return (
            f"access {self._stamp(wall)} {word(_short(client))} "
            f"{word(_short(service))}/{word(_short(version))} {_wire(method, word_of)} "
            f"{_wire(host, word_of)} {self._path(target, word_of)} {status} {outcome.ending.value} "
            f"cpu={cpu // 1000}us wall={took // 1000}us memory={memory} in={bytes_in} "
            f"out={bytes_out} hostcalls={hostcalls} queue={queue // 1000}us "
            f"worker={self._worker} request={word(_short(request))}{why}\n"
        )

    def _path(self, target: bytes, escape: Callable[[bytes], str]) -> str:
        shown = target if self._query else target.partition(b"?")[0]
        return _wire(shown, escape, MAX_TEXT_BYTES)


def _reasons(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    return (
        ("detail", outcome.detail),
        ("value", outcome.value),
        ("limit", outcome.limit),
        ("setting", outcome.setting),
    )


def _wire(data: bytes, escape: Callable[[bytes], str], limit: int = _MAX_FIELD) -> str:
    kept, left_out = cut(data, limit)
    if not left_out:
        return escape(data)
    # Inside the field, but after all of the client's text that is kept.
    return escape(kept + b"[+%d-bytes]" % left_out)


def _json_of(data: bytes) -> str:
    return json_string(text_of(data))


def _short(text: str) -> str:
    if len(text) <= _MAX_FIELD:
        return text
    return f"{text[:_MAX_FIELD]}[+{len(text) - _MAX_FIELD}-characters]"

"""The three kinds of log line: what they hold, and that none can be made to look like another."""

from __future__ import annotations

import json
import logging
from typing import Literal

import pytest

from edge.outcome import OK, Ending, Outcome
from edge.telemetry.access_log import MAX_WAITING, AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.log_sink import LogSink
from edge.telemetry.server_log import ServerLogHandler

Format = Literal["json", "text"]
NOON = 1_795_348_800.0  # 2026-11-22T12:00:00Z


class Lines(LogSink):
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(2)
        self.texts: list[str] = []
        self.counts: list[int] = []

    def put(self, text: str, lines: int = 1) -> bool:
        self.texts.append(text)
        self.counts.append(lines)
        return True

    def take(self) -> list[str]:
        text = "".join(self.texts)
        assert text.endswith("\n")
        assert text.count("\n") == sum(self.counts)
        self.texts, self.counts = [], []
        lines = text[:-1].split("\n")
        for line in lines:
            assert line.isprintable()
            assert len(line.splitlines()) == 1
        return lines


@pytest.fixture
def sink() -> Lines:
    return Lines()


def record(
    log: AccessLog,
    *,
    wall: float = NOON,
    client: str = "192.0.2.1",
    method: bytes = b"GET",
    host: bytes = b"a.example",
    target: bytes = b"/p?token=1",
    outcome: Outcome = OK,
    status: int = 200,
    service: str = "hello",
) -> None:
    log.record(
        wall, "r1", client, service, "3", method, host, target, status, outcome,
        30_999, 45_000, 65536, 1, 2, 7, 0,
    )  # fmt: skip


OVER = Outcome(Ending.CPU_LIMIT, "too long", "50.3ms", "50ms", "services.hello.limits.cpu")


def test_an_access_record_in_json_has_every_field(sink: Lines) -> None:
    log = AccessLog("json", sink, worker=4)
    record(log, wall=NOON + 0.0129)
    log.flush()
    expected = {
        "time": "2026-11-22T12:00:00.012Z", "request": "r1", "client": "192.0.2.1",
        "service": "hello", "version": "3", "method": "GET", "host": "a.example", "path": "/p",
        "status": 200, "outcome": "ok", "cpu_us": 30, "wall_us": 45, "memory_bytes": 65536,
        "bytes_in": 1, "bytes_out": 2, "hostcalls": 7, "queue_us": 0, "worker": 4,
    }  # fmt: skip
    assert json.loads(sink.take()[0]) == expected


def test_a_limit_hit_says_what_was_measured_allowed_and_which_setting(sink: Lines) -> None:
    log = AccessLog("json", sink)
    record(log, outcome=OVER, status=500)
    log.flush()
    line = json.loads(sink.take()[0])
    assert line["outcome"] == "cpu_limit"
    assert line["detail"] == "too long"
    assert (line["value"], line["limit"]) == ("50.3ms", "50ms")
    assert line["setting"] == "services.hello.limits.cpu"
    log = AccessLog("text", sink)
    record(log, outcome=OVER, status=500)
    log.flush()
    assert sink.take()[0].endswith(
        " request=r1 detail=too\\x20long value=50.3ms limit=50ms setting=services.hello.limits.cpu"
    )


def test_an_access_record_in_text_is_one_line_of_words(sink: Lines) -> None:
    log = AccessLog("text", sink, worker=4)
    record(log)
    log.flush()
    assert sink.take() == [
        "access 2026-11-22T12:00:00.000Z 192.0.2.1 hello/3 GET a.example /p 200 ok cpu=30us "
        "wall=45us memory=65536 in=1 out=2 hostcalls=7 queue=0us worker=4 request=r1"
    ]


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_fast_and_the_careful_way_write_the_same_line(form: Format, sink: Lines) -> None:
    log = AccessLog(form, sink)
    record(log)
    fast = log._lines(log._waiting)
    assert fast == [log._careful(log._waiting[0])]


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_query_is_logged_only_when_asked_for(form: Format, sink: Lines) -> None:
    for query in (False, True):
        log = AccessLog(form, sink, query=query)
        for target in (b"/p?token=1", b"/p\xff?token=1"):
            record(log, target=target)
        log.flush()
        assert ["token" in line for line in sink.take()] == [query, query]


HOSTILE = [
    b'/"}\n{"time":"x"', b"/\r\naccess forged", b"/\x1b[2J", b"/\x7f", b"/\xc2\x9b31m",
    b"/\xff\xfe",
    "/\u202egnp.exe".encode(), b"/\\u0000\\", b"/ 200 ok", b"", b"/" + b"\xff" * 20_000,
    "/é".encode(), b"/" + b'"' * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE, ids=lambda target: ascii(target[:20]))
def test_a_hostile_request_stays_one_safe_line(target: bytes, sink: Lines) -> None:
    log = AccessLog("json", sink)
    record(log, target=target, host=target, method=target)
    record(log)
    log.flush()
    first, second = map(json.loads, sink.take())
    assert first["status"] == 200
    assert second["path"] == "/p"
    log = AccessLog("text", sink)
    record(log, target=target, host=target, method=target)
    record(log, service="", host=b"")
    log.flush()
    one, two = (line.split(" ") for line in sink.take())
    assert len(one) == len(two) == 18
    assert one[0] == two[0] == "access"
    assert two[3] == "-/3"
    assert max(len(word) for word in one) <= 8192 * 4 + 64


def test_off_writes_nothing(sink: Lines) -> None:
    log = AccessLog("off", sink)
    record(log)
    log.flush()
    assert sink.texts == []
    assert not log.enabled


def test_many_waiting_records_are_flushed_without_a_timer(sink: Lines) -> None:
    log = AccessLog("json", sink)
    for _ in range(MAX_WAITING + 1):
        record(log)
    assert sink.counts == [MAX_WAITING]


def test_a_guests_line_is_json_of_its_own_shape(sink: Lines) -> None:
    log = GuestLog("json", sink, worker=2)
    forged = b'{"time":"x","status":200,"outcome":"ok"}\n{"status":200}'
    assert log.line(NOON, "hello", "3", "r1", "stdout", forged) == 0
    log.flush()
    assert json.loads(sink.take()[0]) == {
        "time": "2026-11-22T12:00:00.000Z",
        "level": "info",
        "guest": {"service": "hello", "version": "3", "request": "r1", "stream": "stdout"},
        "worker": 2,
        "message": forged.decode(),
    }


def test_a_guests_line_in_text_begins_with_guest_and_cannot_end_early(sink: Lines) -> None:
    log = GuestLog("text", sink)
    log.line(NOON, "hello", "3", "r1", "my log\x1b", b"hi\r\naccess 2026 forged\x1b[1m \xc2\x85")
    log.flush()
    assert sink.take() == [
        "guest 2026-11-22T12:00:00.000Z hello/3 request=r1 stream=my\\x20log\\x1b worker=0 "
        "hi\\r\\naccess 2026 forged\\x1b[1m \\x85"
    ]


def test_a_long_guest_line_is_cut_with_a_mark_outside_its_own_text(sink: Lines) -> None:
    data = b"a" * 8191 + "€ truncated_bytes".encode()
    for form in ("json", "text"):
        log = GuestLog(form, sink)
        assert log.line(NOON, "hello", "3", "r1", "stderr", data) == len(data) - 8191
        log.flush()
    as_json, as_text = sink.take()
    line = json.loads(as_json)
    assert line["message"] == "a" * 8191
    assert line["truncated_bytes"] == len(data) - 8191
    assert f" truncated={len(data) - 8191} aaa" in as_text


def test_a_flood_of_guest_lines_is_handed_on_in_bounded_batches(sink: Lines) -> None:
    log = GuestLog("json", sink)
    for _ in range(100):
        log.line(NOON, "hello", "3", "r1", "stdout", b"\xff" * 9000)
    assert max(sink.counts) == 32  # 256 KiB of kept text
    for _ in range(1000):
        log.line(NOON, "hello", "3", "r1", "stdout", b"")
    assert max(sink.counts) <= 512


def logger(sink: Lines, form: Format) -> logging.Logger:
    found = logging.Logger("edge.test")  # outside the global tree: nothing to undo
    found.addHandler(ServerLogHandler(form, sink, process="worker-1"))
    return found


def test_our_own_log_carries_extra_fields(sink: Lines) -> None:
    extra = {"version": 3, "ok": True, "took": 1.5, "none": None, "why": 'a"b\x1b'}
    logger(sink, "json").warning("activated %s", "x", extra=extra)
    line = json.loads(sink.take()[0])
    assert line["level"] == "warning"
    assert line["logger"] == "edge.test"
    assert line["process"] == "worker-1"
    assert line["message"] == "activated x"
    assert line["fields"] == extra
    logger(sink, "text").warning("activated\n%s", "x", extra=extra)
    line = sink.take()[0]
    assert line.startswith("server 20")
    assert line.endswith(
        " warning worker-1 edge.test: activated\\nx version=3 ok=True took=1.5 none=None "
        "why=a\\x22b\\x1b"
    )


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_is_one_line(form: Format, sink: Lines) -> None:
    try:
        raise RuntimeError("broken\npipe")
    except RuntimeError:
        logger(sink, form).exception("fault")
    line = sink.take()[0]
    assert "RuntimeError" in line
    assert "traceback" in line


def test_a_line_of_ours_is_bounded(sink: Lines) -> None:
    extra = {f"field{n}": "v" * 100_000 for n in range(100)}
    logger(sink, "json").error("m" * 100_000, extra=extra)
    assert len(sink.take()[0]) < 48 * 1024


def test_what_cannot_be_formatted_never_reaches_the_caller(
    sink: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger(sink, "json").error("%d", "not a number")
    assert sink.texts == []

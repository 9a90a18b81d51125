"""The access log's records reach those who watch, and cost nothing when nobody does."""

from __future__ import annotations

import os

from edge.outcome import OK
from edge.telemetry.access_log import AccessLog
from edge.telemetry.lines import LineReader
from edge.telemetry.log_sink import LogSink
from edge.telemetry.tap import Tap


def record(log: AccessLog, request: str) -> None:
    log.record(
        1.0, request, "127.0.0.1", "shop", "1", b"GET", b"a.test", b"/", 200, OK,
        1, 2, 3, 4, 5, 6, 7,
    )  # fmt: skip


def test_without_a_log_records_are_there_only_while_somebody_wants_them() -> None:
    sent: list[bytes] = []
    null = os.open(os.devnull, os.O_WRONLY)
    sink = LogSink(null)
    log = AccessLog("off", sink)

    def send(data: bytes) -> bool:
        sent.append(data)
        return True

    log.tap = Tap(send, lambda: 1.0)
    log.watch()
    before = log.enabled
    log.tap.expect("one")
    log.watch()
    record(log, "one")
    during = log.enabled
    log.flush()
    log.tap.flush()
    assert (before, during, log.enabled) == (False, True, False)
    (line,) = LineReader(0).read(sent[0]).lines
    assert line.facts["request"] == "one"
    log.tap.follow(["shop"], everything=False)
    log.watch()
    record(log, "two")
    log.flush()
    assert sink.statistics().waiting == 0  # nothing of it is for the log
    os.close(null)

"""What the developer reads of a request."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import pytest

from edge.dev.console import Console, ConsoleHandler
from edge.local.seen import Call, Seen
from edge.outcome import Ending, Outcome
from edge.telemetry.log_sink import LogSink

SEEN = Seen(
    request_id="0" * 32, service="shop", method="GET", host="edge.test", target="/a?b", status=200,
    outcome=Outcome(Ending.OK), cpu_ns=1_234_000, wall_ns=2_500_000_000, memory=3 << 20,
    bytes_in=0, bytes_out=5, hostcalls=7, subrequests=2, backtrace="",
    calls=(Call("fastly_http_req.send", 5),), calls_left_out=3,
)  # fmt: skip


class Page:
    """A console and what it wrote."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._sink = LogSink(self._write)

    def console(self, **options: object) -> Console:
        return Console(self._sink, **options)  # type: ignore[arg-type]

    def text(self) -> str:
        self._sink.start()
        self._sink.close()
        os.close(self._write)
        with open(self._read, "rb") as file:
            return file.read().decode()


@pytest.fixture
def page() -> Page:
    return Page()


def test_a_request_is_one_line(page: Page) -> None:
    page.console().finished(SEEN)
    assert page.text() == (
        "GET /a?b 200 ok cpu 1.2ms wall 2.50s memory 3.0MiB hostcalls 7 subrequests 2\n"
    )


def test_several_services_are_named(page: Page) -> None:
    console = page.console()
    console.several = True
    console.finished(SEEN)
    assert page.text().startswith("[shop] GET /a?b 200 ok ")


def test_a_limit_says_what_raises_it(page: Page) -> None:
    outcome = Outcome(Ending.CPU_LIMIT, "too long", "51ms", "50ms", "services.shop.limits.cpu")
    page.console().finished(replace(SEEN, status=503, outcome=outcome))
    assert page.text().splitlines()[1] == (
        "  too long (51ms of 50ms); local_server.limits.cpu raises it"
    )


def test_a_backtrace_is_shown_without_what_surrounds_it(page: Page) -> None:
    backtrace = (
        "error while executing at wasm backtrace:\n    0: 0x51 - app!f\n\nCaused by:\n  trap"
    )
    outcome = Outcome(Ending.TRAP, "unreachable")
    page.console().finished(replace(SEEN, status=500, outcome=outcome, backtrace=backtrace))
    assert page.text().splitlines()[1:] == ["  unreachable", "  0: 0x51 - app!f"]


def test_calls_are_listed_when_asked_for(page: Page) -> None:
    page.console(verbosity=2).finished(SEEN)
    lines = page.text().splitlines()
    assert lines[1].endswith("    fastly_http_req.send -> 5")
    assert lines[2].endswith("    and 3 more")


def test_nothing_that_others_wrote_moves_the_cursor(page: Page) -> None:
    console = page.console()
    console.line("shop", "0" * 32, "stdout", "tab\tand \x1b[2J \u202e\N{SNOWMAN} \\ ü".encode())
    console.line("shop", "0" * 32, "end\x1bpoint", b"\xff\r\n")
    console.finished(replace(SEEN, target="/\x9b2J", method="GET\x07"))
    text = page.text()
    assert text.splitlines()[0] == "tab\tand \\x1b[2J \\u202e\N{SNOWMAN} \\ ü"
    assert text.splitlines()[1] == "end\\x1bpoint :: \\xff\\r\\n"
    assert "GET\\x07 /\\x9b2J " in text
    assert not set(text) & {"\x1b", "\x9b", "\x07", "\r", "\u202e"}


def test_a_long_target_is_cut(page: Page) -> None:
    page.console().finished(replace(SEEN, target="/" + "x" * 9000))
    assert len(page.text()) < 1000


def test_our_own_log_becomes_warnings_with_their_facts(page: Page) -> None:
    handler = ConsoleHandler(page.console())
    log = logging.Logger("edge.test")
    log.addHandler(handler)
    log.warning("not supported", extra={"hostcall": "fastly_cache.lookup"})
    log.info("only for those who asked")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("broken")
    assert page.text().splitlines() == [
        "warning: not supported hostcall=fastly_cache.lookup",
        "error: broken: ValueError('why')",
    ]

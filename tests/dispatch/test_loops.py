"""A request that has come by too often is answered before it costs a sandbox."""

from __future__ import annotations

from pathlib import Path

from edge.http.cdn_loop import MOST_BYTES, MOST_VISITS, value_with_us
from edge.outcome import Ending
from tests.support.downstream import Town, outcome_of, status_of, town
from tests.support.guests import GUESTS
from tests.support.transport import Driven

HELLO = (GUESTS / "wat" / "hello.wat").read_text()


def ask(there: Town, *values: bytes, name: bytes = b"CDN-Loop") -> Driven:
    fields = b"".join(name + b": " + value + b"\r\n" for value in values)
    return there.ask("hello", b"GET / HTTP/1.1\r\nHost: hello\r\n" + fields + b"\r\n")


def test_the_sixth_visit_is_answered_508_without_a_sandbox(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        value = b""
        for _ in range(MOST_VISITS):
            value = value_with_us([value], b"hello")
            assert status_of(ask(there, value)) == 200
        value = value_with_us([value], b"hello")
        client = ask(there, value)
        assert (status_of(client), outcome_of(client)) == (508, "loop")
        assert there.count("hello", Ending.LOOP) == 1
        assert there.count("hello", Ending.OK) == MOST_VISITS


def test_every_line_of_the_field_counts_however_it_is_spelt(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        ours = b"edge-server; s=hello"
        for name in (b"cdn-loop", b"CDN-LOOP", b"Cdn-Loop"):
            assert status_of(ask(there, *[ours] * (MOST_VISITS + 1), name=name)) == 508


def test_other_servers_and_other_services_may_be_passed_more_often(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        assert status_of(ask(there, b"fastly", *[b"edge-server; s=cart"] * 20)) == 200


def test_a_field_too_long_to_be_read_is_a_loop(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        assert status_of(ask(there, b"a" * MOST_BYTES)) == 508

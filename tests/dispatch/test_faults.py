"""A bug of ours in the middle of a request: whatever it broke, no client is left waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge.dispatch.visit import Visit
from edge.model.limits import DEFAULT_LIMITS
from edge.outcome import Ending
from edge.server.exchange import Exchange
from tests.support.downstream import outcome_of, status_of, town
from tests.support.guests import GUESTS
from tests.support.runtime import SMALL_POOL, program

HELLO = (GUESTS / "wat" / "hello.wat").read_text()


def _failing_once(monkeypatch: pytest.MonkeyPatch, *, taken: bool) -> Callable[..., None]:
    """`Exchange.respond` with a bug in it; the next call finds the real one again."""
    real = Exchange.respond

    def respond(exchange: Exchange, *_: object) -> None:
        monkeypatch.setattr(Exchange, "respond", real)
        exchange.responded = taken
        raise RuntimeError("a bug of ours")

    return respond


@pytest.mark.parametrize("taken", [True, False])
def test_a_fault_while_responding_ends_in_a_page_or_a_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, taken: bool
) -> None:
    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        monkeypatch.setattr(Exchange, "respond", _failing_once(monkeypatch, taken=taken))
        client = there.ask("hello")
        there.until(client)
        assert there.count("hello", Ending.FAULT) == 1
        if taken:
            assert client.transport.aborted
            assert client.received == b""
        else:
            assert (status_of(client), outcome_of(client)) == (500, "fault")
            assert b"a bug of ours" not in client.received
        again = there.ask("hello")
        assert status_of(again) == 200


def test_a_fault_before_the_guest_exists_gives_its_slot_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(visit: Visit) -> None:
        raise RuntimeError("a bug of ours")

    with town() as there:
        there.deploy(tmp_path, "hello", HELLO)
        with monkeypatch.context() as broken:
            broken.setattr(Visit, "start", start)
            clients = [there.ask("hello") for _ in range(2 * SMALL_POOL.slots)]
        assert {status_of(client) for client in clients} == {500}
        assert status_of(there.ask("hello")) == 200


def test_a_fault_while_starting_a_request_that_waited_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(visit: Visit) -> None:
        raise RuntimeError("a bug of ours")

    with town(replace(SMALL_POOL, slots=1)) as there:
        limits = replace(DEFAULT_LIMITS, slots=1.0, cpu=0.1)
        there.deploy(tmp_path, "busy", program("(loop (br 0))", "http_body.new"), limits)
        there.deploy(tmp_path, "hello", HELLO, limits)
        busy, waiting = there.ask("busy"), there.ask("hello")
        monkeypatch.setattr(Visit, "start", start)
        there.until(busy, waiting)
        assert (status_of(waiting), outcome_of(waiting)) == (500, "fault")

"""A guest that leaves the answering to a backend: its end is not the end of the request."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.abi.capabilities import Capabilities
from edge.abi.sandbox import Sandbox
from edge.outcome import Ending
from edge.upstream.fetch import Cause
from tests.support.downstream import Town, outcome_of, status_of, town
from tests.support.fake_upstream import ORIGIN, FakeUpstream
from tests.support.runtime import program
from tests.support.transport import Driven

SEND = """
  (call $must (call $http_req.body_downstream_get (i32.const 0) (i32.const 4)))
  (call $must (call $http_req.send_async (i32.load (i32.const 0)) (i32.load (i32.const 4))
    (i32.const 64) (i32.const 6) (i32.const 8)))
  (call $must (call $http_resp.send_downstream_pending (i32.load (i32.const 8))))
"""
IMPORTS = ("http_req.body_downstream_get", "http_req.send_async",
           "http_resp.send_downstream_pending", "wasi.proc_exit")  # fmt: skip
NAME = '(data (i32.const 64) "origin")'
ENDINGS = {"returns": ("", Ending.OK), "traps": ("unreachable", Ending.TRAP)}


def deploy(
    there: Town, directory: Path, then: str, monkeypatch: pytest.MonkeyPatch
) -> FakeUpstream:
    """A service `pass` that hands its client over, then does something; its backends."""
    upstream = FakeUpstream()
    monkeypatch.setattr(Sandbox, "capabilities", Capabilities(upstream, {"origin": ORIGIN}))
    there.deploy(directory, "pass", program(SEND + then, *IMPORTS, extra=NAME))
    for deployed in there.dispatcher._deployed:
        monkeypatch.setattr(
            deployed.make_sandbox, "capabilities", Sandbox.capabilities, raising=False
        )
    return upstream


def answer(there: Town, client: Driven) -> None:
    there.until(client)
    there.settle()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_backends_response_comes_after_the_guests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    then, expected = ENDINGS[ending]
    with town() as there:
        upstream = deploy(there, tmp_path, then, monkeypatch)
        client = there.ask("pass")
        assert there.arena.runtime.live == 0, "the guest has ended"
        assert client.received == b"", "and has not answered"
        upstream.sent[0].respond(203, [(b"x", b"1")], b"from the backend")
        answer(there, client)
        assert status_of(client) == 203
        assert client.received.endswith(b"from the backend")
        assert there.count("pass", expected) == 1
        assert there.dispatcher.ledger.held == 0


def test_a_failure_after_the_guests_end_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with town() as there:
        upstream = deploy(there, tmp_path, "", monkeypatch)
        client = there.ask("pass")
        upstream.sent[0].fail(Cause.HTTP_RESPONSE_TIMEOUT)
        answer(there, client)
        assert status_of(client) == 504
        assert outcome_of(client) == "", "the guest did nothing wrong"


def test_a_client_that_leaves_gives_up_what_was_to_answer_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with town() as there:
        upstream = deploy(there, tmp_path, "", monkeypatch)
        client = there.ask("pass")
        client.connection.connection_lost(None)
        assert upstream.sent[0].abandoned
        assert there.count("pass", Ending.CLIENT_GONE) == 1

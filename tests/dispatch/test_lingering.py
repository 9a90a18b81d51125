"""Responses that stream on after their guest: whose memory they are, and how they give way."""

from __future__ import annotations

from pathlib import Path

from edge.outcome import Ending
from edge.runtime.engine import MIB
from tests.support.downstream import status_of, town
from tests.support.reusing import ANSWER, CONTENT, OUT, load, must, on, serving, settle

# A megabyte, in writes of a page each: more than any socket takes at once.
MEGABYTE = (
    "(local.set $i (i32.const 16)) (loop $page "
    + must("http_body.write", load(CONTENT), 0, 65_536, 0, OUT)
    + "(br_if $page (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
)
SEND = must("http_resp.send_downstream", load(24), load(CONTENT), 0)
HEAD = must("http_resp.new", 24) + must("http_body.new", CONTENT)


def test_a_response_outlives_a_guest_that_served_another_and_gives_way_to_memory_pressure(
    tmp_path: Path,
) -> None:
    with town() as there:
        answer = on(1, HEAD + MEGABYTE + SEND) + on(2, ANSWER)
        there.deploy(tmp_path, "shop", serving(answer=answer, after="unreachable"))
        slow = there.ask("shop", reads=False)
        settle(there)
        quick = there.ask("shop")
        there.until(quick)
        there.dispatcher.idle.dismiss()
        settle(there)
        assert there.arena.runtime.live == 0, "the guest has ended"
        (lingering,) = there.dispatcher.streaming
        assert lingering.memory_held > MIB // 2
        there.dispatcher.memory_budget = 0
        there.dispatcher.relieve_memory()
        settle(there)
        assert slow.transport.aborted
        assert there.dispatcher.ledger.held == 0
        assert not there.dispatcher.streaming
        assert status_of(quick) == 200
        assert there.count("shop", Ending.MEMORY_PRESSURE) == 1

"""A response whose body is left unfinished: the client sees a reset, the operator an outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.outcome import Ending
from tests.support.downstream import town
from tests.support.reusing import CONTENT, OUT, RESPONSE, load, must
from tests.support.runtime import program

HEAD = must("http_resp.new", RESPONSE) + must("http_body.new", CONTENT)
STREAM = must("http_resp.send_downstream", load(RESPONSE), load(CONTENT), 1)
WRITE = must("http_body.write", load(CONTENT), 0, 64, 0, OUT)
CALLS = (
    "http_resp.new", "http_body.new", "http_resp.send_downstream", "http_body.write",
    "http_body.close", "http_body.abandon",
)  # fmt: skip


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        ("", Ending.INCOMPLETE),
        (must("http_body.abandon", load(CONTENT)), Ending.INCOMPLETE),
        (must("http_body.close", load(CONTENT)), Ending.OK),
        ("(unreachable)", Ending.TRAP),
    ],
    ids=["left open", "abandoned", "closed", "trapped"],
)
def test_a_body_that_its_guest_does_not_finish_is_told_as_incomplete(
    tmp_path: Path, end: str, ending: Ending
) -> None:
    with town() as there:
        there.deploy(tmp_path, "shop", program(HEAD + STREAM + WRITE + end, *CALLS))
        client = there.ask("shop")
        there.until(client)
        assert client.received.startswith(b"HTTP/1.1 200")
        assert client.received.endswith(b"0\r\n\r\n") is (ending is Ending.OK)
        assert there.count("shop", ending) == 1

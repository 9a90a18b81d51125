"""What a sandbox charges for: handles, and everything that goes when its guest lets go."""

from __future__ import annotations

import pytest

from edge.abi.fastly.status import Status
from edge.abi.sandbox import HANDLE_COST, HANDLE_LOT
from edge.errors import LimitExceeded
from edge.http.body import JOIN_BELOW, Body
from edge.model.limits import Limits
from tests.support.fastly_guest import FastlyGuest
from tests.support.sandboxes import make_sandbox


def test_the_first_handles_are_free_and_the_rest_are_paid_for_in_lots() -> None:
    made = make_sandbox()
    for _ in range(HANDLE_LOT):
        made.box.insert(Body())
    assert made.box.account.held == 0
    made.box.insert(Body())
    assert made.box.account.held == HANDLE_LOT * HANDLE_COST
    made.box.close()
    assert made.box.account.held == 0


def test_handles_end_at_their_limit_however_they_are_made() -> None:
    guest = FastlyGuest(limits=Limits(handles=HANDLE_LOT + 10))
    out = guest.room(4)
    statuses = [guest.do("http_body.new", out) for _ in range(HANDLE_LOT + 11)]
    assert statuses == [Status.OK] * (HANDLE_LOT + 10) + [Status.LIMITEXCEEDED]
    with pytest.raises(LimitExceeded):
        guest.box.insert(Body())


def test_many_small_appends_are_few_pieces() -> None:
    dest = Body()
    for _ in range(10_000):
        source = Body()
        source.write(b"ab")
        dest.append(source)
    assert dest.known_length == 20_000
    pieces = 0
    while dest.read(1 << 20):
        pieces += 1
    assert pieces <= 20_000 // JOIN_BELOW + 1


def test_trailers_of_a_dropped_body_are_given_back() -> None:
    guest = FastlyGuest()
    out = guest.room(4)
    name, value = guest.put(b"x-t"), guest.put(b"v" * 900)
    for drop in ("http_body.close", "http_body.abandon"):
        assert guest.do("http_body.new", out) == Status.OK
        body = guest.u32_at(out)
        assert guest.do("http_body.trailer_append", body, *name, *value) == Status.OK
        assert guest.box.account.held > 900
        assert guest.do(drop, body) == Status.OK
        assert guest.box.account.held == 0


def test_a_head_that_cannot_be_sent_is_given_back() -> None:
    guest = FastlyGuest()
    out = guest.room(4)
    assert guest.do("http_resp.new", out) == Status.OK
    head = guest.u32_at(out)
    name, value = guest.put(b"x-large"), guest.put(b"v" * 2000)
    assert guest.do("http_resp.header_append", head, *name, *value) == Status.OK
    assert guest.box.account.held > 2000
    assert guest.do("http_resp.send_downstream", head, 999, 0) == Status.BADF
    assert guest.box.account.held == 0
    assert guest.do("http_resp.status_get", head, out) == Status.BADF

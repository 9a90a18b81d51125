"""Requests that are on their way: polling, waiting, selecting, and changes to what will come."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from edge.upstream.fetch import Cause
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import INVALID
from tests.support.loop import in_loop, turns

WAITS = ["http_req.pending_req_wait", "http_req.pending_req_wait_v2"]
POLLS = ["http_req.pending_req_poll", "http_req.pending_req_poll_v2"]
SELECTS = ["http_req.pending_req_select", "http_req.pending_req_select_v2"]
DETAIL = 128


def detailed(name: str) -> tuple[int, ...]:
    return (DETAIL,) if name.endswith("v2") else ()


@pytest.mark.parametrize("name", WAITS)
@in_loop
async def test_wait_waits_and_consumes_the_handle(name: str) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert guest.begin(name, pending, *detailed(name), 64, 68) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    assert not waiting.done()
    guest.last.respond(201, body=b"made")
    assert await waiting == Status.OK
    assert guest.get("http_resp.status_get", guest.u32_at(64), width=2) == 201
    assert guest.read_all(guest.u32_at(68)) == b"made"
    assert guest.do(name, pending, *detailed(name), 64, 68) == Status.BADF
    assert not guest.last.watchers


@pytest.mark.parametrize("name", WAITS)
@in_loop
async def test_a_failure_that_is_waited_for(name: str) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert guest.begin(name, pending, *detailed(name), 64, 68) is None
    guest.last.fail(Cause.HTTP_PROTOCOL_ERROR)
    assert await guest.finish() == Status.HTTPINVALID
    assert guest.do(name, pending, *detailed(name), 64, 68) == Status.BADF
    assert guest.u32_at(DETAIL) == (19 if name.endswith("v2") else 0)


@pytest.mark.parametrize("name", WAITS)
@in_loop
async def test_a_guest_that_is_killed_while_it_waits_wants_no_response(name: str) -> None:
    guest = SendingGuest()
    assert guest.begin(name, guest.send_async(), *detailed(name), 64, 68) is None
    guest.cancel()
    assert guest.last.abandoned
    assert not guest.last.watchers


def test_requests_that_nobody_asked_about_are_given_up_with_the_sandbox() -> None:
    guest = SendingGuest()
    guest.send_async()
    guest.send_async()
    guest.upstream.sent[0].respond(200, body=b"unread")
    guest.made.box.close()
    assert all(sent.abandoned for sent in guest.upstream.sent)
    assert guest.box.held == 0


@pytest.mark.parametrize("name", POLLS)
def test_poll_does_not_wait(name: str) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    for _ in range(2):
        assert guest.do(name, pending, *detailed(name), 64, 68, 72) == Status.OK
        assert [guest.u32_at(at) for at in (64, 68, 72)] == [0, INVALID, INVALID]
    guest.last.respond(200, body=b"x")
    assert guest.do(name, pending, *detailed(name), 64, 68, 72) == Status.OK
    assert guest.u32_at(64) == 1
    assert guest.get("http_resp.status_get", guest.u32_at(68), width=2) == 200
    assert guest.read_all(guest.u32_at(72)) == b"x"
    assert guest.do(name, pending, *detailed(name), 64, 68, 72) == Status.BADF


@pytest.mark.parametrize("name", POLLS)
def test_poll_of_a_failure_is_its_status(name: str) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    guest.last.fail(Cause.CONNECTION_REFUSED)
    assert guest.do(name, pending, *detailed(name), 64, 68, 72) == Status.ERROR
    assert guest.u32_at(DETAIL) == (7 if name.endswith("v2") else 0)
    assert guest.do(name, pending, *detailed(name), 64, 68, 72) == Status.BADF


@pytest.mark.parametrize("name", SELECTS)
@in_loop
async def test_select_gives_the_first_that_is_done_and_leaves_the_others(name: str) -> None:
    guest = SendingGuest()
    pending = [guest.send_async() for _ in range(3)]
    raw = (*guest.handles(*pending), *detailed(name), 64, 68, 72)
    assert guest.begin(name, *raw) is None
    guest.upstream.sent[1].respond(203)
    guest.upstream.sent[2].respond(204)
    assert await guest.finish() == Status.OK
    assert guest.u32_at(64) == 1, "the lowest index of those that are done"
    assert guest.get("http_resp.status_get", guest.u32_at(68), width=2) == 203
    assert not guest.upstream.sent[0].watchers
    assert guest.do(name, *raw) == Status.BADF, "one of them is consumed"
    rest = (*guest.handles(pending[0], pending[2]), *detailed(name), 64, 68, 72)
    assert guest.do(name, *rest) == Status.OK
    assert guest.u32_at(64) == 1


@pytest.mark.parametrize("name", SELECTS)
def test_select_of_a_failure_has_invalid_handles(name: str) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    guest.last.fail(Cause.DNS_TIMEOUT)
    raw = (*guest.handles(pending), *detailed(name), 64, 68, 72)
    assert guest.do(name, *raw) == Status.OK
    assert [guest.u32_at(at) for at in (64, 68, 72)] == [0, INVALID, INVALID]
    assert guest.u32_at(DETAIL) == (2 if name.endswith("v2") else 0)
    assert guest.failures == [("origin", Cause.DNS_TIMEOUT)]
    assert guest.do(name, *raw) == Status.BADF


@pytest.mark.parametrize("name", SELECTS)
def test_select_of_nothing_and_of_what_is_no_request(name: str) -> None:
    guest = SendingGuest()
    pending, body = guest.send_async(), guest.body()
    more = (*detailed(name), 64, 68, 72)
    assert guest.do(name, 0, 0, *more) == Status.INVAL
    assert guest.do(name, *guest.handles(pending, body), *more) == Status.BADF
    assert guest.do(name, *guest.handles(pending, INVALID), *more) == Status.BADF
    assert guest.do(name, guest.size - 4, 2, *more) == Status.INVAL
    assert guest.do(name, 0, 10_001, *more) == Status.INVAL


@in_loop
async def test_async_io_knows_requests() -> None:
    guest = SendingGuest()
    first, second = guest.send_async(), guest.send_async()
    assert guest.get("async_io.is_ready", second) == 0
    assert guest.begin("async_io.select", *guest.handles(first, second), 0, 64) is None
    guest.last.fail(Cause.CONNECTION_REFUSED)
    assert await guest.finish() == Status.OK
    assert guest.u32_at(64) == 1
    assert guest.get("async_io.is_ready", second) == 1, "a failure is something to be had"
    assert guest.do("http_req.pending_req_wait", second, 64, 68) == Status.ERROR


def test_every_call_wants_a_live_pending_request() -> None:
    guest = SendingGuest()
    name = guest.put(b"x")
    for handle in (INVALID, guest.body(), guest.request()):
        for call in WAITS:
            assert guest.do(call, handle, *detailed(call), 64, 68) == Status.BADF
        for call in POLLS:
            assert guest.do(call, handle, *detailed(call), 64, 68, 72) == Status.BADF
        for call in ("insert", "append"):
            raw = (handle, *name, *name, 0)
            assert guest.do(f"http_req.pending_req_header_{call}", *raw) == Status.BADF
        assert guest.do("http_req.pending_req_header_remove", handle, *name, 0) == Status.BADF
        assert guest.do("http_resp.send_downstream_pending", handle) == Status.BADF


# Changes to the response that will come -----------------------------------------------------


def change(guest: SendingGuest, pending: int, what: str, *parts: bytes, target: int = 0) -> Status:
    raw = [number for part in parts for number in guest.put(part)]
    return guest.do(f"http_req.pending_req_header_{what}", pending, *raw, target)


def fields_after(guest: SendingGuest, pending: int) -> list[tuple[bytes, bytes]]:
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.OK
    headers: list[tuple[bytes, bytes]] = guest.box.items[guest.u32_at(64)].headers
    return headers


def test_changes_wait_for_the_response() -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert change(guest, pending, "insert", b"Server", b"ours") == Status.OK
    assert change(guest, pending, "append", b"vary", b"cookie", target=1) == Status.OK
    assert change(guest, pending, "remove", b"x-powered-by") == Status.OK
    assert change(guest, pending, "insert", b"retry-after", b"1", target=2) == Status.OK
    assert change(guest, pending, "insert", b"gone", b"1") == Status.OK
    assert change(guest, pending, "remove", b"gone") == Status.OK
    guest.last.respond(
        200, [(b"server", b"a"), (b"vary", b"accept"), (b"x-powered-by", b"?"), (b"server", b"b")]
    )
    assert fields_after(guest, pending) == [
        (b"vary", b"accept"), (b"server", b"ours"), (b"vary", b"cookie"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "target", "status"),
    [
        (b"bad name", b"x", 0, Status.ERROR),
        (b"", b"x", 0, Status.ERROR),
        (b"x", b"a\r\nset-cookie: b", 0, Status.ERROR),
        (b"x", b"y", 3, Status.INVAL),
    ],
)
def test_changes_are_checked_when_they_are_asked_for(
    name: bytes, value: bytes, target: int, status: Status
) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert change(guest, pending, "insert", name, value, target=target) == status
    assert change(guest, pending, "append", name, value, target=target) == status
    if name != b"x" or target:
        assert change(guest, pending, "remove", name, target=target) == status
    guest.last.respond(200)
    assert fields_after(guest, pending) == []


def test_waiting_changes_are_bounded_and_charged() -> None:
    guest = SendingGuest(limits=Limits(head_fields=16, head_bytes=2048))
    pending = guest.send_async()
    statuses = [change(guest, pending, "append", b"x", b"v" * 100) for _ in range(17)]
    assert statuses == [Status.OK] * 16 + [Status.LIMITEXCEEDED]
    assert guest.made.account.held >= 1600
    assert guest.box.limits_hit == {"limits.head_fields": 1}
    other = guest.send_async()
    assert change(guest, other, "append", b"x", b"v" * 2000) == Status.OK
    assert change(guest, other, "append", b"x", b"v" * 100) == Status.LIMITEXCEEDED
    for request in guest.upstream.sent:
        request.respond(200)
    for handle in (pending, other):
        fields_after(guest, handle)
        assert guest.do("http_resp.close", guest.u32_at(64)) == Status.OK
    assert guest.made.account.held == 0


def test_changes_one_after_the_other_are_what_they_would_be_on_the_head_itself() -> None:
    for seed in range(100):
        chance = Random(seed)
        guest = SendingGuest()
        pending = guest.send_async()
        before = [(bytes([chance.choice(b"abc")]), b"%d" % n) for n in range(chance.randrange(6))]
        expected = list(before)
        for number in range(chance.randrange(12)):
            name, value = bytes([chance.choice(b"abc")]), b"new%d" % number
            what = chance.choice(("insert", "append", "remove"))
            parts = (name,) if what == "remove" else (name, value)
            assert change(guest, pending, what, *parts) == Status.OK
            if what != "append":
                expected = [field for field in expected if field[0] != name]
            if what != "remove":
                expected.append((name, value))
        guest.last.respond(200, before)
        assert fields_after(guest, pending) == expected, seed


# Answering the client with it ---------------------------------------------------------------


def test_a_pending_response_answers_the_client_even_after_the_guest() -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert change(guest, pending, "insert", b"x-by", b"us") == Status.OK
    assert change(guest, pending, "insert", b"x-error", b"1", target=2) == Status.OK
    assert guest.do("http_resp.send_downstream_pending", pending) == Status.OK
    assert guest.client.responded
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.BADF
    guest.made.box.close()
    assert guest.made.account.held == 0
    assert not guest.last.abandoned
    guest.last.respond(206, [(b"a", b"1")], b"part")
    assert guest.client.response is not None
    assert guest.client.response.status == 206
    assert guest.client.response.headers == [(b"a", b"1"), (b"x-by", b"us")]
    assert guest.client.sent == b"part"


def test_a_response_that_is_here_answers_at_once() -> None:
    guest = SendingGuest(ready=True)
    assert guest.do("http_resp.send_downstream_pending", guest.send_async()) == Status.OK
    assert guest.client.sent == b"from the backend"


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (Cause.HTTP_RESPONSE_TIMEOUT, 504),
        (Cause.DNS_TIMEOUT, 504),
        (Cause.CONNECTION_REFUSED, 502),
        (Cause.TLS_CERTIFICATE_ERROR, 502),
        (Cause.HTTP_PROTOCOL_ERROR, 502),
        (Cause.DESTINATION_UNAVAILABLE, 503),
        (Cause.LOOP, 508),
    ],
)
def test_a_failure_answers_the_client_with_its_cause(cause: Cause, status: int) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    assert change(guest, pending, "insert", b"x-any", b"1") == Status.OK
    assert change(guest, pending, "insert", b"x-error", b"1", target=2) == Status.OK
    assert change(guest, pending, "insert", b"x-response", b"1", target=1) == Status.OK
    assert guest.do("http_resp.send_downstream_pending", pending) == Status.OK
    guest.last.fail(cause)
    assert guest.client.response is not None
    assert guest.client.response.status == status
    names = [name for name, _ in guest.client.response.headers]
    assert names == [b"content-type", b"x-any", b"x-error"]
    assert cause.value.encode() in guest.client.sent
    assert guest.failures == [("origin", cause)]


def test_a_second_answer_is_an_error_and_gives_its_request_up() -> None:
    guest = SendingGuest()
    first, second = guest.send_async(), guest.send_async()
    assert guest.do("http_resp.send_downstream_pending", first) == Status.OK
    assert guest.do("http_resp.send_downstream_pending", second) == Status.ERROR
    assert guest.last.abandoned
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.send_downstream", response, guest.body(), 0) == Status.ERROR


def test_a_client_that_leaves_gives_the_request_up() -> None:
    guest = SendingGuest()
    assert guest.do("http_resp.send_downstream_pending", guest.send_async()) == Status.OK
    assert guest.client.answer is not None
    guest.client.answer.abandon()
    assert guest.last.abandoned
    assert not guest.last.watchers


# When the guest ends without having waited ------------------------------------------------------


@pytest.mark.parametrize("well", [True, False])
def test_what_a_guest_sent_and_did_not_wait_for_goes_on_if_the_guest_ended_by_itself(
    well: bool,
) -> None:
    guest = SendingGuest()
    guest.send_async()
    (pending,) = guest.upstream.sent
    guest.made.box.close(well=well)
    assert guest.upstream.left == ([pending] if well else [])
    assert pending.abandoned is not well

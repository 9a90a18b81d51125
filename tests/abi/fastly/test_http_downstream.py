"""What a guest can learn of its client, under the new names and the old ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from edge.abi.fastly import facts
from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from edge.http.body import Body
from edge.model.limits import Limits
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.further import FakeGiver
from tests.support.loop import in_loop, turns

MODULE = next(module for module in FASTLY_MODULES if module.name == "fastly_http_downstream")
ABOUT_A_REQUEST = sorted(
    name
    for name, call in MODULE.hostcalls.items()
    if not name.startswith(("next_request", "downstream_visits"))
)


def test_addresses_have_4_or_16_octets() -> None:
    guest = FastlyGuest()
    request, _ = guest.downstream()
    for before, module in (([request], "http_downstream"), ([], "http_req")):
        octets = guest.room(16)
        assert guest.get(f"{module}.downstream_client_ip_addr", *before, octets) == 4
        assert guest.bytes_at(octets, 4) == bytes([192, 0, 2, 7])
        assert guest.get(f"{module}.downstream_server_ip_addr", *before, octets) == 16
        assert guest.bytes_at(octets, 16) == bytes(15) + b"\x01"


def test_texts_and_numbers_of_the_client() -> None:
    headers = [(b"host", b"example.com"), (b"x-a", b"1")]
    client = FakeDownstream(headers=headers, original_names=[b"HOST", b"x-A"])
    guest = FastlyGuest(client=client)
    request, _ = guest.downstream()
    for before, module in (([request], "http_downstream"), ([], "http_req")):
        assert guest.text(f"{module}.downstream_client_request_id", *before) == (
            b"0123456789abcdef0123456789abcdef"
        )
        assert guest.text(f"{module}.downstream_compliance_region", *before) == b"none"
        assert guest.get(f"{module}.downstream_client_ddos_detected", *before) == 0
        assert guest.get(f"{module}.fastly_key_is_valid", *before) == 0
    names = guest.list("http_downstream.downstream_original_header_names", request)
    assert names == guest.list("http_req.original_header_names_get") == [b"HOST", b"x-A"]
    assert guest.get("http_downstream.downstream_original_header_count", request) == 2
    assert guest.get("http_req.original_header_count") == 2
    assert guest.get("http_downstream.downstream_bot_analyzed", request) == 0
    assert guest.get("http_downstream.downstream_bot_detected", request) == 0


def test_short_buffers_say_what_they_need() -> None:
    guest = FastlyGuest()
    request, _ = guest.downstream()
    buffer, size = guest.room(32), guest.room(4)
    name = "http_downstream.downstream_client_request_id"
    assert guest.do(name, request, buffer, 31, size) == Status.BUFLEN
    assert guest.u32_at(size) == 32


@pytest.mark.parametrize("name", ABOUT_A_REQUEST)
def test_the_request_must_be_live_and_the_clients(name: str) -> None:
    guest = FastlyGuest()
    rest = len(MODULE.hostcalls[name].signature) - 1
    outs = [guest.room(64) for _ in range(rest)]
    assert guest.do(f"http_downstream.{name}", INVALID, *outs) == Status.BADF
    own = guest.get("http_req.new")
    assert guest.do(f"http_downstream.{name}", own, *outs) == Status.ERROR


@pytest.mark.parametrize(
    "name",
    [name for name in ABOUT_A_REQUEST if "_tls_" in name or "vpn" in name]
    + list(facts.FINGERPRINT_TEXTS)
    + [f"downstream_bot_{what}" for what in ("name", "category", "category_kind", "verified")],
)
def test_what_is_not_known_is_none(name: str) -> None:
    guest = FastlyGuest()
    request, _ = guest.downstream()
    rest = len(MODULE.hostcalls[name].signature) - 1
    outs = [guest.room(64) for _ in range(rest)]
    assert guest.do(f"http_downstream.{name}", request, *outs) == Status.NONE


def test_the_older_names_of_what_is_not_known_are_none_too() -> None:
    guest = FastlyGuest()
    for name in facts.TLS_TEXTS + facts.FINGERPRINT_TEXTS:
        assert guest.do(f"http_req.{name}", 64, 16, 128) == Status.NONE
    assert guest.do("http_req.downstream_tls_client_cert_verify_result", 64) == Status.NONE
    assert guest.do("http_req.downstream_tls_ja3_md5", 64, 128) == Status.NONE


def test_visits_are_counted_in_the_client_s_cdn_loop_field() -> None:
    values = (
        b"edge-server; s=shop, other; s=shop",
        b"edge-server;s=cart, Edge-Server; v=1; s=shop",
    )
    headers = [(b"host", b"example.com"), *((b"cdn-loop", value) for value in values)]
    guest = FastlyGuest(client=FakeDownstream(headers=headers))
    assert guest.get("http_downstream.downstream_visits_this_service") == 2
    assert guest.get("http_downstream.downstream_visits_this_pop") == 3
    for what in ("service", "pop"):
        name = f"http_downstream.downstream_visits_this_{what}"
        assert FastlyGuest().get(name) == 0, "a request that nobody passed on"
        assert guest.do(name, guest.size - 3) == Status.INVAL


def answer(guest: FastlyGuest) -> None:
    response, body = guest.get("http_resp.new"), guest.body()
    assert guest.do("http_resp.send_downstream", response, body, 0) == Status.OK


def test_where_nobody_has_requests_there_is_no_next_one() -> None:
    guest = FastlyGuest()
    guest.downstream()
    answer(guest)
    promise = guest.get("http_downstream.next_request", 0, 0)
    assert guest.get("async_io.is_ready", promise) == 1
    assert guest.do("http_downstream.next_request_wait", promise, 64, 68) == Status.NONE
    assert guest.do("http_downstream.next_request_wait", promise, 64, 68) == Status.BADF


def test_waiting_for_the_next_request_before_answering_this_one_is_unsupported() -> None:
    guest = FastlyGuest()
    promise = guest.get("http_downstream.next_request", 0, 0)
    assert guest.do("http_downstream.next_request_wait", promise, 64, 68) == Status.UNSUPPORTED


def test_one_promise_at_a_time_with_options_that_are_checked() -> None:
    guest = FastlyGuest()
    next_request = "http_downstream.next_request"
    assert guest.do(next_request, 1, 0, 64) == Status.INVAL
    assert guest.do(next_request, 4, 0, 64) == Status.INVAL
    assert guest.do(next_request, 2, guest.size - 2, 64) == Status.INVAL
    promise = guest.get(next_request, 2, guest.size - 4)  # an SDK's struct of four bytes
    assert guest.do(next_request, 0, 0, 64) == Status.LIMITEXCEEDED
    assert guest.do("http_downstream.next_request_abandon", promise) == Status.OK
    assert guest.do("http_downstream.next_request_abandon", promise) == Status.BADF
    assert guest.do(next_request, 0, 0, 64) == Status.OK


@pytest.mark.parametrize(
    ("mask", "struct", "seconds"),
    [
        (0, b"", 10.0),
        (2, (250).to_bytes(8, "little"), 0.25),
        (2, (3_600_000).to_bytes(8, "little"), 10.0),
        (2, (250).to_bytes(4, "little") + b"junk", 0.25),
    ],
)
def test_the_timeout_is_at_most_ten_seconds_and_one_sdk_s_junk_is_left_alone(
    mask: int, struct: bytes, seconds: float
) -> None:
    guest = FastlyGuest()
    giver = FakeGiver(guest.box)
    guest.get("http_downstream.next_request", mask, guest.put(struct)[0])
    assert giver.asked == [seconds]


@in_loop
async def test_the_next_request_has_handles_and_facts_of_its_own() -> None:
    guest = FastlyGuest()
    giver = FakeGiver(guest.box)
    request, body = guest.downstream()
    answer(guest)
    promise = guest.get("http_downstream.next_request", 0, 0)
    assert guest.begin("http_downstream.next_request_wait", promise, 64, 68) is None
    waiting = asyncio.ensure_future(guest.finish())
    await turns()
    assert giver.told == ["rest"]
    content = Body()
    content.write(b"hello")
    client = FakeDownstream(method=b"POST", target=b"/next", body=content)
    client.client_address, client.request_id = b"\x7f\0\0\1", "f" * 32
    giver.give(client)
    assert await waiting == Status.OK
    now, now_body = guest.u32_at(64), guest.u32_at(68)
    assert guest.downstream() == (now, now_body)
    assert guest.text("http_req.method_get", now) == b"POST"
    assert guest.read(now_body) == b"hello"
    assert guest.text("http_downstream.downstream_client_request_id", now) == b"f" * 32
    assert guest.text("http_req.downstream_client_request_id") == b"f" * 32
    octets = guest.room(16)
    assert guest.get("http_downstream.downstream_client_ip_addr", now, octets) == 4
    for name in ("http_req.uri_get", "http_downstream.downstream_client_request_id"):
        assert guest.do(name, request, 128, 64, 72) == Status.BADF, "the last client's"
    assert guest.do("http_body.known_length", body, 128) == Status.BADF
    assert guest.do("http_downstream.next_request_wait", promise, 64, 68) == Status.BADF
    answer(guest)
    assert client.responded


def test_a_request_made_of_the_last_client_s_stays_that_client_s() -> None:
    guest = FastlyGuest(client=FakeDownstream(method=b"PUT"))
    handle, _ = guest.downstream()
    request = guest.box.items[handle]  # as whoever sends it to a backend holds it
    guest.box.begin(FakeDownstream(method=b"GET"), 0)
    assert (request.method, request.headers) == (b"PUT", [(b"host", b"example.com")])


@in_loop
async def test_select_is_woken_by_a_request_and_by_a_refusal() -> None:
    for act in ("give", "refuse"):
        guest = FastlyGuest()
        giver = FakeGiver(guest.box)
        answer(guest)
        promise = guest.get("http_downstream.next_request", 0, 0)
        assert guest.get("async_io.is_ready", promise) == 0
        listed, _ = guest.put(promise.to_bytes(4, "little"))
        assert guest.begin("async_io.select", listed, 1, 0, 64) is None
        waiting = asyncio.ensure_future(guest.finish())
        await turns()
        assert giver.told == ["watched"]
        if act == "give":
            giver.give(FakeDownstream())
        else:
            giver.refuse()
        assert await waiting == Status.OK
        assert guest.get("async_io.is_ready", promise) == 1
        expected = Status.OK if act == "give" else Status.NONE
        assert await guest.ado("http_downstream.next_request_wait", promise, 64, 68) == expected


def test_a_promise_is_not_lost_to_a_pointer_that_lies() -> None:
    guest = FastlyGuest()
    giver = FakeGiver(guest.box)
    answer(guest)
    promise = guest.get("http_downstream.next_request", 0, 0)
    wait = "http_downstream.next_request_wait"
    assert guest.do(wait, promise, guest.size - 2, 68) == Status.INVAL
    assert guest.do(wait, promise, 64, 0xFFFF_FFFF) == Status.INVAL
    assert guest.do(wait, INVALID, 64, 68) == Status.BADF
    assert not giver.told
    assert guest.do("http_downstream.next_request_abandon", promise) == Status.OK
    assert giver.told == ["dropped"]


def test_a_sandbox_that_ends_lets_go_of_its_promise() -> None:
    guest = FastlyGuest()
    giver = FakeGiver(guest.box)
    guest.get("http_downstream.next_request", 0, 0)
    guest.box.close()
    assert giver.told == ["dropped"]


@in_loop
async def test_a_guest_that_is_killed_while_it_waits_lets_go_of_its_promise() -> None:
    guest = FastlyGuest()
    giver = FakeGiver(guest.box)
    answer(guest)
    promise = guest.get("http_downstream.next_request", 0, 0)
    assert guest.begin("http_downstream.next_request_wait", promise, 64, 68) is None
    guest.cancel()
    assert giver.told == ["dropped"]


def test_a_guest_without_room_for_two_more_handles_cannot_take_a_request() -> None:
    guest = FastlyGuest(limits=replace(Limits(), handles=16))
    giver = FakeGiver(guest.box)
    answer(guest)
    promise = guest.get("http_downstream.next_request", 0, 0)
    while guest.do("http_body.new", 64) == Status.OK:
        pass
    wait = "http_downstream.next_request_wait"
    assert guest.do(wait, promise, 64, 68) == Status.LIMITEXCEEDED
    assert giver.told == ["dropped"], "before one could be given to it"


def test_what_is_counted_for_a_request_begins_anew_with_the_next() -> None:
    guest = FastlyGuest()
    box = guest.box
    box.calls, box.log_bytes, box.log_dropped, box.subrequests = 12, 30, 2, 7
    box.limits_hit = {"limits.handles": 1}
    box.account.charge(1000)
    box.account.release(600)
    box.account.exceeded = True
    box.begin(FakeDownstream(), 10)
    assert (box.calls, box.log_bytes, box.log_dropped, box.subrequests) == (2, 0, 0, 0)
    assert box.limits_hit == {}
    assert (box.account.held, box.account.peak, box.account.exceeded) == (400, 400, False)


def test_a_promise_is_not_a_body_and_a_body_is_not_a_promise() -> None:
    guest = FastlyGuest()
    promise = guest.get("http_downstream.next_request", 0, 0)
    body = guest.body(b"x")
    assert guest.do("http_downstream.next_request_abandon", body) == Status.BADF
    assert guest.do("http_downstream.next_request_wait", body, 64, 68) == Status.BADF
    assert guest.read(body) == b"x", "the wrong call has not consumed it"
    for call in ("close", "abandon"):
        assert guest.do(f"http_body.{call}", promise) == Status.BADF
    assert guest.write(promise, b"x") == Status.BADF

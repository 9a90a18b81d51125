"""Sending requests to backends: what leaves, what comes back, what is consumed, what it costs."""

from __future__ import annotations

import asyncio
import random

import pytest

from edge.abi.fastly.error_detail import TAGS
from edge.abi.fastly.status import Status
from edge.http.body import Body
from edge.model.limits import Limits
from edge.upstream.fetch import Cause
from tests.support.fake_downstream import FakeDownstream
from tests.support.fake_upstream import ADDRESS, SendingGuest
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.loop import in_loop, turns

SENDS = ["http_req.send", "http_req.send_v2", "http_req.send_v3"]
ASYNC = ["http_req.send_async", "http_req.send_async_v2", "http_req.send_async_streaming"]
ALL_BITS = 0b11110


def extra(guest: FastlyGuest, name: str) -> tuple[int, ...]:
    """The parameter between the backend's name and the out pointers, where a call has one."""
    if name.endswith(("send_v2", "send_v3")):
        return (guest.room(20),)
    return (0,) if name.endswith("send_async_v2") else ()


def raw(guest: FastlyGuest, name: str, request: int, body: int, backend: bytes) -> list[int]:
    """All parameters; the out pointers are 64 and 68."""
    outs = (64, 68) if name in SENDS else (64,)
    return [request, body, *guest.put(backend), *extra(guest, name), *outs]


def detail(guest: FastlyGuest, mask: int = ALL_BITS) -> int:
    """A `send_error_detail` of 20 bytes that asks for everything."""
    at = guest.room(20)
    guest.box.memory.write(at, bytes(20))
    guest.box.memory.write_u32(at + 4, mask)
    return at


@pytest.mark.parametrize("name", SENDS)
def test_a_request_brings_a_response(name: str) -> None:
    guest = SendingGuest(ready=True)
    request = guest.request((b"x-a", b"1"), method=b"POST")
    assert guest.do("http_req.uri_set", request, *guest.put(b"http://h/p?q")) == Status.OK
    body = guest.body(b"data")
    assert guest.do(name, *raw(guest, name, request, body, b"origin")) == Status.OK
    sent = guest.last.request
    assert (sent.backend.name, sent.method, sent.uri) == ("origin", b"POST", b"http://h/p?q")
    assert sent.headers == [(b"x-a", b"1")]
    assert sent.body.read(100) == b"data"
    assert sent.account is guest.box.account
    response, got = guest.u32_at(64), guest.u32_at(68)
    assert guest.get("http_resp.status_get", response, width=2) == 200
    assert guest.read_all(got) == b"from the backend"


@pytest.mark.parametrize("name", SENDS + ASYNC)
def test_head_and_body_are_consumed_whatever_happens(name: str) -> None:
    for backend in (b"origin", b"nobody"):
        guest = SendingGuest(ready=True, limits=Limits(subrequests=1))
        request, body = guest.request(), guest.body(b"data")
        status = guest.do(name, *raw(guest, name, request, body, backend))
        assert status == (Status.OK if backend == b"origin" else Status.INVAL)
        assert guest.do("http_req.close", request) == Status.BADF
        streams = name.endswith("streaming") and backend == b"origin"
        assert guest.do("http_body.close", body) == (Status.OK if streams else Status.BADF)
        guest.made.box.close()
        for sent in guest.upstream.sent:
            sent.request.body.discard()
        assert guest.made.account.held == 0


@pytest.mark.parametrize("name", SENDS + ASYNC)
def test_wrong_handles_and_names(name: str) -> None:
    guest = SendingGuest(ready=True)
    body = guest.body()
    assert guest.do(name, *raw(guest, name, INVALID, body, b"origin")) == Status.BADF
    assert guest.do(name, *raw(guest, name, body, body, b"origin")) == Status.BADF
    assert guest.write(body, b"x") == Status.OK, "the request was wrong, the body is still there"
    request = guest.request((b"big", b"v" * 2000))
    assert guest.do(name, *raw(guest, name, request, INVALID, b"origin")) == Status.BADF
    assert guest.do("http_req.close", request) == Status.BADF
    assert guest.made.account.held == 1, "the head's charge is given back with it"
    wrong = guest.do(name, *raw(guest, name, guest.request(), body, b"\xff\xfe"))
    assert wrong == Status.INVAL
    assert not guest.upstream.sent


@pytest.mark.parametrize("name", SENDS + ASYNC)
def test_without_an_upstream_no_backend_is_known(name: str) -> None:
    guest = FastlyGuest()
    request, body = guest.downstream()
    assert guest.do(name, *raw(guest, name, request, body, b"origin")) == Status.INVAL


@pytest.mark.parametrize("name", SENDS + ASYNC)
def test_each_request_counts_against_the_limit_of_the_sandbox(name: str) -> None:
    guest = SendingGuest(ready=True, limits=Limits(subrequests=2))
    body = 0
    for expected in (Status.OK, Status.OK, Status.LIMITEXCEEDED):
        request, body = guest.request(), guest.body(b"x" * 5000)
        assert guest.do(name, *raw(guest, name, request, body, b"origin")) == expected
    assert len(guest.upstream.sent) == 2
    assert guest.box.limits_hit == {"limits.subrequests": 1}
    assert guest.do("http_body.close", body) == Status.BADF


def test_an_unknown_backend_does_not_count() -> None:
    guest = SendingGuest(ready=True, limits=Limits(subrequests=1))
    name = "http_req.send_async"
    wrong = guest.do(name, *raw(guest, name, guest.request(), guest.body(), b"nobody"))
    assert wrong == Status.INVAL
    assert guest.send_async()


def test_a_streaming_body_goes_on_after_what_was_in_it() -> None:
    guest = SendingGuest()
    request, body = guest.request(), guest.body(b"one ")
    pending = guest.get("http_req.send_async_v2", request, body, *guest.put(b"origin"), 1)
    sent = guest.last.request.body
    assert sent.known_length is None
    assert guest.write(body, b"two") == Status.OK
    assert guest.do("http_body.close", body) == Status.OK
    assert sent.read(100) == b"one two"
    assert sent.at_eof
    assert guest.get("async_io.is_ready", pending) == 0
    status = guest.do("http_req.send_async_v2", request, body, *guest.put(b"origin"), 2, 64)
    assert status == Status.INVAL, "streaming is 0 or 1"


def test_a_streaming_body_that_is_left_open_breaks_off() -> None:
    guest = SendingGuest()
    body = guest.body(b"part")
    guest.get("http_req.send_async_streaming", guest.request(), body, *guest.put(b"origin"))
    sent = guest.last.request.body
    guest.made.box.close()
    assert sent.error is not None
    assert guest.last.abandoned


def test_the_clients_request_goes_on_without_being_copied() -> None:
    incoming = Body(live=True)
    client = FakeDownstream(
        method=b"PUT", target=b"/a?b", headers=[(b"host", b"h"), (b"cdn-loop", b"other")],
        body=incoming,
    )  # fmt: skip
    guest = SendingGuest(client=client)
    request, body = guest.downstream()
    guest.get("http_req.send_async", request, body, *guest.put(b"origin"))
    sent = guest.last.request
    assert sent.body is incoming
    assert sent.headers is client.head.headers
    assert (sent.method, sent.uri) == (b"PUT", b"http://example.com/a?b")
    assert sent.cdn_loop == b"other, edge-server; s=shop"


def test_what_the_guest_set_on_the_request_is_sent() -> None:
    guest = SendingGuest()
    request = guest.request()
    assert guest.do("http_req.version_set", request, 3) == Status.OK
    assert guest.do("http_req.auto_decompress_response_set", request, 1) == Status.OK
    assert guest.do("http_req.framing_headers_mode_set", request, 1) == Status.OK
    guest.get("http_req.send_async", request, guest.body(), *guest.put(b"origin"))
    sent = guest.last.request
    assert sent.wants_h2
    assert sent.auto_decompress
    assert sent.manual_framing
    assert not sent.upgrade
    assert sent.cdn_loop == b"edge-server; s=shop"


@in_loop
async def test_send_waits_and_a_guest_that_is_killed_meanwhile_gives_the_request_up() -> None:
    guest = SendingGuest()
    name = "http_req.send"
    assert guest.begin(name, *raw(guest, name, guest.request(), guest.body(), b"origin")) is None
    await turns()
    guest.last.respond(204)
    assert await guest.finish() == Status.OK
    assert guest.get("http_resp.status_get", guest.u32_at(64), width=2) == 204
    assert guest.begin(name, *raw(guest, name, guest.request(), guest.body(), b"origin")) is None
    guest.cancel()
    assert guest.last.abandoned


STATUSES = {
    Cause.DNS_TIMEOUT: Status.ERROR,
    Cause.DNS_ERROR: Status.ERROR,
    Cause.DESTINATION_NOT_FOUND: Status.INVAL,
    Cause.DESTINATION_UNAVAILABLE: Status.ERROR,
    Cause.DESTINATION_IP_UNROUTABLE: Status.ERROR,
    Cause.CONNECTION_REFUSED: Status.ERROR,
    Cause.CONNECTION_TERMINATED: Status.HTTPINCOMPLETE,
    Cause.CONNECTION_TIMEOUT: Status.ERROR,
    Cause.CONNECTION_LIMIT_REACHED: Status.ERROR,
    Cause.TLS_CERTIFICATE_ERROR: Status.ERROR,
    Cause.TLS_CONFIGURATION_ERROR: Status.ERROR,
    Cause.TLS_ALERT_RECEIVED: Status.ERROR,
    Cause.TLS_PROTOCOL_ERROR: Status.ERROR,
    Cause.HTTP_INCOMPLETE_RESPONSE: Status.HTTPINCOMPLETE,
    Cause.HTTP_RESPONSE_HEADER_SECTION_TOO_LARGE: Status.HTTPHEADTOOLARGE,
    Cause.HTTP_RESPONSE_BODY_TOO_LARGE: Status.ERROR,
    Cause.HTTP_RESPONSE_TIMEOUT: Status.ERROR,
    Cause.HTTP_RESPONSE_STATUS_INVALID: Status.HTTPINVALIDSTATUS,
    Cause.HTTP_UPGRADE_FAILED: Status.ERROR,
    Cause.HTTP_PROTOCOL_ERROR: Status.HTTPINVALID,
    Cause.HTTP_REQUEST_URI_INVALID: Status.HTTPUSER,
    Cause.H2_ERROR: Status.ERROR,
    Cause.LOOP: Status.ERROR,
    Cause.INTERNAL_ERROR: Status.ERROR,
}


def test_every_cause_has_a_tag_and_a_status() -> None:
    assert set(TAGS) == set(STATUSES) == set(Cause)


@pytest.mark.parametrize("cause", list(Cause))
def test_a_failure_has_its_status_its_tag_and_is_told_once(cause: Cause) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    guest.last.fail(cause)
    at = detail(guest)
    assert guest.do("http_req.pending_req_wait_v2", pending, at, 64, 68) == STATUSES[cause]
    assert guest.u32_at(at) == TAGS[cause]
    assert guest.u32_at(at + 4) == 0, "no facts to go with it"
    assert guest.failures == [("origin", cause)]
    assert guest.do("http_req.pending_req_wait_v2", pending, at, 64, 68) == Status.BADF


def test_the_facts_that_are_known_are_told_where_the_guest_has_room_for_them() -> None:
    for cause, facts, bit, where, width, value in (
        (Cause.DNS_ERROR, {"dns_rcode": 3}, 2, 8, 2, 3),
        (Cause.TLS_ALERT_RECEIVED, {"tls_alert": 48}, 8, 12, 1, 48),
        (Cause.H2_ERROR, {"h2_error": (7, 11)}, 16, 16, 4, 11),
    ):
        for asked in (ALL_BITS, ALL_BITS & ~bit):
            guest = SendingGuest()
            pending = guest.send_async()
            guest.last.fail(cause, **facts)
            at = detail(guest, asked)
            assert guest.do("http_req.pending_req_wait_v2", pending, at, 64, 68) != Status.OK
            assert guest.u32_at(at + 4) == bit & asked
            told = int.from_bytes(guest.bytes_at(at + where, width), "little")
            assert told == (value if asked & bit else 0)
            assert guest.bytes_at(at + 13, 1)[0] == (7 if asked & bit == 16 else 0)


def test_the_short_struct_of_one_sdk_is_not_written_beyond_its_end() -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    guest.last.fail(Cause.DNS_ERROR, dns_rcode=3)
    at = guest.room(32)
    guest.box.memory.write(at, b"\x00\x0e\0\0\0\0\0\0" + b"\xaa" * 24)
    assert guest.do("http_req.pending_req_wait_v2", pending, at, 64, 68) == Status.ERROR
    assert guest.bytes_at(at, 32) == b"\x03\0\0\0\0\0\0\0" + b"\xaa" * 24


def test_a_struct_at_the_end_of_memory_is_as_short_as_it_has_to_be() -> None:
    guest = SendingGuest()
    pending = 0
    for room, expected in ((8, Status.ERROR), (7, Status.INVAL)):
        pending = guest.send_async()
        guest.last.fail(Cause.DNS_ERROR, dns_rcode=3)
        at = guest.size - room
        if room == 8:
            guest.box.memory.write_u32(at + 4, ALL_BITS)
        assert guest.do("http_req.pending_req_wait_v2", pending, at, 64, 68) == expected
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.ERROR, "not consumed"


def test_success_is_a_tag_too() -> None:
    guest = SendingGuest(ready=True)
    at = detail(guest)
    sent = guest.do(
        "http_req.send_v2", guest.request(), guest.body(), *guest.put(b"origin"), at, 64, 68
    )
    assert sent == Status.OK
    assert (guest.u32_at(at), guest.u32_at(at + 4)) == (1, 0)


def test_an_unknown_backend_has_a_tag() -> None:
    guest = SendingGuest()
    at = detail(guest)
    sent = guest.do(
        "http_req.send_v2", guest.request(), guest.body(), *guest.put(b"nobody"), at, 64, 68
    )
    assert sent == Status.INVAL
    assert guest.u32_at(at) == 4


@pytest.mark.parametrize(("version", "number"), [(10, 1), (11, 2), (20, 3)])
def test_a_response_says_what_the_backend_said(version: int, number: int) -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    fields = [(b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"x", b"1")]
    guest.last.respond(418, list(fields), b"tea", version)
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.OK
    response = guest.u32_at(64)
    assert guest.get("http_resp.status_get", response, width=2) == 418
    assert guest.get("http_resp.version_get", response) == number
    cookies = guest.list("http_resp.header_values_get", response, *guest.put(b"Set-Cookie"))
    assert cookies == [b"a", b"b"]


def test_a_response_goes_to_the_client_by_reference() -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    headers = [(b"x", b"1")]
    live = guest.last.respond(200, headers, Body(guest.box.account, live=True))
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.OK
    assert guest.do("http_resp.send_downstream", guest.u32_at(64), guest.u32_at(68), 0) == Status.OK
    assert guest.client.response is not None
    assert guest.client.response.headers is headers
    assert guest.client.response_body is live
    guest.made.box.close()
    live.write(b"still coming")
    assert guest.client.sent == b"still coming", "a response may stream on after its guest"


def test_trailers_and_length_of_a_backends_body() -> None:
    guest = SendingGuest()
    pending = guest.send_async()
    body = guest.last.respond(200, [], Body(guest.box.account, live=True))
    body.expected = 3
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.OK
    handle = guest.u32_at(68)
    assert guest.get("http_body.known_length", handle, width=8) == 3
    name = guest.put(b"grpc-status")
    early = guest.do("http_body.trailer_value_get", handle, *name, 128, 16, 64)
    assert early == Status.AGAIN
    body.write(b"abc")
    body.expected = 0
    body.finish([(b"grpc-status", b"0")])
    assert guest.read_all(handle) == b"abc"
    assert guest.text("http_body.trailer_value_get", handle, *name) == b"0"


def test_the_address_is_told_when_the_request_was_to_pass_the_cache() -> None:
    for tag in (0, 1, 2):
        guest = SendingGuest(ready=True)
        request = guest.request()
        assert guest.do("http_req.cache_override_set", request, tag, 60, 0) == Status.OK
        raw_ = (request, guest.body(), *guest.put(b"origin"), 64, 68)
        assert guest.do("http_req.send", *raw_) == Status.OK
        response, octets = guest.u32_at(64), guest.room(16)
        status = guest.do("http_resp.get_addr_dest_ip", response, octets, 64)
        assert status == (Status.OK if tag == 1 else Status.NONE)
        if tag == 1:
            assert guest.bytes_at(octets, guest.u32_at(64)) == ADDRESS
            out = guest.room(8)
            guest.box.memory.write(out, b"\xaa" * 8)
            assert guest.do("http_resp.get_addr_dest_port", response, out) == Status.OK
            assert guest.bytes_at(out, 4) == b"\x90\x1f\xaa\xaa", "two bytes"
            out_of_range = guest.do("http_resp.get_addr_dest_port", response, guest.size - 1)
            assert out_of_range == Status.INVAL


def test_the_head_stays_charged_until_the_response_is_taken() -> None:
    guest = SendingGuest()
    request = guest.request((b"big", b"v" * 5000))
    pending = guest.get("http_req.send_async", request, guest.body(), *guest.put(b"origin"))
    assert guest.made.account.held >= 5000
    guest.last.respond(200, [(b"large", b"w" * 3000)])
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.OK
    assert 3000 <= guest.made.account.held < 5000
    assert guest.do("http_resp.close", guest.u32_at(64)) == Status.OK
    assert guest.made.account.held == 0


def test_a_response_that_the_sandbox_may_not_hold_is_given_up() -> None:
    guest = SendingGuest(limits=Limits(host_memory=1 << 20))
    pending = guest.send_async()
    body = guest.last.respond(200, [(b"large", b"w" * (1 << 20))], b"data")
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.LIMITEXCEEDED
    assert not body.held
    assert guest.made.account.held == 0
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.BADF


def test_a_response_without_room_for_its_handles_is_given_up() -> None:
    guest = SendingGuest(limits=Limits(handles=16))
    pending = guest.send_async()
    guest.last.respond(200)
    while len(guest.box.items) < 16:
        guest.body()
    assert guest.do("http_req.pending_req_wait", pending, 64, 68) == Status.LIMITEXCEEDED
    assert guest.last.abandoned
    assert guest.box.limits_hit == {"limits.handles": 1}


@pytest.mark.parametrize("name", SENDS + ASYNC)
def test_out_pointers_are_checked_before_anything_is_sent(name: str) -> None:
    guest = SendingGuest(ready=True)
    request, body = guest.request(), guest.body()
    arguments = raw(guest, name, request, body, b"origin")
    arguments[-1] = guest.size - 3
    assert guest.do(name, *arguments) == Status.INVAL
    assert not guest.upstream.sent
    assert guest.do("http_req.close", request) == Status.OK


MODULES = ("fastly_http_req.", "fastly_http_resp.", "fastly_backend.", "fastly_async_io.")
CALLS = sorted(name for name in SendingGuest()._calls if name.startswith(MODULES))


@pytest.mark.parametrize("name", CALLS)
def test_nothing_faults_on_small_numbers_where_requests_can_be_sent(name: str) -> None:
    asyncio.run(_try_many(name))


async def _try_many(name: str) -> None:
    chance = random.Random(name)
    guest = SendingGuest(size=4096, ready=chance.random() < 0.5)
    guest.downstream()
    guest.box.memory.write(60, b"origin")
    for _ in range(3):
        guest.get("http_req.new")
        guest.body(b"x")
    guest.send_async()
    numbers = (0, 1, 2, 3, 4, 5, 6, 7, 60, 200, 4080, 4095, 4096, 0xFFFF, INVALID, 0xFFFF_FFFF)
    for _ in range(100):
        if (
            guest.start(name, *(chance.choice(numbers) for _ in guest._calls[name].signature))
            is None
        ):
            guest.cancel()
    guest.made.box.close()
    assert guest.made.account.held >= 0
    assert guest.box.held == 0

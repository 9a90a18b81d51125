"""Handing the client's connection to a backend, and questions that only a firewall could answer."""

from __future__ import annotations

import pytest

from edge.abi.fastly.status import Status
from edge.http.body import Body
from edge.model.limits import Limits
from edge.upstream.fetch import Cause
from tests.support.fake_downstream import FakeDownstream
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import INVALID, FastlyGuest

CALLS = [
    "http_req.redirect_to_websocket_proxy",
    "http_req.redirect_to_websocket_proxy_v2",
    "http_req.upgrade_websocket",
]
KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")


def client(*, websocket: bool = True, body: Body | None = None) -> FakeDownstream:
    headers = [(b"host", b"example.com"), KEY]
    return FakeDownstream(headers=headers, body=body, wants_websocket=websocket)


def hand(guest: FastlyGuest, name: str, backend: bytes = b"origin") -> Status:
    request = (guest.downstream()[0],) if name.endswith("v2") else ()
    return guest.do(name, *request, *guest.put(backend))


@pytest.mark.parametrize("name", CALLS)
def test_after_a_101_the_connection_is_two_streams_of_bytes(name: str) -> None:
    guest = SendingGuest(client=client())
    assert hand(guest, name) == Status.OK
    sent = guest.last.request
    assert sent.upgrade
    assert (sent.method, sent.uri) == (b"GET", b"http://example.com/")
    assert sent.headers == [(b"host", b"example.com"), KEY, (b"upgrade", b"websocket")]
    assert not sent.body.is_readable, "the client has not said anything yet"
    guest.box.close()
    assert not guest.last.abandoned
    accepted = (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    back = guest.last.respond(101, [accepted], Body(guest.box.account, live=True))
    assert guest.client.response is not None
    assert guest.client.response.status == 101
    assert guest.client.response.headers == [accepted]
    assert guest.client.incoming is sent.body
    guest.client.incoming.write(b"frame from the client")
    assert sent.body.read(100) == b"frame from the client"
    back.write(b"frame from the backend")
    assert guest.client.sent == b"frame from the backend"


@pytest.mark.parametrize("name", CALLS)
def test_another_answer_is_passed_on_as_it_is(name: str) -> None:
    guest = SendingGuest(client=client())
    assert hand(guest, name) == Status.OK
    guest.last.respond(426, [(b"x", b"1")], b"no")
    assert guest.client.response is not None
    assert guest.client.response.status == 426
    assert guest.client.sent == b"no"
    assert guest.client.incoming is None


def test_a_client_that_asked_for_no_websocket_is_served_in_the_ordinary_way() -> None:
    incoming = Body(live=True)
    guest = SendingGuest(client=client(websocket=False, body=incoming))
    assert hand(guest, CALLS[0]) == Status.OK
    sent = guest.last.request
    assert not sent.upgrade
    assert (b"upgrade", b"websocket") not in sent.headers
    assert sent.body is incoming
    guest.last.respond(200, body=b"page")
    assert guest.client.sent == b"page"


def test_the_head_is_the_one_that_the_guest_gives_and_stays_its_own() -> None:
    guest = SendingGuest(client=client())
    request = guest.request((b"x", b"1"))
    assert guest.do("http_req.uri_set", request, *guest.put(b"/chat")) == Status.OK
    assert guest.do(CALLS[1], request, *guest.put(b"origin")) == Status.OK
    assert guest.last.request.uri == b"/chat"
    changed = guest.do("http_req.header_insert", request, *guest.put(b"x"), *guest.put(b"2"))
    assert changed == Status.OK
    assert guest.last.request.headers == [(b"x", b"1"), (b"upgrade", b"websocket")]


@pytest.mark.parametrize("name", CALLS)
def test_it_counts_as_the_response_and_as_a_request(name: str) -> None:
    guest = SendingGuest(client=client(), limits=Limits(subrequests=1))
    assert hand(guest, name) == Status.OK
    assert guest.client.responded
    assert hand(guest, name) == Status.ERROR
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.send_downstream", response, guest.body(), 0) == Status.ERROR
    guest = SendingGuest(client=client(), limits=Limits(subrequests=0))
    assert hand(guest, name) == Status.LIMITEXCEEDED
    assert not guest.client.responded


@pytest.mark.parametrize("name", CALLS)
def test_lies_and_backends_that_are_not_there(name: str) -> None:
    guest = SendingGuest(client=client())
    assert hand(guest, name, b"nobody") == Status.INVAL
    assert hand(guest, name, b"\xff") == Status.INVAL
    request = (INVALID,) if name.endswith("v2") else ()
    expected = Status.BADF if request else Status.INVAL
    assert guest.do(name, *request, guest.size - 1, 2) == expected
    assert not guest.client.responded
    assert not guest.upstream.sent


def test_a_failure_is_answered_and_told() -> None:
    guest = SendingGuest(client=client())
    assert hand(guest, CALLS[0]) == Status.OK
    guest.last.fail(Cause.HTTP_UPGRADE_FAILED)
    assert guest.client.response is not None
    assert guest.client.response.status == 502
    assert guest.failures == [("origin", Cause.HTTP_UPGRADE_FAILED)]


def test_a_client_that_leaves_gives_the_request_up() -> None:
    guest = SendingGuest(client=client())
    assert hand(guest, CALLS[0]) == Status.OK
    assert guest.client.answer is not None
    guest.client.answer.abandon()
    assert guest.last.abandoned


@pytest.mark.parametrize("raw", [(), (1,)])
def test_there_is_no_pushpin(raw: tuple[int, ...]) -> None:
    guest = SendingGuest(client=client())
    name = "http_req.redirect_to_grip_proxy" + ("_v2" if raw else "")
    assert guest.do(name, *raw, *guest.put(b"origin")) == Status.UNSUPPORTED


def inspection(guest: FastlyGuest, client_length: int = 4) -> int:
    """An `inspect_info` with everything in it."""
    at = guest.room(24)
    for offset, text in ((0, b"corp"), (8, b"workspace"), (16, b"\x7f\0\0\1")):
        ptr, length = guest.put(text)
        guest.box.memory.write_u32(at + offset, ptr)
        guest.box.memory.write_u32(at + offset + 4, length)
    guest.box.memory.write_u32(at + 20, client_length)
    return at


def test_there_is_no_firewall_but_lies_to_it_are_still_lies() -> None:
    guest = FastlyGuest()
    request, body = guest.downstream()
    name, outs = "http_req.inspect", (64, 64, 128)
    info = inspection(guest)
    assert guest.do(name, request, body, 0b1110, info, *outs) == Status.UNSUPPORTED
    assert guest.do(name, request, body, 0b0110, info, *outs) == Status.UNSUPPORTED
    assert guest.do(name, INVALID, body, 0b0110, info, *outs) == Status.BADF
    assert guest.do(name, request, request, 0b0110, info, *outs) == Status.BADF
    for mask in (0, 0b0010, 0b0100, 0b0111, 0b10110):
        assert guest.do(name, request, body, mask, info, *outs) == Status.INVAL
    assert guest.do(name, request, body, 0b0110, guest.size - 4, *outs) == Status.INVAL
    wrong = inspection(guest, client_length=5)
    assert guest.do(name, request, body, 0b1110, wrong, *outs) == Status.INVAL

"""Response heads, and answering the client with them."""

from __future__ import annotations

import pytest

from edge.abi.fastly.status import Status
from edge.errors import Incomplete
from edge.http.body import Body
from edge.http.message import ResponseHead
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest


def send(guest: FastlyGuest, response: int, body: int, streaming: int = 0) -> Status:
    return guest.do("http_resp.send_downstream", response, body, streaming)


def response_with(guest: FastlyGuest, status: int, *headers: tuple[bytes, bytes]) -> int:
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.status_set", response, status) == Status.OK
    for name, value in headers:
        raw = (*guest.put(name), *guest.put(value))
        assert guest.do("http_resp.header_append", response, *raw) == Status.OK
    return response


def test_hello_world() -> None:
    guest = FastlyGuest()
    response = response_with(guest, 200, (b"Content-Type", b"text/plain"))
    assert send(guest, response, guest.body(b"hello")) == Status.OK
    assert guest.client.response == ResponseHead(200, [(b"content-type", b"text/plain")])
    assert guest.client.sent == b"hello"


def test_a_status_takes_two_bytes() -> None:
    guest = FastlyGuest()
    response = response_with(guest, 404)
    out = guest.room(8)
    guest.box.memory.write(out, b"\xaa" * 8)
    assert guest.do("http_resp.status_get", response, out) == Status.OK
    assert guest.bytes_at(out, 8) == (404).to_bytes(2, "little") + b"\xaa" * 6


@pytest.mark.parametrize("status", [0, 99, 1000, 65_536 + 200])
def test_statuses_out_of_range_are_refused(status: int) -> None:
    guest = FastlyGuest()
    response = guest.get("http_resp.new")
    assert guest.do("http_resp.status_set", response, status) == Status.INVAL
    assert guest.get("http_resp.status_get", response, width=2) == 200


def test_head_and_body_are_consumed() -> None:
    guest = FastlyGuest()
    response, body = guest.get("http_resp.new"), guest.body(b"x")
    assert send(guest, response, body) == Status.OK
    assert guest.do("http_resp.close", response) == Status.BADF
    assert guest.do("http_body.close", body) == Status.BADF


def test_a_second_final_response_is_an_error() -> None:
    guest = FastlyGuest()
    assert send(guest, guest.get("http_resp.new"), guest.body(b"one")) == Status.OK
    assert send(guest, guest.get("http_resp.new"), guest.body(b"two")) == Status.ERROR
    assert guest.client.sent == b"one"


def test_early_hints_may_come_any_number_of_times_before() -> None:
    guest = FastlyGuest()
    link = (b"link", b"</a.css>; rel=preload")
    for _ in range(2):
        assert send(guest, response_with(guest, 103, link), guest.body()) == Status.OK
    assert guest.client.interim == [(103, [link]), (103, [link])]
    assert not guest.client.responded
    assert send(guest, guest.get("http_resp.new"), guest.body()) == Status.OK
    assert send(guest, response_with(guest, 103), guest.body()) == Status.ERROR


@pytest.mark.parametrize("status", [100, 101, 102, 199])
def test_other_interim_statuses_are_refused(status: int) -> None:
    guest = FastlyGuest()
    assert send(guest, response_with(guest, status), guest.body()) == Status.INVAL
    assert not guest.client.responded


def test_the_wrong_handles() -> None:
    guest = FastlyGuest()
    response, body = guest.get("http_resp.new"), guest.body()
    assert send(guest, INVALID, body) == Status.BADF
    assert send(guest, response, INVALID) == Status.BADF
    assert send(guest, guest.get("http_resp.new"), body, 2) == Status.INVAL
    assert not guest.client.responded


def test_keep_alive_framing_and_version() -> None:
    guest = FastlyGuest()
    response = guest.get("http_resp.new")
    assert guest.get("http_resp.version_get", response) == 2
    assert guest.do("http_resp.version_set", response, 1) == Status.OK
    assert guest.get("http_resp.version_get", response) == 1
    assert guest.do("http_resp.version_set", response, 9) == Status.INVAL
    assert guest.do("http_resp.http_keepalive_mode_set", response, 1) == Status.OK
    assert guest.do("http_resp.http_keepalive_mode_set", response, 2) == Status.INVAL
    assert guest.do("http_resp.framing_headers_mode_set", response, 1) == Status.OK
    assert guest.do("http_resp.framing_headers_mode_set", response, 2) == Status.INVAL
    assert send(guest, response, guest.body()) == Status.OK
    assert guest.client.response == ResponseHead(200, [], manual_framing=True, close=True)


def test_a_response_that_no_backend_sent_has_no_address() -> None:
    guest = FastlyGuest()
    response = guest.get("http_resp.new")
    octets, out = guest.room(16), guest.room(4)
    assert guest.do("http_resp.get_addr_dest_ip", response, octets, out) == Status.NONE
    assert guest.do("http_resp.get_addr_dest_port", response, out) == Status.NONE
    assert guest.do("http_resp.get_addr_dest_ip", INVALID, octets, out) == Status.BADF
    assert guest.do("http_resp.get_addr_dest_port", INVALID, out) == Status.BADF


def test_the_request_body_can_be_the_response_body() -> None:
    body = Body(live=True)
    guest = FastlyGuest(client=FakeDownstream(body=body))
    _, incoming = guest.downstream()
    body.write(b"early ")
    assert send(guest, guest.get("http_resp.new"), incoming) == Status.OK
    assert guest.client.response_body is body, "no copy, no wrapper"
    body.write(b"late")
    assert guest.client.sent == b"early late"


def test_streaming_sends_what_is_there_first_and_ends_when_it_is_closed() -> None:
    guest = FastlyGuest()
    body = guest.body(b"one ")
    assert send(guest, guest.get("http_resp.new"), body, 1) == Status.OK
    sent = guest.client.response_body
    assert sent is not None
    assert sent.live
    assert sent.known_length is None
    assert guest.write(body, b"two") == Status.OK
    assert guest.client.sent == b"one two"
    assert guest.do("http_body.close", body) == Status.OK
    assert sent.at_eof
    assert guest.write(body, b"more") == Status.BADF


def test_a_streaming_body_that_is_abandoned_or_left_open_breaks_off() -> None:
    for leave in ("abandon", "end of the sandbox"):
        guest = FastlyGuest()
        body = guest.body(b"part")
        assert send(guest, guest.get("http_resp.new"), body, 1) == Status.OK
        if leave == "abandon":
            assert guest.do("http_body.abandon", body) == Status.OK
        else:
            guest.made.box.close()
        sent = guest.client.response_body
        assert sent is not None
        assert sent.read(100) == b"part"
        with pytest.raises(Incomplete):
            sent.read(100)


def test_the_write_side_cannot_be_read_sent_or_swallowed() -> None:
    guest = FastlyGuest()
    body, other = guest.body(), guest.body()
    assert send(guest, guest.get("http_resp.new"), body, 1) == Status.OK
    buffer, out, end = guest.room(16), guest.room(8), guest.room(8)
    assert guest.do("http_body.read", body, buffer, 16, out) == Status.BADF
    assert guest.do("http_body.append", other, body) == Status.BADF
    assert guest.write(body, b"x", end=1) == Status.BADF
    assert guest.do("http_body.known_length", body, out) == Status.NONE
    names = guest.do("http_body.trailer_names_get", body, buffer, 16, 0, end, out)
    assert names == Status.INVAL
    assert send(guest, guest.get("http_resp.new"), body) == Status.BADF


def test_the_request_body_can_go_back_as_the_start_of_a_stream() -> None:
    incoming = Body(live=True)
    guest = FastlyGuest(client=FakeDownstream(body=incoming))
    _, body = guest.downstream()
    assert send(guest, guest.get("http_resp.new"), body, 1) == Status.OK
    assert guest.write(body, b" and the guest's") == Status.OK
    assert guest.do("http_body.close", body) == Status.OK
    assert guest.client.sent == b""
    incoming.write(b"the client's")
    incoming.finish()
    assert guest.client.sent == b"the client's and the guest's"
    assert guest.client.response_body is not None
    assert guest.client.response_body.at_eof


def test_response_heads_are_given_back_when_sent() -> None:
    guest = FastlyGuest()
    response = response_with(guest, 200, (b"big", b"v" * 5_000))
    assert guest.made.account.held >= 5_000
    assert send(guest, response, guest.body()) == Status.OK
    assert guest.made.account.held == 0

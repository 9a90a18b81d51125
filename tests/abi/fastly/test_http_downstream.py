"""What a guest can learn of its client, under the new names and the old ones."""

from __future__ import annotations

import pytest

from edge.abi.fastly import facts
from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.fastly.status import Status
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest

MODULE = next(module for module in FASTLY_MODULES if module.name == "fastly_http_downstream")
ABOUT_A_REQUEST = sorted(
    name
    for name, call in MODULE.hostcalls.items()
    if not call.unsupported and not name.startswith("next_request")
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


def test_visits_are_not_counted() -> None:
    guest = FastlyGuest()
    for what in ("service", "pop"):
        status = guest.do(f"http_downstream.downstream_visits_this_{what}", 64)
        assert status == Status.UNSUPPORTED


def answer(guest: FastlyGuest) -> None:
    response, body = guest.get("http_resp.new"), guest.body()
    assert guest.do("http_resp.send_downstream", response, body, 0) == Status.OK


def test_there_is_no_next_request() -> None:
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

"""Request heads: the client's and the guest's own."""

from __future__ import annotations

from struct import pack

import pytest

from edge.abi.fastly.heads import CacheOverride
from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from tests.support.fake_downstream import FakeDownstream
from tests.support.fastly_guest import INVALID, FastlyGuest


def test_the_clients_request_has_the_same_handles_at_each_call() -> None:
    guest = FastlyGuest()
    assert guest.downstream() == guest.downstream()
    request, _ = guest.downstream()
    assert guest.do("http_req.close", request) == Status.OK
    assert guest.downstream()[0] == request
    assert guest.do("http_req.method_get", request, 0, 0, guest.room(4)) == Status.BADF


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        (b"/", b"http://example.com/"),
        (b"/a//b/../%2f?q=1&r=%20#", b"http://example.com/a//b/../%2f?q=1&r=%20#"),
        (b"*", b"http://example.com"),
    ],
)
def test_the_clients_uri_is_absolute_and_otherwise_untouched(target: bytes, uri: bytes) -> None:
    guest = FastlyGuest(client=FakeDownstream(target=target))
    request, _ = guest.downstream()
    assert guest.text("http_req.uri_get", request) == uri


def test_the_clients_method_and_version() -> None:
    guest = FastlyGuest(client=FakeDownstream(method=b"PURGE", version=10))
    request, _ = guest.downstream()
    assert guest.text("http_req.method_get", request) == b"PURGE"
    assert guest.get("http_req.version_get", request) == 1
    assert guest.do("http_req.version_set", request, 3) == Status.OK
    assert guest.get("http_req.version_get", request) == 3
    assert guest.do("http_req.version_set", request, 5) == Status.INVAL


def test_a_new_request_is_get_slash() -> None:
    guest = FastlyGuest()
    request = guest.get("http_req.new")
    assert guest.text("http_req.method_get", request) == b"GET"
    assert guest.text("http_req.uri_get", request) == b"/"
    assert guest.get("http_req.version_get", request) == 2
    assert guest.list("http_req.header_names_get", request) == []


@pytest.mark.parametrize(
    ("method", "status"),
    [
        (b"GET", Status.OK),
        (b"get", Status.OK),
        (b"X-1!", Status.OK),
        (b"", Status.ERROR),
        (b"GET ", Status.ERROR),
        (b"G\r\n", Status.ERROR),
        (b"caf\xc3\xa9", Status.ERROR),
        (b"M" * 1025, Status.INVAL),
    ],
)
def test_methods_are_tokens(method: bytes, status: Status) -> None:
    guest = FastlyGuest()
    request = guest.get("http_req.new")
    assert guest.do("http_req.method_set", request, *guest.put(method)) == status
    assert guest.text("http_req.method_get", request) == (b"GET" if status else method)


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        (b"https://backend.example/a?b=c", Status.OK),
        (b"/only/path", Status.OK),
        (b"/redirect?to=http://", Status.OK),
        (b"example.com", Status.OK),
        (b"*", Status.OK),
        (b"", Status.ERROR),
        (b"/with space", Status.ERROR),
        (b"/line\nbreak", Status.ERROR),
        (b"/caf\xc3\xa9", Status.ERROR),
        (b"http://", Status.ERROR),
        (b"http:///path", Status.ERROR),
        (b"://host/", Status.ERROR),
        (b"/" + b"x" * 20_000, Status.ERROR),
        (b"/" + b"x" * 70_000, Status.INVAL),
    ],
)
def test_uris_must_be_uris(uri: bytes, status: Status) -> None:
    guest = FastlyGuest()
    request = guest.get("http_req.new")
    assert guest.do("http_req.uri_set", request, *guest.put(uri)) == status
    assert guest.text("http_req.uri_get", request) == (b"/" if status else uri)


def test_short_buffers_for_method_and_uri_say_what_they_need() -> None:
    guest = FastlyGuest(client=FakeDownstream(method=b"OPTIONS"))
    request, _ = guest.downstream()
    buffer, size = guest.room(8), guest.room(4)
    assert guest.do("http_req.method_get", request, buffer, 6, size) == Status.BUFLEN
    assert guest.u32_at(size) == 7
    assert guest.do("http_req.uri_get", request, buffer, 8, size) == Status.BUFLEN
    assert guest.u32_at(size) == len(b"http://example.com/")


def test_what_the_guest_sets_is_charged_and_given_back() -> None:
    guest = FastlyGuest()
    request, _ = guest.downstream()
    account = guest.made.account
    assert guest.do("http_req.uri_set", request, *guest.put(b"/" + b"x" * 9_000)) == Status.OK
    assert account.held >= 9_000
    assert guest.do("http_req.uri_set", request, *guest.put(b"/")) == Status.OK
    assert account.held < 100
    key = guest.put(b"k" * 500)
    assert guest.do("http_req.cache_override_v2_set", request, 7, 60, 30, *key) == Status.OK
    assert account.held >= 500
    assert guest.do("http_req.close", request) == Status.OK
    assert account.held == 0


def test_cache_override_framing_and_decompression_are_kept_for_sending() -> None:
    guest = FastlyGuest()
    handle = guest.get("http_req.new")
    request = guest.box.items[handle]
    assert guest.do("http_req.cache_override_set", handle, 0b0101, 60, 30) == Status.OK
    assert request.cache_override == CacheOverride(0b0101, 60, 30)
    assert guest.do("http_req.cache_override_set", handle, 16, 0, 0) == Status.INVAL
    key = guest.put(b"product-7")
    assert guest.do("http_req.cache_override_v2_set", handle, 2, 1, 0, *key) == Status.OK
    assert request.cache_override == CacheOverride(2, 1, 0, b"product-7")
    assert guest.do("http_req.cache_override_v2_set", handle, 32, 1, 0, *key) == Status.INVAL
    assert guest.do("http_req.framing_headers_mode_set", handle, 1) == Status.OK
    assert request.manual_framing
    assert guest.do("http_req.framing_headers_mode_set", handle, 2) == Status.INVAL
    assert guest.do("http_req.auto_decompress_response_set", handle, 1) == Status.OK
    assert request.auto_decompress == 1
    assert guest.do("http_req.auto_decompress_response_set", handle, 2) == Status.INVAL


def override_v3(
    guest: FastlyGuest, key: tuple[int, int], *, ttl: int = 60, stale: int = 30, timeout: int = 250
) -> int:
    """Address of the struct that `cache_override_v3_set` reads."""
    return guest.put(pack("<IIIII", ttl, stale, *key, timeout))[0]


def test_a_cache_override_in_a_struct_is_kept_with_its_lookup_timeout() -> None:
    guest = FastlyGuest()
    handle = guest.get("http_req.new")
    request = guest.box.items[handle]
    at = override_v3(guest, guest.put(b"product-7"))
    assert guest.do("http_req.cache_override_v3_set", handle, 0b10110, at) == Status.OK
    assert request.cache_override == CacheOverride(0b10110, 60, 30, b"product-7", 250)
    assert guest.do("http_req.cache_override_v3_set", handle, 0b1111, at) == Status.OK
    assert request.cache_override == CacheOverride(0b1111, 60, 30, b"product-7", None)
    unset = guest.put(bytes(20))[0]
    assert guest.do("http_req.cache_override_v3_set", handle, 0b10000, unset) == Status.OK
    assert request.cache_override == CacheOverride(0b10000, 0, 0, b"", 0)


def test_a_cache_override_in_a_struct_is_charged_and_given_back() -> None:
    guest = FastlyGuest()
    handle = guest.get("http_req.new")
    longest = override_v3(guest, guest.put(b"k" * 16_384))
    assert guest.do("http_req.cache_override_v3_set", handle, 0, longest) == Status.OK
    assert guest.made.account.held >= 16_384
    short = override_v3(guest, guest.put(b"k"))
    assert guest.do("http_req.cache_override_v3_set", handle, 0, short) == Status.OK
    assert guest.made.account.held < 100
    assert guest.do("http_req.close", handle) == Status.OK
    assert guest.made.account.held == 0


def test_a_cache_override_in_a_struct_that_lies_changes_nothing() -> None:
    guest = FastlyGuest(limits=Limits(host_memory=10_000))
    handle = guest.get("http_req.new")
    request = guest.box.items[handle]

    def refused(tag: int, at: int) -> Status:
        status = guest.do("http_req.cache_override_v3_set", handle, tag, at)
        assert request.cache_override is None
        return status

    good = override_v3(guest, guest.put(b"key"))
    for unknown in (0b100000, 1 << 31):
        assert refused(unknown, good) == Status.INVAL
    assert refused(0, guest.size - 19) == Status.INVAL, "the struct ends outside"
    assert refused(0, 0xFFFF_FFFC) == Status.INVAL
    assert refused(0, override_v3(guest, (guest.size - 2, 3))) == Status.INVAL, "and so its key"
    assert refused(0, override_v3(guest, (0xFFFF_FFFF, 0xFFFF_FFFF))) == Status.INVAL
    assert refused(0, override_v3(guest, (0, 16_385))) == Status.INVAL, "a key that is too long"
    assert refused(0, override_v3(guest, (0, 16_384))) == Status.LIMITEXCEEDED, "or too dear"
    assert guest.do("http_req.cache_override_v3_set", handle, 0, good) == Status.OK


def test_every_call_that_names_a_request_wants_a_live_one() -> None:
    guest = FastlyGuest()
    for name, rest in {
        "http_req.close": 0,
        "http_req.method_get": 3,
        "http_req.method_set": 2,
        "http_req.uri_get": 3,
        "http_req.uri_set": 2,
        "http_req.version_get": 1,
        "http_req.version_set": 1,
        "http_req.framing_headers_mode_set": 1,
        "http_req.cache_override_set": 3,
        "http_req.cache_override_v2_set": 5,
        "http_req.cache_override_v3_set": 2,
        "http_req.auto_decompress_response_set": 1,
    }.items():
        assert guest.do(name, INVALID, *[0] * rest) == Status.BADF, name

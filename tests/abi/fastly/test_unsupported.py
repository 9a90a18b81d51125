"""What answers UNSUPPORTED: arguments are looked at first where it says so, and operators hear."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from edge.abi import unsupported_log
from edge.abi.fastly.status import Status
from edge.abi.unsupported_log import MAX_TOLD, UnsupportedLog
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.sandboxes import make_service

PURGE = "purge.purge_surrogate_key"
TRANSFORM = "image_optimizer.transform_image_optimizer_request"


def purge(guest: FastlyGuest, key: bytes, mask: int = 0, config: int = 0) -> Status:
    return guest.do(PURGE, *guest.put(key), mask, config)


def test_a_good_purge_is_unsupported() -> None:
    guest = FastlyGuest()
    assert purge(guest, b"article-7") == Status.UNSUPPORTED
    assert purge(guest, b"k" * 1024, mask=1, config=0xFFFF_FFFF) == Status.UNSUPPORTED
    config, reply, written = guest.room(12), guest.room(64), guest.room(4)
    for offset, number in enumerate((reply, 64, written)):
        guest.box.memory.write_u32(config + 4 * offset, number)
    assert purge(guest, b"key", mask=3, config=config) == Status.UNSUPPORTED


@pytest.mark.parametrize(
    "key", [b"", b"k" * 1025, b"two words", b"tab\t", b"nul\0", b"\xff", "ä".encode(), b"\x7f"]
)
def test_a_bad_surrogate_key_is_invalid(key: bytes) -> None:
    assert purge(FastlyGuest(), key) == Status.INVAL


def test_bad_purge_options_are_invalid() -> None:
    guest = FastlyGuest()
    assert purge(guest, b"key", mask=4) == Status.INVAL
    assert purge(guest, b"key", mask=2, config=guest.size - 11) == Status.INVAL
    config = guest.room(12)
    for numbers in ((guest.size, 1, 64), (64, 0xFFFF_FFFF, 64), (64, 8, guest.size - 3)):
        for offset, number in enumerate(numbers):
            guest.box.memory.write_u32(config + 4 * offset, number)
        assert purge(guest, b"key", mask=2, config=config) == Status.INVAL


class Transforming(SendingGuest):
    """A guest with an image request; arguments that a test does not give are good."""

    def __init__(self) -> None:
        super().__init__()
        self.config = self.room(8)

    def options(self, at: int, length: int) -> None:
        self.box.memory.write_u32(self.config, at)
        self.box.memory.write_u32(self.config + 4, length)

    def transform(self, **given: int) -> Status:
        name = self.put(given.get("name", 0).to_bytes(1, "big") if "name" in given else b"origin")
        return self.do(
            TRANSFORM,
            given.get("request", self.get("http_req.new")),
            given.get("body", self.body(b"")),
            *name,
            given.get("mask", 0),
            given.get("config", self.config),
            given.get("detail", self.room(12)),
            given.get("response", self.room(4)),
            self.room(4),
        )


def test_a_good_image_request_is_unsupported() -> None:
    guest = Transforming()
    assert guest.transform() == Status.UNSUPPORTED
    guest.options(*guest.put(b'{"width": 100}'))
    assert guest.transform(mask=2) == Status.UNSUPPORTED


def test_a_bad_image_request_is_told_what_it_is() -> None:
    guest = Transforming()
    assert guest.transform(request=INVALID) == Status.BADF
    assert guest.transform(body=INVALID) == Status.BADF
    assert guest.transform(body=guest.get("http_req.new")) == Status.BADF
    assert guest.transform(name=0x41) == Status.INVAL  # no such backend
    assert guest.transform(name=0xFF) == Status.INVAL
    assert guest.transform(mask=1) == Status.INVAL
    assert guest.transform(mask=4) == Status.INVAL
    assert guest.transform(detail=guest.size - 11) == Status.INVAL
    assert guest.transform(response=guest.size - 3) == Status.INVAL
    assert guest.transform(mask=2, config=guest.size - 7) == Status.INVAL
    for at, length in ((guest.size, 1), (16, 64 * 1024 + 1), guest.put(b"\xff")):
        guest.options(at, length)
        assert guest.transform(mask=2) == Status.INVAL


def test_the_operator_hears_once_of_each_function_of_each_service(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsupported_log.UNSUPPORTED_LOG, "_told", set())
    service = make_service()
    for name in ("shop", "blog"):
        guest = FastlyGuest(service=replace(service, name=name))
        for _ in range(3):
            assert purge(guest, b"") == Status.INVAL
            assert purge(guest, b"key") == Status.UNSUPPORTED
            assert guest.do("cache.close", 1) == Status.UNSUPPORTED
    heard = [
        (record.levelno, record.name, getattr(record, "service", ""), record.getMessage())
        for record in caplog.records
    ]
    reason = "which answers UNSUPPORTED: the cache is not built yet"
    assert heard == [
        (logging.WARNING, "edge.hostcalls", service, f"a guest called {call}, {reason}")
        for service in ("shop", "blog")
        for call in ("fastly_purge.purge_surrogate_key", "fastly_cache.close")
    ]


def test_there_is_an_end_to_what_is_told(caplog: pytest.LogCaptureFixture) -> None:
    heard = UnsupportedLog()
    for number in range(MAX_TOLD + 10):
        heard.tell(f"service {number}", "module", "function", "why")
    assert len(caplog.records) == MAX_TOLD

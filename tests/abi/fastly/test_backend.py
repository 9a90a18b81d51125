"""What a guest may know of its backends."""

from __future__ import annotations

import pytest

from edge.abi.fastly.backend import abi
from edge.abi.fastly.status import Status
from edge.model.backend import Backend, Origin, TlsVersion
from edge.upstream.fetch import Health
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import FastlyGuest

FULL = Backend(
    "full",
    Origin(True, "2001:db8::1", 8443, "/v1"),
    override_host="www.example.com",
    connect_timeout=0.25,
    first_byte_timeout=3600,
    between_bytes_timeout=1.5,
    min_tls=TlsVersion.TLS_1_2,
    max_tls=TlsVersion.TLS_1_3,
    keep_alive=12.5,
    tcp_keep_alive=7,
    tcp_keep_alive_interval=3,
    tcp_keep_alive_probes=4,
)
NUMBERS = {
    "is_ssl": (1, 0),
    "is_dynamic": (0, 0),
    "is_healthy": (2, 0),
    "get_port": (8443, 80),
    "get_connect_timeout_ms": (250, 1000),
    "get_first_byte_timeout_ms": (3_600_000, 15_000),
    "get_between_bytes_timeout_ms": (1500, 10_000),
    "get_http_keepalive_time": (12_500, 30_000),
    "get_tcp_keepalive_enable": (1, 0),
    "get_tcp_keepalive_interval": (3, 0),
    "get_tcp_keepalive_probes": (4, 0),
    "get_tcp_keepalive_time": (7, 0),
    "get_ssl_min_version": (2, None),
    "get_ssl_max_version": (3, None),
}
TEXTS = {
    "get_host": (b"2001:db8::1", b"origin.example"),
    "get_override_host": (b"www.example.com", None),
}


def two_backends() -> SendingGuest:
    guest = SendingGuest(FULL)
    guest.upstream.told["full"] = Health.UNHEALTHY
    return guest


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    guest = two_backends()
    width = 2 if name == "get_port" else 4
    for backend, expected in zip((b"full", b"origin"), NUMBERS[name], strict=True):
        out = guest.room(8)
        guest.box.memory.write(out, b"\xaa" * 8)
        status = guest.do(f"backend.{name}", *guest.put(backend), out)
        if expected is None:
            assert status == Status.NONE
        else:
            assert status == Status.OK
            assert guest.bytes_at(out, 8) == expected.to_bytes(width, "little").ljust(8, b"\xaa")


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    guest = two_backends()
    full, plain = TEXTS[name]
    assert guest.text(f"backend.{name}", *guest.put(b"full")) == full
    if plain is None:
        missing = guest.do(f"backend.{name}", *guest.put(b"origin"), 64, 64, 128)
        assert missing == Status.NONE
    else:
        assert guest.text(f"backend.{name}", *guest.put(b"origin")) == plain
    assert full is not None
    size = guest.room(4)
    short = guest.do(f"backend.{name}", *guest.put(b"full"), 64, len(full) - 1, size)
    assert short == Status.BUFLEN
    assert guest.u32_at(size) == len(full)


def test_exists_never_fails_for_a_name_that_nobody_has() -> None:
    guest = two_backends()
    assert guest.get("backend.exists", *guest.put(b"full")) == 1
    assert guest.get("backend.exists", *guest.put(b"nobody")) == 0
    assert FastlyGuest().get("backend.exists", 0, 0) == 0


@pytest.mark.parametrize("name", [name for name in abi.hostcalls if name != "exists"])
def test_questions_about_a_backend_that_is_not_there_are_invalid(name: str) -> None:
    outs = (64, 64, 128) if name in TEXTS else (64,)
    for guest in (two_backends(), FastlyGuest()):
        assert guest.do(f"backend.{name}", *guest.put(b"nobody"), *outs) == Status.INVAL


@pytest.mark.parametrize("name", list(abi.hostcalls))
def test_a_guest_that_lies_about_the_name(name: str) -> None:
    guest = two_backends()
    outs = (64, 64, 128) if name in TEXTS else (64,)
    assert guest.do(f"backend.{name}", *guest.put(b"\xff\xfe"), *outs) == Status.INVAL
    assert guest.do(f"backend.{name}", guest.size - 2, 4, *outs) == Status.INVAL
    assert guest.do(f"backend.{name}", 0, 70_000, *outs) == Status.INVAL
    out_of_range = (*outs[:-1], guest.size - 1)
    assert guest.do(f"backend.{name}", *guest.put(b"full"), *out_of_range) == Status.INVAL

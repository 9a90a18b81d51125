"""Backends that a guest makes: every field, every bound, and structs of every age."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from edge.abi.fastly.backend import MAX_DYNAMIC
from edge.abi.fastly.status import Status
from edge.model.backend import Backend, HealthCheck, Origin, TlsVersion
from edge.model.limits import Limits
from tests.support.fake_upstream import SendingGuest
from tests.support.fastly_guest import INVALID, FastlyGuest

PLAIN = Backend("mine", Origin(False, "api.example.com", 80), dynamic=True)
SIZE = 108
TLS = 1 << 5


class Registering(SendingGuest):
    """A guest with one struct, filled field by field."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits=limits)
        self.at = self.room(SIZE)
        self.mask = 0

    def number(self, bit: int, offset: int, value: int) -> Registering:
        self.mask |= 1 << bit if bit else 0
        self.box.memory.write_u32(self.at + offset, value)
        return self

    def string(self, bit: int, offset: int, text: bytes) -> Registering:
        ptr, length = self.put(text)
        self.number(bit, offset, ptr)
        return self.number(bit, offset + 4, length)

    def register(self, name: bytes = b"mine", target: bytes = b"api.example.com") -> Status:
        raw = (*self.put(name), *self.put(target), self.mask, self.at)
        return self.do("http_req.register_dynamic_backend", *raw)

    def found(self, name: str = "mine") -> Backend:
        """What a request to it is sent to."""
        self.send_async(backend=name.encode())
        return self.last.request.backend


@pytest.mark.parametrize(
    ("target", "tls", "origin"),
    [
        (b"api.example.com", False, Origin(False, "api.example.com", 80)),
        (b"API.example.com.", True, Origin(True, "api.example.com", 443)),
        (b"api.example.com:8080", True, Origin(True, "api.example.com", 8080)),
        (b"192.0.2.1:81", False, Origin(False, "192.0.2.1", 81)),
        (b"[2001:DB8:0::1]", False, Origin(False, "2001:db8::1", 80)),
        (b"[2001:db8::1]:443", True, Origin(True, "2001:db8::1", 443)),
        (b"localhost", False, Origin(False, "localhost", 80)),
    ],
)
def test_a_target_is_a_host_perhaps_with_a_port(target: bytes, tls: bool, origin: Origin) -> None:
    guest = Registering()
    guest.mask = TLS if tls else 0
    assert guest.register(target=target) == Status.OK
    assert guest.found() == replace(PLAIN, url=origin)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"http://api.example.com",
        b"api.example.com/path",
        b"user@api.example.com",
        b"api.example.com:0",
        b"api.example.com:65536",
        b"api.example.com:x",
        b"a b",
        b"a\r\nb",
        b"2001:db8::1",
        b"[::1",
        b"caf\xc3\xa9.example",
        b"\xff\xfe",
        b"x" * 1025,
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    guest = Registering()
    assert guest.register(target=target) == Status.INVAL
    assert guest.get("backend.exists", *guest.put(b"mine")) == 0


@pytest.mark.parametrize("name", [b"", b"\xff", b"n" * 1025])
def test_names_are_text_of_a_sane_length(name: bytes) -> None:
    assert Registering().register(name=name) == Status.INVAL


def test_a_name_that_is_taken_is_an_error() -> None:
    guest = Registering()
    assert guest.register(name=b"origin") == Status.ERROR, "a static one has it"
    assert guest.register() == Status.OK
    assert guest.register() == Status.ERROR


@pytest.mark.parametrize("bit", [0, 19, 31])
def test_reserved_and_unknown_bits_are_refused(bit: int) -> None:
    guest = Registering()
    guest.mask = 1 << bit
    assert guest.register() == Status.INVAL


def test_every_field() -> None:
    guest = Registering()
    key = guest.get("secret_store.from_bytes", *guest.put(b"PEM of a key"))
    guest.string(1, 0, b"www.example.com").number(2, 8, 250).number(3, 12, 2000).number(4, 16, 500)
    guest.mask |= TLS
    guest.number(6, 20, 2).number(7, 24, 3).string(8, 28, b"cert.example.com")
    guest.string(9, 36, b"PEM of a CA").string(10, 44, b"ECDHE+AESGCM").string(
        11, 52, b"sni.example.com"
    )
    guest.string(13, 60, b"PEM of a certificate").number(13, 68, key)
    guest.mask |= 1 << 14 | 1 << 17
    guest.number(15, 72, 45_000).number(15, 76, 1).number(15, 80, 5).number(15, 84, 3)
    guest.number(15, 88, 60)
    guest.number(16, 92, 10).number(16, 96, 100).number(16, 100, 90_000)
    assert guest.register() == Status.OK
    backend = guest.found()
    certificate = backend.client_certificate
    assert certificate is not None
    assert certificate.certificate == "PEM of a certificate"
    assert certificate.key.reveal() == b"PEM of a key"
    assert backend == Backend(
        "mine",
        Origin(True, "api.example.com", 443),
        override_host="www.example.com",
        connect_timeout=0.25,
        first_byte_timeout=2.0,
        between_bytes_timeout=0.5,
        min_tls=TlsVersion.TLS_1_2,
        max_tls=TlsVersion.TLS_1_3,
        cert_host="cert.example.com",
        ca_certificate="PEM of a CA",
        ciphers="ECDHE+AESGCM",
        sni_host="sni.example.com",
        client_certificate=certificate,
        grpc=True,
        prefer_ipv4=True,
        keep_alive=45.0,
        tcp_keep_alive=60.0,
        tcp_keep_alive_interval=5.0,
        tcp_keep_alive_probes=3,
        max_connections=10,
        max_use=100,
        max_lifetime=90.0,
        dynamic=True,
    )


def test_fields_without_their_bit_are_not_read() -> None:
    guest = Registering()
    guest.box.memory.write(guest.at, b"\xff" * SIZE)
    assert guest.register() == Status.OK
    assert guest.found() == PLAIN


@pytest.mark.parametrize(("bit", "end"), [(1, 8), (4, 20), (7, 28), (11, 60), (13, 72)])
def test_older_structs_may_end_where_memory_ends(bit: int, end: int) -> None:
    guest = Registering()
    fields = guest.bytes_at(guest.at, SIZE)
    guest.at = guest.size - end
    guest.box.memory.write(guest.at, fields[:end])
    guest.string(11, 52, b"x") if bit == 11 else guest.number(bit, end - 4, 1)
    if bit == 1:
        guest.string(1, 0, b"x")
    if bit == 13:
        guest.string(13, 60, b"x").number(13, 68, guest.get("secret_store.from_bytes", 0, 0))
    assert guest.register() == Status.OK
    guest.at += 4
    assert guest.register(name=b"other") == Status.INVAL, "but what is asked for must be there"


def test_pooling_can_be_turned_off_and_the_name_in_tls_too() -> None:
    guest = Registering()
    guest.number(12, 72, 0).string(11, 52, b"")
    assert guest.register() == Status.OK
    assert guest.found() == replace(PLAIN, keep_alive=0.0, use_sni=False)


def test_keep_alive_without_figures_has_ours() -> None:
    guest = Registering()
    guest.number(15, 72, 0).number(15, 76, 1)
    assert guest.register() == Status.OK
    assert guest.found() == replace(PLAIN, tcp_keep_alive=300.0)


def test_times_and_numbers_beyond_what_an_operator_may_write_are_cut() -> None:
    guest = Registering()
    for bit, offset in ((2, 8), (3, 12), (4, 16), (16, 92), (16, 96), (16, 100)):
        guest.number(bit, offset, 0xFFFF_FFFF)
    assert guest.register() == Status.OK
    backend = guest.found()
    assert (backend.connect_timeout, backend.first_byte_timeout) == (600.0, 3600.0)
    assert backend.between_bytes_timeout == 3600.0
    assert (backend.max_connections, backend.max_use) == (100_000, 1_000_000)
    assert backend.max_lifetime == 86_400.0
    guest = Registering().number(2, 8, 0)
    assert guest.register() == Status.OK
    assert guest.found().connect_timeout == 0.001


@pytest.mark.parametrize(
    ("bit", "offset", "text"),
    [
        (1, 0, b""),
        (1, 0, b"h" * 1025),
        (1, 0, b"a\r\nx: y"),
        (1, 0, b"a b"),
        (8, 28, b""),
        (8, 28, b"h" * 1025),
        (8, 28, b"caf\xc3\xa9"),
        (9, 36, b""),
        (9, 36, b"\xff"),
        (9, 36, b"c" * 65_537),
        (10, 44, b""),
        (10, 44, b"c" * 8193),
        (11, 52, b"h" * 1025),
        (13, 60, b""),
    ],
)
def test_texts_that_cannot_be(bit: int, offset: int, text: bytes) -> None:
    assert Registering().string(bit, offset, text).register() == Status.INVAL


def test_pointers_that_lead_nowhere() -> None:
    for bit, offset in ((1, 0), (8, 28), (9, 36), (10, 44), (11, 52), (13, 60)):
        guest = Registering()
        guest.number(bit, offset, guest.size - 2).number(bit, offset + 4, 3)
        assert guest.register() == Status.INVAL
    assert Registering().number(18, 104, 0xFFFF_FFF0).register() == Status.INVAL


def test_tls_versions_have_four_numbers_and_an_order() -> None:
    assert Registering().number(6, 20, 4).register() == Status.INVAL
    assert Registering().number(7, 24, 4).register() == Status.INVAL
    assert Registering().number(6, 20, 3).number(7, 24, 2).register() == Status.INVAL


def test_the_key_of_a_certificate_is_a_secret() -> None:
    for wrong in (INVALID, 0):
        guest = Registering().string(13, 60, b"PEM").number(13, 68, wrong)
        assert guest.register() == Status.BADF
    guest = Registering().string(13, 60, b"PEM")
    assert guest.number(13, 68, guest.body()).register() == Status.BADF


def check(guest: Registering, **parts: object) -> Registering:
    """Put a `healthcheck_config` behind the struct."""
    given: dict[str, object] = {
        "interval": 0, "timeout": 0, "host": b"", "method": b"", "path": b"",
        "status": 0, "window": 0, "threshold": 0, "initial": 0,
    }  # fmt: skip
    given |= parts
    texts = [number for name in ("host", "method", "path") for number in guest.put(given[name])]  # type: ignore[arg-type]
    numbers = [given[name] for name in ("status", "window", "threshold", "initial")]
    packed = struct.pack("<QQ6I4I", given["interval"], given["timeout"], *texts, *numbers)
    return guest.number(18, 104, guest.put(packed)[0])


def test_a_health_check_is_kept() -> None:
    guest = check(
        Registering(), interval=2000, timeout=500, host=b"h.example", method=b"GET", path=b"/up?x",
        status=204, window=4, threshold=2, initial=1,
    )  # fmt: skip
    assert guest.register() == Status.OK
    assert guest.found().health_check == HealthCheck(
        "/up?x", "GET", "h.example", 204, 2.0, 0.5, 4, 2, 1
    )


def test_a_health_check_of_zeros_is_the_usual_one() -> None:
    guest = check(Registering())
    assert guest.register() == Status.OK
    assert guest.found().health_check == HealthCheck(initial=0)


def test_the_times_of_a_health_check_are_cut() -> None:
    guest = check(Registering(), interval=1, timeout=1 << 63)
    assert guest.register() == Status.OK
    found = guest.found().health_check
    assert found is not None
    assert (found.interval, found.timeout) == (0.05, 60.0)


@pytest.mark.parametrize(
    "parts",
    [
        {"method": b"G T"},
        {"path": b"up"},
        {"path": b"/a b"},
        {"path": b"/\r\n"},
        {"host": b"a b"},
        {"status": 99},
        {"status": 600},
        {"window": 65},
        {"window": 3, "threshold": 4},
        {"window": 3, "initial": 4},
        {"path": b"\xff"},
    ],
)
def test_health_checks_that_cannot_be(parts: dict[str, object]) -> None:
    assert check(Registering(), **parts).register() == Status.INVAL


def test_what_a_backend_carries_is_charged_and_their_number_is_bounded() -> None:
    guest = Registering(Limits(host_memory=4 << 20))
    guest.string(9, 36, b"c" * 60_000)
    statuses = [guest.register(name=b"n%d" % number) for number in range(80)]
    assert statuses[0] == Status.OK
    assert statuses[-1] == Status.LIMITEXCEEDED
    assert guest.box.limits_hit["limits.host_memory"]
    guest.box.close()
    assert guest.box.account.held == 0
    guest = Registering()
    statuses = [guest.register(name=b"n%d" % number) for number in range(MAX_DYNAMIC + 1)]
    assert statuses == [Status.OK] * MAX_DYNAMIC + [Status.LIMITEXCEEDED]


def test_a_guest_sees_what_it_has_made_and_no_other_does() -> None:
    guest = Registering()
    assert guest.register() == Status.OK
    name = guest.put(b"mine")
    assert guest.get("backend.exists", *name) == 1
    assert guest.get("backend.is_dynamic", *name) == 1
    assert guest.text("backend.get_host", *name) == b"api.example.com"
    other = Registering()
    assert other.get("backend.exists", *other.put(b"mine")) == 0


def test_where_nothing_can_be_sent_no_backend_can_be_made() -> None:
    guest = FastlyGuest()
    raw = (*guest.put(b"mine"), *guest.put(b"host"), 0, 0)
    assert guest.do("http_req.register_dynamic_backend", *raw) == Status.UNSUPPORTED

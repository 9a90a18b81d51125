"""Config stores under both names, and secrets."""

from __future__ import annotations

import pytest

from edge.abi.fastly.status import Status
from edge.model.limits import Limits
from edge.model.secret import Secret
from edge.model.service import Service
from tests.support.fastly_guest import INVALID, FastlyGuest
from tests.support.sandboxes import make_service

SERVICE: Service = make_service(
    config_stores={"animals": {"dog": "woof", "käse": "mäuse", "empty": ""}},
    secret_stores={"keys": {"api.key": Secret(b"hush\0\xff"), "none": Secret(b"")}},
)


@pytest.fixture(params=["dictionary", "config_store"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_store(guest: FastlyGuest, kind: str, name: bytes) -> int:
    return guest.get(f"{kind}.open", *guest.put(name))


def test_values_of_a_config_store(kind: str) -> None:
    guest = FastlyGuest(service=SERVICE)
    store = open_store(guest, kind, b"animals")
    for key, value in (("dog", "woof"), ("käse", "mäuse"), ("empty", "")):
        found = guest.text(f"{kind}.get", store, *guest.put(key.encode()))
        assert found.decode() == value


def test_absent_stores_keys_and_short_buffers(kind: str) -> None:
    guest = FastlyGuest(service=SERVICE)
    assert guest.do(f"{kind}.open", *guest.put(b"plants"), 64) == Status.BADF
    store = open_store(guest, kind, b"animals")
    get = f"{kind}.get"
    buffer, size = guest.room(8), guest.room(4)
    assert guest.do(get, store, *guest.put(b"cat"), buffer, 8, size) == Status.NONE
    assert guest.do(get, store, *guest.put(b"dog"), buffer, 3, size) == Status.BUFLEN
    assert guest.u32_at(size) == 4
    assert guest.do(get, INVALID, *guest.put(b"dog"), buffer, 8, size) == Status.BADF
    assert guest.do(get, store, *guest.put(b"\xff"), buffer, 8, size) == Status.INVAL
    assert guest.do(get, store, *guest.put(b"k" * 257), buffer, 8, size) == Status.INVAL
    assert guest.do(get, store, *guest.put(b"k" * 256), buffer, 8, size) == Status.NONE


def test_secrets() -> None:
    guest = FastlyGuest(service=SERVICE)
    store = guest.get("secret_store.open", *guest.put(b"keys"))
    secret = guest.get("secret_store.get", store, *guest.put(b"api.key"))
    assert guest.text("secret_store.plaintext", secret) == b"hush\0\xff"
    size = guest.room(4)
    assert guest.do("secret_store.plaintext", secret, 64, 5, size) == Status.BUFLEN
    assert guest.u32_at(size) == 6


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (b"absent", Status.NONE),
        (b"", Status.INVAL),
        (b"a/b", Status.INVAL),
        (b"k" * 256, Status.INVAL),
        (b"k" * 255, Status.NONE),
        (b"caf\xc3\xa9", Status.INVAL),
    ],
)
def test_names_of_secret_stores_and_secrets(name: bytes, status: Status) -> None:
    guest = FastlyGuest(service=SERVICE)
    assert guest.do("secret_store.open", *guest.put(name), 64) == status
    store = guest.get("secret_store.open", *guest.put(b"keys"))
    assert guest.do("secret_store.get", store, *guest.put(name), 64) == status


def test_secrets_want_live_handles() -> None:
    guest = FastlyGuest(service=SERVICE)
    assert guest.do("secret_store.get", INVALID, *guest.put(b"api.key"), 64) == Status.BADF
    assert guest.do("secret_store.plaintext", INVALID, 64, 5, 128) == Status.BADF


def test_a_guest_makes_secrets_of_its_own_within_its_account() -> None:
    guest = FastlyGuest(limits=Limits(host_memory=1 << 20))
    own = guest.get("secret_store.from_bytes", *guest.put(b"mine"))
    assert guest.text("secret_store.plaintext", own) == b"mine"
    assert "mine" not in repr(guest.box.items[own])
    big = guest.put(b"s" * 65_535)
    statuses = [guest.do("secret_store.from_bytes", *big, 64) for _ in range(20)]
    assert statuses[0] == Status.OK
    assert statuses[-1] == Status.LIMITEXCEEDED
    assert guest.do("secret_store.from_bytes", big[0], 65_536, 64) == Status.INVAL
    guest.made.box.close()
    assert guest.made.account.held == 0

"""`fastly_geo` and `fastly_device_detection`: records as JSON."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from edge.abi.capabilities import Capabilities
from edge.abi.fastly.status import Status
from edge.settings import DeviceDetection, Geolocation
from edge.stores.devices import Devices
from edge.stores.geo import Geo
from tests.support.fastly_guest import FastlyGuest
from tests.support.mmdb import mmdb

PARIS = ip_address("192.0.2.1").packed


@pytest.fixture
def guest(tmp_path: Path) -> FastlyGuest:
    path = tmp_path / "geo.mmdb"
    path.write_bytes(mmdb({"198.51.100.0/24": {"city": {"names": {"en": "Oslo"}}}}))
    geo = Geo.load(Geolocation(file=path, addresses={"192.0.2.1": '{"city": "Paris"}'}))
    devices = Devices.load(DeviceDetection(user_agents={"phöne": '{"device": {"name": "ä"}}'}))
    return FastlyGuest(capabilities=Capabilities(geo=geo, devices=devices))


def test_a_record_in_memory_does_not_suspend(guest: FastlyGuest) -> None:
    for address in (PARIS, bytes(10) + b"\xff\xff" + PARIS):
        buffer, size = guest.room(1000), guest.room(4)
        assert guest.begin("geo.lookup", *guest.put(address), buffer, 1000, size) == Status.OK
        assert json.loads(guest.bytes_at(buffer, guest.u32_at(size)))["city"] == "Paris"


def test_a_database_is_read_off_the_guests_stack(guest: FastlyGuest) -> None:
    address = guest.put(ip_address("198.51.100.9").packed)
    buffer, size = guest.room(1000), guest.room(4)
    assert guest.begin("geo.lookup", *address, buffer, 1000, size) is None
    guest.cancel()
    assert json.loads(guest.text("geo.lookup", *address))["city"] == "Oslo"


def test_an_unknown_address_is_an_empty_answer(guest: FastlyGuest) -> None:
    for address in (bytes(4), bytes(16)):
        assert guest.text("geo.lookup", *guest.put(address)) == b""
        assert FastlyGuest().text("geo.lookup", 64, len(address)) == b""


def test_geo_wants_an_address_and_a_buffer(guest: FastlyGuest) -> None:
    size = guest.room(4)
    for length in (0, 3, 5, 15, 17, 70_000):
        assert guest.do("geo.lookup", 64, length, 64, 8, size) == Status.INVAL
    paris = guest.put(PARIS)
    assert guest.do("geo.lookup", guest.size - 3, 4, 64, 8, size) == Status.INVAL
    assert guest.do("geo.lookup", *paris, guest.size - 3, 70_000, size) == Status.INVAL
    assert guest.do("geo.lookup", *paris, 64, 70_000, guest.size - 3) == Status.INVAL


@pytest.mark.parametrize("address", ["192.0.2.1", "198.51.100.9"])
def test_a_short_buffer_is_told_the_size_of_a_record(guest: FastlyGuest, address: str) -> None:
    octets = guest.put(ip_address(address).packed)
    size = guest.room(4)
    assert guest.do("geo.lookup", *octets, 64, 7, size) == Status.BUFLEN
    assert guest.u32_at(size) == len(guest.text("geo.lookup", *octets))


def test_a_device(guest: FastlyGuest) -> None:
    agent = guest.put("phöne".encode())
    assert json.loads(guest.text("device_detection.lookup", *agent)) == {"device": {"name": "ä"}}
    size = guest.room(4)
    assert guest.do("device_detection.lookup", *agent, 64, 7, size) == Status.BUFLEN
    assert guest.u32_at(size) == len(guest.text("device_detection.lookup", *agent))


def test_an_unknown_device_and_texts_that_are_none(guest: FastlyGuest) -> None:
    size = guest.room(4)
    name = "device_detection.lookup"
    assert guest.do(name, *guest.put(b"phone"), 64, 99, size) == Status.NONE
    assert FastlyGuest().do(name, 64, 2, 128, 99, 256) == Status.NONE
    assert guest.do(name, *guest.put(b"\xff"), 64, 99, size) == Status.INVAL
    assert guest.do(name, guest.size, 1, 64, 99, size) == Status.INVAL
    assert guest.do(name, *guest.put("phöne".encode()), guest.size - 3, 99, size) == Status.INVAL

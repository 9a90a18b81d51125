"""Geolocation from settings, a JSON file and MaxMind databases."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ConfigError
from edge.settings import Geolocation
from edge.stores.countries import ALPHA_3
from edge.stores.geo import Geo
from edge.stores.mmdb import utc_offset
from edge.stores.records import signature
from tests.support.mmdb import encoded, mmdb

CITY = {
    "city": {"geoname_id": 2_988_507, "names": {"en": "Paris", "de": "Paris (Stadt)"}},
    "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"iso_code": "FR", "names": {"en": "France"}},
    "location": {
        "accuracy_radius": 20,
        "latitude": 48.8566,
        "longitude": 2.3522,
        "time_zone": "Asia/Kolkata",  # an offset that no summer changes
    },
    "postal": {"code": "75001"},
    "subdivisions": [{"iso_code": "IDF"}, {"iso_code": "75"}],
}
AS_OF_NETWORK = {
    "autonomous_system_number": 4_200_000_001,
    "autonomous_system_organization": "Müller Netz",
}
# All fields of Fastly's record, and their JSON types, as typed SDKs want them.
TYPES = {
    "as_name": str, "as_number": int, "area_code": int, "city": str, "conn_speed": str,
    "conn_type": str, "continent": str, "country_code": str, "country_code3": str,
    "country_name": str, "latitude": float, "longitude": float, "metro_code": int,
    "postal_code": str, "proxy_description": str, "proxy_type": str, "utc_offset": int,
}  # fmt: skip


def find(geo: Geo, address: str) -> dict[str, Any] | None:
    packed = ip_address(address).packed
    found = geo.known(packed)
    if found is None and geo.searches:
        found = geo.search(packed)
    return None if found is None else json.loads(found)


def has_all_fields(record: dict[str, Any]) -> bool:
    assert {key: type(record[key]) for key in TYPES} == TYPES
    assert record["region"] is None or isinstance(record["region"], str)
    return set(record) == {*TYPES, "region"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "city.mmdb"
    path.write_bytes(
        mmdb(
            {
                "192.0.2.0/24": CITY,
                "198.51.100.0/25": AS_OF_NETWORK,
                "203.0.113.7/32": {},
                "2001:db8::/32": {"registered_country": {"iso_code": "XX"}},
                "127.0.0.1/32": {"city": {"names": {"en": "Here"}}},
            }
        )
    )
    return path


def test_a_record_of_a_city_database(database: Path) -> None:
    record = find(Geo.load(Geolocation(file=database)), "192.0.2.77")
    assert record is not None
    assert has_all_fields(record)
    known = {
        "city": "Paris", "continent": "EU", "country_code": "FR", "country_code3": "FRA",
        "country_name": "France", "latitude": 48.8566, "longitude": 2.3522, "metro_code": 0,
        "postal_code": "75001", "region": "75", "utc_offset": 530, "as_name": "?", "as_number": 0,
    }  # fmt: skip
    assert {key: record[key] for key in known} == known


def test_a_record_of_a_network_database(database: Path) -> None:
    record = find(Geo.load(Geolocation(file=database)), "198.51.100.127")
    assert record is not None
    assert has_all_fields(record)
    assert (record["as_name"], record["as_number"]) == ("Müller Netz", 4_200_000_001)
    assert (record["city"], record["utc_offset"], record["region"]) == ("?", 9999, None)


def test_addresses_that_a_database_does_not_have(database: Path) -> None:
    geo = Geo.load(Geolocation(file=database))
    assert find(geo, "198.51.100.128") is None
    assert find(geo, "2001:db9::1") is None
    assert find(geo, "127.0.0.2") is None
    assert find(Geo.load(Geolocation()), "192.0.2.1") is None


def test_a_record_with_nothing_in_it_is_a_record(database: Path) -> None:
    geo = Geo.load(Geolocation(file=database))
    for address in ("203.0.113.7", "2001:db8::1"):
        record = find(geo, address)
        assert record is not None
        assert has_all_fields(record)
        assert record["country_code3"] == "?"


def test_values_of_the_wrong_type_are_left_out(tmp_path: Path) -> None:
    wrong = {
        "city": "Paris",
        "country": {"iso_code": 7, "names": ["en"]},
        "location": {"latitude": "north", "longitude": 1, "metro_code": True, "time_zone": "../.."},
        "subdivisions": {"iso_code": "x"},
        "traits": [],
        "autonomous_system_number": 1.5,
    }
    path = tmp_path / "wrong.mmdb"
    path.write_bytes(mmdb({"0.0.0.0/1": wrong}))
    record = find(Geo.load(Geolocation(file=path)), "10.0.0.1")
    assert record is not None
    assert has_all_fields(record)
    assert record["city"] == "?"


def test_records_of_settings_come_before_those_of_the_file(database: Path) -> None:
    geo = Geo.load(
        Geolocation(file=database, addresses={"192.0.2.1": '{"city": "Rome", "mine": [1]}'})
    )
    record = find(geo, "192.0.2.1")
    assert record is not None
    assert (record["city"], record["mine"], record["country_code"]) == ("Rome", [1], "?")
    other = find(geo, "192.0.2.2")
    assert other is not None
    assert other["city"] == "Paris"


def test_a_json_file_of_addresses(tmp_path: Path) -> None:
    path = tmp_path / "geo.json"
    path.write_text('{"192.0.2.1": {"city": "Köln"}, "::ffff:192.0.2.2": {"city": "Bonn"}}')
    geo = Geo.load(Geolocation(file=path))
    assert not geo.searches
    for address, city in (("192.0.2.1", "Köln"), ("192.0.2.2", "Bonn")):
        record = find(geo, address)
        assert record is not None
        assert has_all_fields(record)
        assert record["city"] == city


def test_loopback_is_somewhere_only_for_local_servers(database: Path) -> None:
    assert find(Geo.load(Geolocation()), "127.0.0.1") is None
    for settings in (Geolocation(), Geolocation(file=database)):
        local = Geo.load(settings, default_loopback=True)
        for address in ("127.9.9.9", "::1"):
            record = find(local, address)
            assert record is not None
            assert has_all_fields(record)
            assert record["city"] == "San Francisco"
        assert find(local, "192.0.3.1") is None
    here = find(Geo.load(Geolocation(file=database), default_loopback=True), "127.0.0.1")
    assert here is not None
    assert here["city"] == "Here"


def test_what_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    for name, content in (
        ("absent.mmdb", None),
        ("text.mmdb", b"hello"),
        ("empty.mmdb", b""),
        ("geo.json", b"[1]"),
        ("deep.json", b'{"1.1.1.1": ' + b"[" * 100_000),
        ("key.json", b'{"nowhere": {}}'),
        ("value.json", b'{"192.0.2.1": 7}'),
        ("nan.json", b'{"192.0.2.1": {"latitude": NaN}}'),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            Geo.load(Geolocation(file=path))


def test_a_damaged_database_knows_nothing_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.mmdb"
    # The value of the only key is a map that claims more entries than the file has bytes.
    good = mmdb({"0.0.0.0/1": {"city": {"names": {"en": "Paris"}}}})
    path.write_bytes(good.replace(encoded({"en": "Paris"})[:1], b"\xfc", 1))
    geo = Geo.load(Geolocation(file=path))
    with caplog.at_level(logging.ERROR):
        assert find(geo, "10.0.0.1") is None
        assert find(geo, "10.0.0.2") is None
    assert len(caplog.records) == 1


def test_whoever_shortens_the_file_changes_nothing_for_us(database: Path) -> None:
    geo = Geo.load(Geolocation(file=database))
    database.write_bytes(b"")  # a reader that had mapped the file would be killed by the next page
    record = find(geo, "192.0.2.77")
    assert record is not None
    assert record["city"] == "Paris"


def test_a_signature_tells_that_a_file_is_another(database: Path) -> None:
    geo = Geo.load(Geolocation(file=database))
    assert geo.signature == signature(database) is not None
    database.write_bytes(b"x")
    assert geo.signature != signature(database)
    assert signature(database.with_name("absent")) is signature(None) is None


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("Asia/Kolkata", 530), ("America/Phoenix", -700), ("Etc/UTC", 0), ("No/Where", None),
     ("", None), ("../../etc/passwd", None), ("Pacific/Marquesas", -930)],
)  # fmt: skip
def test_offsets_are_hours_and_minutes(zone: str, offset: int | None) -> None:
    assert utc_offset(zone) == offset


def test_country_codes() -> None:
    assert len(ALPHA_3) == 250
    assert all(len(two) == 2 and len(three) == 3 for two, three in ALPHA_3.items())
    assert (ALPHA_3["US"], ALPHA_3["GB"], ALPHA_3["XK"]) == ("USA", "GBR", "XKX")

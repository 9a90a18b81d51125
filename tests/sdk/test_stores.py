"""A JavaScript service and its stores: seeds that it finds, values that it leaves, its calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edge.testing import Edge, Ending, ServiceUnderTest
from tests.support.guests import build
from tests.support.traces import after, fastly, refusals

pytestmark = pytest.mark.toolchain

START = ["http_req.body_downstream_get", "http_req.method_get", "http_req.uri_get"]
PARIS: dict[str, Any] = {"city": "Paris", "as_number": 64496, "latitude": 48.9}


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceUnderTest]:
    with Edge() as edge:
        yield edge.service(
            build("js/stores"),
            kv_stores={"cart": {"seeded": ("the value", "about it"), "old": "to go"}},
            config_stores={"flags": {"banner": "blue"}},
            secret_stores={"keys": {"api": "s3cret"}},
            acls={"blocked": [("10.0.0.0/8", "BLOCK"), ("10.1.0.0/16", "ALLOW")]},
            geolocation={"192.0.2.1": PARIS},
            device_detection={"my phone": {"device": {"name": "Phone", "is_mobile": True}}},
        )


def calls_after_the_request(service: ServiceUnderTest, target: str, **options: Any) -> list[str]:
    """What the guest asks of its stores, up to its response."""
    response = service.request(options.pop("method", "GET"), target, **options)
    assert response.status < 300, response.text
    calls = fastly(response.wait())
    assert calls[:3] == START
    return calls[3 : calls.index("http_resp.new")]


def test_a_lookup_is_opened_started_waited_for_and_taken(service: ServiceUnderTest) -> None:
    response = service.get("/kv/seeded")
    assert (response.text, response.header("x-metadata")) == ("the value", "about it")
    assert calls_after_the_request(service, "/kv/seeded") == [
        "kv_store.open",
        "kv_store.lookup",
        "async_io.select",
        "kv_store.lookup_wait_v2",
    ]
    assert "http_body.read" not in fastly(response.wait()), "the value never came into the guest"


def test_a_value_that_is_put_is_there_for_the_test(service: ServiceUnderTest) -> None:
    calls = calls_after_the_request(service, "/kv/new?metadata=m", method="PUT", body=b"made")
    assert calls[0] == "kv_store.open"
    assert calls[-2:] == ["kv_store.insert", "kv_store.insert_wait"], "the guest awaits it"
    assert service.kv("cart", "new") == b"made"
    assert service.get("/kv/new").header("x-metadata") == "m"


def test_a_body_that_streams_into_a_store_is_not_read_by_the_guest(
    service: ServiceUnderTest,
) -> None:
    value = bytes(range(256)) * 1000
    calls = calls_after_the_request(
        service, "/kv/streamed?stream", method="PUT", body=iter([value[:9], value[9:]])
    )
    assert calls == ["kv_store.open", "kv_store.insert"]
    assert service.kv("cart", "streamed") == value


def test_a_deletion_and_what_is_not_there(service: ServiceUnderTest) -> None:
    assert service.kv("cart", "old") == b"to go"
    calls = calls_after_the_request(service, "/kv/old", method="DELETE")
    assert calls[:2] == ["kv_store.open", "kv_store.delete"]
    assert calls[-1] == "kv_store.delete_wait"
    assert service.kv("cart", "old") is None
    response = service.get("/kv/old")
    assert response.status == 404
    assert refusals(response.wait()) == {}, "that there is no value is no error of the call"


def test_a_list_of_keys_is_a_body(service: ServiceUnderTest) -> None:
    response = service.get("/list/?prefix=see")
    assert response.json()["list"] == ["seeded"]
    calls = after(response.wait(), "kv_store.open")
    assert [call for call in calls if call.startswith("kv_store.")] == [
        "kv_store.list",
        "kv_store.list_wait",
    ]


def test_forty_operations_are_under_way_at_once(service: ServiceUnderTest) -> None:
    response = service.get("/many")
    assert response.json() == [f"value of many-{i}" for i in range(20)]
    seen = response.wait()
    calls = fastly(seen)
    assert calls.count("kv_store.insert") == calls.count("kv_store.insert_wait") == 20
    assert calls.count("kv_store.lookup") == calls.count("kv_store.lookup_wait_v2") == 20
    lookups = [place for place, call in enumerate(calls) if call == "kv_store.lookup"]
    assert lookups[-1] < calls.index("kv_store.lookup_wait_v2"), "all are started first"
    assert refusals(seen) == {}


@pytest.mark.parametrize(
    ("target", "expected", "calls"),
    [
        ("/config/banner", "blue", ["config_store.open", "config_store.get"]),
        ("/acl/10.9.9.9", {"prefix": "10.0.0.0/8", "action": "BLOCK"}, ["acl.open", "acl.lookup"]),
        ("/acl/10.1.9.9", {"prefix": "10.1.0.0/16", "action": "ALLOW"}, ["acl.open", "acl.lookup"]),
    ],
)
def test_what_was_seeded_is_found(
    service: ServiceUnderTest, target: str, expected: object, calls: list[str]
) -> None:
    assert service.get(target).json() == expected
    assert calls_after_the_request(service, target)[:2] == calls


def test_a_secret_reaches_the_guest_and_no_log(service: ServiceUnderTest) -> None:
    response = service.get("/secret/api")
    assert response.json() == {"text": "s3cret", "bytes": [*b"s3cret"]}
    calls = fastly(response.wait())
    assert calls[3:5] == ["secret_store.open", "secret_store.get"]
    assert "secret_store.plaintext" in calls
    assert not any("s3cret" in line.text for line in service.log)
    assert "s3cret" not in repr(service.finished)


def test_addresses_and_devices_are_known_as_the_test_says(service: ServiceUnderTest) -> None:
    found = service.get("/geo/192.0.2.1").json()
    assert {name: found[name] for name in PARIS} == PARIS
    phone = service.get("/device", headers={"user-agent": "my phone"})
    assert phone.json()["name"] == "Phone"
    assert "device_detection.lookup" in fastly(phone.wait())


@pytest.mark.parametrize(
    "target",
    ["/kv/nothing", "/config/nothing", "/secret/nothing", "/acl/192.0.2.7", "/geo/192.0.2.99"],
)
def test_what_is_not_there_is_null_in_javascript(service: ServiceUnderTest, target: str) -> None:
    response = service.get(target)
    assert response.status == 404
    assert response.wait().outcome.ending is Ending.OK


def test_stores_that_nobody_configured_are_errors(service: ServiceUnderTest) -> None:
    response = service.get("/absent")
    assert response.json().keys() == {"kv", "config", "secret", "acl"}
    assert "opened" not in response.json().values()
    assert refusals(response.wait()) == {
        "kv_store.open": 2,  # INVAL
        "config_store.open": 3,  # BADF
        "secret_store.open": 10,  # NONE
        "acl.open": 10,  # NONE
    }

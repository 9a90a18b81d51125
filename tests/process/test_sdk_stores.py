"""A JavaScript service and its stores, and a rate limiter on two workers, served for real."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.sdk import Answer, Service, Town, town
from tests.support.server import DEADLINE

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

SETTINGS = (
    "kv_stores: [cart]",
    "config_stores: {flags: {banner: blue, long: " + "x" * 8000 + "}}",
    "secret_stores: {keys: {api: s3cret, other: {env: EDGE_TEST_KEY}}}",
    "acls:",
    "  blocked:",
    "    - {prefix: 10.0.0.0/8, action: BLOCK}",
    "    - {prefix: 10.1.0.0/16, action: ALLOW}",
    '    - {prefix: "2001:db8::/32", action: BLOCK}',
)
MORE = """\
geolocation:
  addresses:
    "192.0.2.1": {city: Paris, as_number: 64496, latitude: 48.9}
    "127.0.0.1": {city: Home}
device_detection:
  user_agents:
    "my phone": {device: {name: Phone, brand: Acme, is_mobile: true}}
"""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    services = [
        Service("stores", "js/stores", SETTINGS),
        Service("neighbour", "js/stores", SETTINGS),
        Service("limiter", "js/limiter"),
    ]
    folder = tmp_path_factory.mktemp("stores")
    env = {"EDGE_TEST_KEY": "from the environment"}
    with town(folder, services, workers=2, more=MORE, env=env) as running:
        yield running


def put(city: Town, key: str, body: bytes, query: str = "", *, at: str = "stores") -> Answer:
    return city.ask(at, f"/kv/{key}{query}", method="PUT", body=body)


def test_what_was_put_is_got_with_its_metadata(city: Town) -> None:
    assert city.ask("stores", "/kv/fresh").status == 404
    assert put(city, "fresh", b"\0one\xff", "?metadata=about%20it").status == 201
    found = city.ask("stores", "/kv/fresh")
    assert (found.status, found.body) == (200, b"\0one\xff")
    assert found.header("x-metadata") == "about it"
    assert put(city, "fresh", b"two").status == 201
    found = city.ask("stores", "/kv/fresh")
    assert (found.body, found.header("x-metadata")) == (b"two", "-")


def test_what_was_deleted_is_gone(city: Town) -> None:
    put(city, "doomed", b"x")
    assert city.ask("stores", "/kv/doomed").status == 200
    assert city.ask("stores", "/kv/doomed", method="DELETE").status == 200
    assert city.ask("stores", "/kv/doomed").status == 404


def test_the_modes_of_a_put_add_append_and_prepend(city: Town) -> None:
    assert put(city, "modal", b"b", "?mode=add").status == 201
    assert put(city, "modal", b"z", "?mode=add").status == 500
    assert put(city, "modal", b"c", "?mode=append").status == 201
    assert put(city, "modal", b"a", "?mode=prepend").status == 201
    assert city.ask("stores", "/kv/modal").body == b"abc"


def test_a_value_whose_time_has_come_is_gone(city: Town) -> None:
    put(city, "lasting", b"x", "?ttl=3600")
    put(city, "brief", b"x", "?ttl=1")
    assert city.ask("stores", "/kv/lasting").status == 200
    deadline = time.monotonic() + DEADLINE
    while city.ask("stores", "/kv/brief").status != 404:  # asking is the waiting
        assert time.monotonic() < deadline, "a value of one second is still there"
    assert city.ask("stores", "/kv/lasting").status == 200


def test_a_list_goes_page_by_page(city: Town) -> None:
    for number in range(5):
        put(city, f"page-{number}", b"x")
    keys: list[str] = []
    path = "/list?prefix=page-&limit=2"
    sizes = []
    while True:
        page = city.ask("stores", path).json()
        keys += page["list"]
        sizes.append(len(page["list"]))
        if page.get("cursor") is None:
            break
        path = f"/list?prefix=page-&limit=2&cursor={quote(page['cursor'])}"
    assert keys == [f"page-{number}" for number in range(5)]
    assert sizes == [2, 2, 1]


def test_a_large_value_comes_back_whole(city: Town) -> None:
    value = bytes(range(256)) * 4096 * 2  # 2 MiB
    assert put(city, "large", value).status == 201
    assert city.ask("stores", "/kv/large").body == value


def test_a_body_that_streams_into_a_store_gets_there_although_the_guest_does_not_wait(
    city: Town,
) -> None:
    value = bytes(range(256)) * 4096 * 2  # 2 MiB, more than is here when the guest has ended
    assert put(city, "streamed", value, "?stream").status == 201
    deadline = time.monotonic() + DEADLINE
    while (found := city.ask("stores", "/kv/streamed")).status == 404:
        assert time.monotonic() < deadline, "it never came"
    assert found.body == value


def test_many_writes_and_reads_are_under_way_at_once(city: Town) -> None:
    assert city.ask("stores", "/many").json() == [f"value of many-{i}" for i in range(20)]


@pytest.mark.parametrize("key", ["a%0Ab", "%23", "%3F"])
def test_a_bad_key_is_refused(city: Town, key: str) -> None:
    assert city.ask("stores", f"/kv/{key}").status == 500


def test_a_store_belongs_to_one_service(city: Town) -> None:
    put(city, "mine", b"mine")
    assert city.ask("neighbour", "/kv/mine").status == 404
    put(city, "mine", b"theirs", at="neighbour")
    assert city.ask("stores", "/kv/mine").body == b"mine"


def test_config_and_secrets_are_read_and_absent_is_null(city: Town) -> None:
    assert city.ask("stores", "/config/banner").json() == "blue"
    assert city.ask("stores", "/config/long").json() == "x" * 8000
    assert city.ask("stores", "/config/nothing").status == 404
    assert city.ask("stores", "/secret/api").json() == {"text": "s3cret", "bytes": [*b"s3cret"]}
    assert city.ask("stores", "/secret/other").json()["text"] == "from the environment"
    assert city.ask("stores", "/secret/nothing").status == 404


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.9.9.9", {"prefix": "10.0.0.0/8", "action": "BLOCK"}),
        ("10.1.9.9", {"prefix": "10.1.0.0/16", "action": "ALLOW"}),
        ("2001:db8::7", {"prefix": "2001:db8::/32", "action": "BLOCK"}),
        ("192.0.2.7", None),
    ],
)
def test_an_access_list_answers_with_the_longest_prefix(
    city: Town, address: str, expected: dict[str, str] | None
) -> None:
    answer = city.ask("stores", f"/acl/{address}")
    if expected is None:
        assert answer.status == 404
    else:
        assert answer.json() == expected


def test_addresses_are_looked_up(city: Town) -> None:
    paris = city.ask("stores", "/geo/192.0.2.1").json()
    assert (paris["city"], paris["as_number"], paris["latitude"]) == ("Paris", 64496, 48.9)
    assert city.ask("stores", "/geo/me").json()["city"] == "Home"
    assert city.ask("stores", "/geo/192.0.2.99").status == 404


def test_devices_are_looked_up(city: Town) -> None:
    phone = city.ask("stores", "/device", user_agent="my phone").json()
    assert (phone["name"], phone["mobile"]) == ("Phone", True)
    assert city.ask("stores", "/device", user_agent="your phone").status == 404


def test_a_store_that_nobody_configured_is_an_error_of_the_sdk(city: Town) -> None:
    said = city.ask("stores", "/absent").json()
    assert said.keys() == {"kv", "config", "secret", "acl"}
    assert "opened" not in said.values(), said


def test_values_survive_a_killed_worker(city: Town) -> None:
    put(city, "surviving", b"still here")
    killed, other = city.server.worker_pids()
    os.kill(killed, signal.SIGKILL)
    pids = [killed, other]
    deadline = time.monotonic() + DEADLINE
    while killed in pids or len(pids) < 2:
        assert time.monotonic() < deadline
        pids = [worker["pid"] for worker in city.server.status()["workers"] if worker["pid"]]
    for _ in range(8):  # either worker may answer
        assert city.ask("stores", "/kv/surviving").body == b"still here"


def ask_many(city: Town, key: str, count: int) -> Counter[int]:
    """The statuses of `count` requests from 8 clients at once."""
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda _: city.ask("limiter", x_key=key), range(count))
        return Counter(answer.status for answer in answers)


def test_a_client_is_limited_over_all_workers_together(city: Town) -> None:
    """100 in ten seconds: what each worker counted alone would let 200 through."""
    found = ask_many(city, "greedy", 300)
    assert found[200] + found[429] == 300
    assert 100 <= found[200] <= 115, "8 under way at once, and the error that is stated"
    assert city.ask("limiter", x_key="greedy").status == 429
    assert city.ask("limiter", x_key="modest").status == 200
    told = city.ask("limiter", "/count", x_key="greedy").json()
    assert told["out"] is True
    assert told["count"] >= 100


def test_counters_and_boxes_work_alone(city: Town) -> None:
    assert city.ask("limiter", "/count", x_key="alone").json() == {
        "rate": 0,
        "count": 0,
        "out": False,
    }
    for _ in range(3):
        city.ask("limiter", "/add", x_key="alone")
    city.ask("limiter", "/shut", x_key="alone")
    told = city.ask("limiter", "/count", x_key="alone").json()
    assert told["count"] == 21
    assert told["out"] is True
    assert city.ask("limiter", x_key="alone").status == 429


def test_no_secret_came_into_the_log(city: Town) -> None:
    assert city.ask("stores", "/secret/last-of-all").status == 404
    city.server.wait_for_access("/secret/last-of-all")
    assert len(city.server.lines) > 100
    for line in city.server.lines:
        assert "s3cret" not in str(line)
        assert "from the environment" not in str(line)
    assert city.server.metric("edge_faults_total") == 0

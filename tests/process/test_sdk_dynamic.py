"""Backends that a JavaScript service makes itself, and the policy that says where they may lead."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.origins import Origin, free_port, mirror, origin
from tests.support.sdk import Service, Town, town

pytestmark = [pytest.mark.process, pytest.mark.toolchain]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Origin]:
    with origin() as running:
        yield running


@pytest.fixture(scope="module")
def hidden() -> Iterator[Origin]:
    """Another one on loopback, which nobody allowed."""
    with origin() as running:
        yield running


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, upstream: Origin) -> Iterator[Town]:
    service = Service(
        "dynamic", "js/dynamic", ("backends:", f'  origin: {{url: "{upstream.url}"}}')
    )
    ours = free_port()
    allow = f'["127.0.0.1:{upstream.port}", "127.0.0.1:{ours}"]'
    more = f"egress: {{allow: {allow}, private_networks: true}}\n"
    folder = tmp_path_factory.mktemp("dynamic")
    with town(folder, [service], more=more, port=ours) as running:
        yield running


@pytest.fixture(scope="module")
def closed_city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Any public address, and nothing else."""
    service = Service("dynamic", "js/dynamic")
    folder = tmp_path_factory.mktemp("closed")
    with town(folder, [service], more='egress: {allow: ["*"]}\n') as running:
        yield running


def made(city: Town, to: str, path: str = "/new") -> tuple[int, str]:
    answer = city.ask("dynamic", f"{path}?to={quote(to, safe='')}")
    return answer.status, answer.text


def test_a_backend_that_the_guest_made_is_asked(city: Town, upstream: Origin) -> None:
    upstream.on("/a", mirror)
    answer = city.ask("dynamic", f"/new?to=127.0.0.1:{upstream.port}")
    told = answer.json()
    assert told["target"] == "/a"
    assert dict(told["fields"])["host"] == "made.test"


def test_a_fetch_of_a_bare_url_makes_a_backend(city: Town, upstream: Origin) -> None:
    upstream.on("/bare", mirror)
    answer = city.ask("dynamic", "/url?to=" + quote(f"{upstream.url}/bare?x=1", safe=""))
    told = answer.json()
    assert told["target"] == "/bare?x=1"
    assert dict(told["fields"])["host"] == f"127.0.0.1:{upstream.port}"


def test_the_guest_can_ask_what_it_made(city: Town, upstream: Origin) -> None:
    assert city.ask("dynamic", f"/facts?to=127.0.0.1:{upstream.port}").json() == {
        "name": "made",
        "dynamic": True,
        "target": "127.0.0.1",
        "port": upstream.port,
        "host": "made.test",
        "ssl": False,
        "connect": 1000,
        "firstByte": 5000,
        "exists": [True, True, False],
        "origin": False,
        "health": "unknown",
    }


def test_a_name_can_be_given_once(city: Town, upstream: Origin) -> None:
    status, text = made(city, f"127.0.0.1:{upstream.port}", "/twice")
    assert status == 502
    assert "made twice" not in text


def test_what_nobody_allowed_is_refused_and_never_reached(city: Town, hidden: Origin) -> None:
    assert made(city, f"127.0.0.1:{hidden.port}")[0] == 502
    assert made(city, f"{hidden.url}/", "/url")[0] == 502
    assert hidden.connections == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"]
)
def test_private_addresses_are_refused_however_they_are_written(
    closed_city: Town, hidden: Origin, host: str
) -> None:
    assert made(closed_city, f"{host}:{hidden.port}")[0] == 502
    assert hidden.connections == 0


def test_our_own_listener_is_refused_even_where_the_policy_allows_it(city: Town) -> None:
    before = city.server.metric("edge_request_outcome_total")
    assert made(city, f"127.0.0.1:{city.server.port}")[0] == 502
    after = city.server.metric("edge_request_outcome_total")
    assert after - before == 1, "our question, and none that the guest sent"


def test_nothing_above_was_a_fault_of_ours(city: Town, closed_city: Town) -> None:
    for one in (city, closed_city):
        assert one.server.metric("edge_faults_total") == 0

"""Services whose sandboxes serve request after request, in JavaScript and Rust; what ends them.

A sandbox is free for the next request a moment after its response: a client that is quicker gets a
fresh one. So these tests say what must hold of any such mixture.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.sdk import Service, Town, town

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

REUSED = "limits: {reuse_requests: 5, cpu: 300ms}"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    services = [
        Service("js", "js/reuse", (REUSED,)),
        Service("rust", "rust/reuse", (REUSED,)),
        Service("spin", "js/reuse", (REUSED,)),
        Service("hoard", "js/reuse", ("limits: {reuse_requests: 5, cpu: 10s}",)),
        Service("crash", "rust/reuse", (REUSED,)),
        Service("leave", "rust/reuse", (REUSED,)),
        Service("js-fresh", "js/reuse", ("limits: {reuse_requests: 0}",)),
        Service("rust-fresh", "rust/reuse", ("limits: {reuse_requests: 0}",)),
    ]
    with town(tmp_path_factory.mktemp("reuse"), services) as running:
        yield running


class Told(NamedTuple):
    """What a guest says of its sandbox: its name, and how many requests it has had."""

    name: str
    served: int


def served(city: Town, service: str) -> Told:
    answer = city.ask(service)
    assert answer.status == 200, answer.body
    found: Any = answer.json()
    return Told(found["name"], found["served"]) if isinstance(found, dict) else Told(*found)


def outcomes(city: Town, service: str, outcome: str) -> float:
    return city.server.metric("edge_request_outcome_total", service=service, outcome=outcome)


@pytest.mark.parametrize("service", ["js", "rust"])
def test_a_sandbox_serves_six_requests_and_no_seventh(city: Town, service: str) -> None:
    counts: dict[str, list[int]] = {}
    for _ in range(200):
        told = served(city, service)
        counts.setdefault(told.name, []).append(told.served)
        if told.served == 6:
            break
    else:
        pytest.fail(f"no sandbox came to six requests: {counts}")
    for _ in range(6):
        assert served(city, service).name != told.name
    for each in counts.values():
        assert each == list(range(1, len(each) + 1))


@pytest.mark.parametrize("service", ["js", "rust"])
def test_each_request_of_a_reused_sandbox_has_its_own_body(city: Town, service: str) -> None:
    for number in range(8):
        echoed = city.ask(service, "/echo", method="POST", body=b"body %d" % number)
        assert (echoed.status, echoed.text) == (200, f"body {number}")
        assert city.ask(service, "/echo").text == "", "nothing is left of the one before"


@pytest.mark.parametrize("service", ["js", "rust"])
def test_requests_at_once_are_never_in_one_sandbox(city: Town, service: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        told = list(clients.map(lambda _: served(city, service), range(40)))
    assert len(set(told)) == 40, "no two requests were the same one of the same sandbox"
    assert max(one.served for one in told) <= 6


def test_an_error_in_javascript_is_a_500_and_the_sandbox_lives(city: Town) -> None:
    before = outcomes(city, "js", "ok")
    assert served(city, "js")
    assert city.ask("js", "/throw").status == 500
    assert served(city, "js")
    assert outcomes(city, "js", "ok") == before + 3


def test_a_sandbox_without_memory_answers_500_and_the_next_request_is_well(city: Town) -> None:
    for _ in range(3):
        assert served(city, "hoard")
        assert city.ask("hoard", "/hoard").status >= 500
    assert served(city, "hoard")


@pytest.mark.parametrize(
    ("service", "path", "outcome"),
    [
        ("crash", "/crash", "trap"),
        ("leave", "/leave", "guest_error"),
        ("spin", "/spin", "cpu_limit"),
    ],
)
def test_a_sandbox_that_ends_takes_its_request_with_it_and_no_other(
    city: Town, service: str, path: str, outcome: str
) -> None:
    ended_after_use = 0
    for _ in range(5):
        before = served(city, service)
        assert city.ask(service, path).status >= 500
        after = served(city, service)
        ended_after_use += before.served < 6 and after.name != before.name
    assert ended_after_use > 0, "it never met a sandbox that had served before"
    assert outcomes(city, service, outcome) == 5
    assert outcomes(city, service, "ok") == 10


@pytest.mark.parametrize("service", ["js-fresh", "rust-fresh"])
def test_an_operator_can_forbid_reuse(city: Town, service: str) -> None:
    told = [served(city, service) for _ in range(4)]
    assert [one.served for one in told] == [1, 1, 1, 1]
    assert len({one.name for one in told}) == 4
    assert outcomes(city, service, "ok") == 4, "being told that there is no next one is no crash"


def test_nothing_above_was_a_fault_of_ours(city: Town) -> None:
    assert city.server.metric("edge_faults_total") == 0

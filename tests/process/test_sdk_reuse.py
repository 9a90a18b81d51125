"""A JavaScript service whose sandboxes serve request after request, and what ends them.

A sandbox is free for the next request a moment after its response: a client that is quicker gets a
fresh one. So these tests say what must hold of any such mixture.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.sdk import Service, Town, town

pytestmark = [pytest.mark.process, pytest.mark.toolchain]

SETTINGS = "limits: {reuse_requests: 5, cpu: 300ms}"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    services = [
        Service("reuse", "js/reuse", (SETTINGS,)),
        Service("crash", "js/reuse", ("limits: {reuse_requests: 5, cpu: 10s}",)),
        Service("spin", "js/reuse", (SETTINGS,)),
        Service("fresh", "js/reuse", ("limits: {reuse_requests: 0}",)),
    ]
    with town(tmp_path_factory.mktemp("reuse"), services) as running:
        yield running


def served(city: Town, service: str) -> dict[str, Any]:
    answer = city.ask(service)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def test_a_sandbox_serves_six_requests_and_no_seventh(city: Town) -> None:
    counts: dict[str, list[int]] = {}
    for _ in range(200):
        told = served(city, "reuse")
        counts.setdefault(told["name"], []).append(told["served"])
        if told["served"] == 6:
            break
    else:
        pytest.fail(f"no sandbox came to six requests: {counts}")
    for _ in range(6):
        assert served(city, "reuse")["name"] != told["name"]
    for each in counts.values():
        assert each == list(range(1, len(each) + 1))


def test_each_request_of_a_reused_sandbox_has_its_own_head_and_body(city: Town) -> None:
    for number in range(8):
        told = city.ask("reuse", f"/?{number}").json()
        assert told["query"] == f"?{number}"
        echoed = city.ask("reuse", "/echo", method="POST", body=b"%d" % number)
        assert echoed.text == str(number)


def test_requests_at_once_are_served_by_sandboxes_of_their_own(city: Town) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        told = list(clients.map(lambda _: served(city, "reuse"), range(40)))
    pairs = [(one["name"], one["served"]) for one in told]
    assert len(set(pairs)) == 40, "no sandbox served two requests as the same one"
    assert max(count for _, count in pairs) <= 6


def test_an_error_in_javascript_is_a_500_and_the_neighbours_do_not_notice(city: Town) -> None:
    assert served(city, "reuse")
    assert city.ask("reuse", "/throw").status == 500
    assert served(city, "reuse")


def test_a_sandbox_that_crashes_takes_its_request_with_it_and_no_other(city: Town) -> None:
    crashed_after_use = 0
    for _ in range(10):
        before = served(city, "crash")
        assert city.ask("crash", "/crash").status >= 500
        after = served(city, "crash")
        crashed_after_use += before["served"] < 6 and after["name"] != before["name"]
    assert crashed_after_use > 0, "a crash never met a sandbox that had served before"
    assert city.server.metric("edge_request_outcome_total", service="crash", outcome="ok") == 20


def test_the_cpu_limit_holds_for_each_request_of_a_reused_sandbox(city: Town) -> None:
    for _ in range(3):
        assert served(city, "spin")
        assert city.ask("spin", "/spin").status >= 500
    cut = city.server.metric("edge_request_outcome_total", service="spin", outcome="cpu_limit")
    assert cut == 3
    assert served(city, "spin")


def test_an_operator_can_forbid_reuse(city: Town) -> None:
    told = [served(city, "fresh") for _ in range(4)]
    assert [one["served"] for one in told] == [1, 1, 1, 1]
    assert len({one["name"] for one in told}) == 4


def test_nothing_above_was_a_fault_of_ours(city: Town) -> None:
    assert city.server.metric("edge_faults_total") == 0

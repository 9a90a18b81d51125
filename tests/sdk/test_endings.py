"""How requests end that do not end well: what the client gets, and what is known afterwards."""

from __future__ import annotations

import pytest

from edge.testing import Edge, Ending
from tests.support.guests import build

pytestmark = pytest.mark.toolchain
MIB = 1 << 20


def test_javascript_that_never_ends_meets_the_cpu_limit(edge: Edge) -> None:
    service = edge.service(build("js/reuse"), limits={"cpu": 0.1})
    response = service.get("/spin")
    assert (response.status, response.header("x-edge-outcome")) == (503, "cpu_limit")
    seen = response.wait()
    assert seen.outcome.ending is Ending.CPU_LIMIT
    assert seen.outcome.setting == "services.app.limits.cpu"
    assert "100" in seen.outcome.limit
    assert seen.cpu_ns >= 0.1e9
    assert service.get("/").status == 200, "the next sandbox is a new one"


def test_javascript_that_hoards_is_told_that_there_is_no_more(edge: Edge) -> None:
    service = edge.service(build("js/reuse"), limits={"memory": 24 * MIB})
    response = service.get("/hoard")
    assert response.status == 500
    assert any("out of memory" in line for line in response.log("stderr"))
    seen = response.wait()
    assert 16 * MIB < seen.memory <= 24 * MIB
    assert seen.outcome.ending is Ending.OK, "JavaScript survives that, and answered itself"
    # Its sandbox waits for the next request by now, or there would be no record.
    assert service.get("/").json()["served"] == 2


def test_javascript_that_throws_answers_500_itself_and_its_log_says_so(edge: Edge) -> None:
    response = edge.service(build("js/reuse")).get("/throw")
    assert (response.status, response.header("x-edge-outcome")) == (500, None)
    assert response.wait().outcome.ending is Ending.OK
    assert response.log("stderr") == ["Error while running request handler."]
    assert response.log("stdout") == []


def test_a_panic_in_rust_is_a_trap_with_its_message_and_a_backtrace(edge: Edge) -> None:
    service = edge.service(build("rust/reuse"))
    response = service.get("/crash")
    assert (response.status, response.header("x-edge-outcome")) == (500, "trap")
    seen = response.wait()
    assert seen.outcome.ending is Ending.TRAP
    assert "unreachable" in seen.outcome.detail
    assert seen.backtrace
    assert any("panicked on purpose" in line for line in response.log("stderr"))


def test_an_exit_code_of_rust_is_known(edge: Edge) -> None:
    response = edge.service(build("rust/reuse")).get("/leave")
    assert (response.status, response.header("x-edge-outcome")) == (500, "guest_error")
    outcome = response.wait().outcome
    assert outcome.ending is Ending.GUEST_ERROR
    assert "3" in outcome.value + outcome.detail


def test_a_crash_takes_a_reused_sandbox_along_and_no_other_request(edge: Edge) -> None:
    service = edge.service(build("js/reuse"), limits={"cpu": 0.2})

    def told(target: str) -> dict[str, object]:
        response = service.get(target)
        response.wait()  # its sandbox is free for the next one then
        said: dict[str, object] = response.json()
        return said

    first, second = told("/1"), told("/2")
    assert (first["served"], second["served"]) == (1, 2)
    assert first["name"] == second["name"]
    spun = service.get("/spin")
    assert (spun.status, spun.wait().outcome.ending) == (503, Ending.CPU_LIMIT)
    after = told("/3")
    assert after["served"] == 1
    assert after["name"] != first["name"]
    service.wait_for_background()
    endings = [seen.outcome.ending for seen in service.finished]
    assert endings.count(Ending.CPU_LIMIT) == 1
    assert endings.count(Ending.OK) == 3


def test_a_service_that_waits_too_long_meets_the_wall_limit(edge: Edge) -> None:
    service = edge.service(build("js/hints"), limits={"wall": 0.02})
    response = service.get("/timers")  # the last of them is due after 30 ms
    assert (response.status, response.header("x-edge-outcome")) == (504, "wall_limit")
    seen = response.wait()
    assert seen.outcome.ending is Ending.WALL_LIMIT
    assert seen.outcome.setting == "services.app.limits.wall"

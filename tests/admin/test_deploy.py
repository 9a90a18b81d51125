"""`PUT /v1/services/NAME`: create, replace, the same again, refusals that leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.admin.control import FileService
from edge.settings import MIB
from tests.support.api_server import ApiServer, api_server
from tests.support.packages import EMPTY_MODULE, package

HELLO = b'(module (func (export "_start")))'
OTHER = b'(module (func (export "_start") nop))'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        yield running


def names(server: ApiServer) -> list[str]:
    return [item["name"] for item in server.ask("GET", "/v1/services").json["items"]]


def test_one_put_makes_a_service_a_version_and_serves_it(server: ApiServer) -> None:
    answer = server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    assert answer.status == 201, answer
    found = answer.json
    assert found["service"] == "hello"
    assert found["version"] == 1
    assert found["active"] is True
    assert found["unchanged"] is False
    assert found["domains"] == ["hello.localhost"]
    assert found["url"] == "http://hello.localhost:8080/"
    assert found["compile_ms"] == 12.5
    described = server.ask("GET", "/v1/services/hello").json
    assert (described["active"], described["latest"]) == (1, 1)
    assert described["id"] == found["id"]


def test_the_same_program_again_changes_nothing(server: ApiServer) -> None:
    server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    again = server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    assert again.status == 200
    assert again.json["unchanged"] is True
    assert again.json["version"] == 1


def test_another_program_is_another_version(server: ApiServer) -> None:
    server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    assert server.ask("PUT", "/v1/services/hello", OTHER).json["version"] == 2
    assert server.ask("GET", "/v1/services/hello").json["active"] == 1
    later = server.ask("PUT", "/v1/services/hello?activate=true", OTHER)
    assert (later.status, later.json["version"], later.json["unchanged"]) == (200, 2, False)
    assert server.ask("GET", "/v1/services/hello").json["active"] == 2


def test_domains_are_kept_until_others_are_given(server: ApiServer) -> None:
    path = "/v1/services/hello?activate=true"
    first = server.ask("PUT", f"{path}&domain=a.example&domain=b.example/api", HELLO)
    assert first.json["domains"] == ["a.example", "b.example/api"]
    assert server.ask("PUT", path, OTHER).json["domains"] == ["a.example", "b.example/api"]
    third = server.ask("PUT", f"{path}&domain=c.example", OTHER)
    assert (third.status, third.json["version"]) == (201, 3)
    assert third.json["domains"] == ["c.example"]


def test_a_program_that_cannot_be_served_leaves_nothing_behind(server: ApiServer) -> None:
    answer = server.ask("PUT", "/v1/services/hello", b"(; refuse me ;) (module)")
    assert (answer.status, answer.code) == (422, "module_refused")
    assert answer.json["problems"][0]["message"].startswith("imports env.gone")
    assert names(server) == []


def test_a_version_that_is_not_activated_leaves_nothing_behind(server: ApiServer) -> None:
    server.control.failing = "worker 0: it does not link"
    answer = server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    assert (answer.status, answer.code) == (422, "not_activated")
    assert names(server) == []


def test_a_later_version_that_is_not_activated_leaves_the_one_before(server: ApiServer) -> None:
    server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    server.control.failing = "worker 0: it does not link"
    assert server.ask("PUT", "/v1/services/hello?activate=true", OTHER).status == 422
    found = server.ask("GET", "/v1/services/hello").json
    assert (found["active"], found["latest"]) == (1, 1)


def test_a_dry_run_tells_what_would_be_and_stores_nothing(server: ApiServer) -> None:
    answer = server.ask("PUT", "/v1/services/hello?dry_run=true&activate=true", HELLO)
    assert answer.status == 200
    assert answer.json["creates"] == ["service", "version"]
    assert answer.json["imports"] == ["fastly_http_req.body_downstream_get"]
    assert names(server) == []


def test_a_canary_gets_its_share(server: ApiServer) -> None:
    server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    answer = server.ask("PUT", "/v1/services/hello?percent=10&max_error_rate=0.2", OTHER)
    assert answer.status == 201, answer
    assert (answer.json["active"], answer.json["percent"]) == (False, 10.0)
    canary = server.ask("GET", "/v1/services/hello").json["canary"]
    assert canary["version"] == 2
    assert (canary["percent"], canary["max_error_rate"]) == (10.0, 0.2)


def test_services_of_the_file_are_listed_and_not_taken(server: ApiServer) -> None:
    server.control.files = (FileService("hello", 3, "ab", "loaded", "", ("a.example /",)),)
    answer = server.ask("PUT", "/v1/services/hello", HELLO)
    assert (answer.status, answer.code) == (409, "owned_by_file")
    assert server.ask("DELETE", "/v1/services/hello").code == "owned_by_file"
    listed = server.ask("GET", "/v1/services").json["items"]
    assert [(item["name"], item["owner"]) for item in listed] == [("hello", "file")]


def test_progress_comes_as_one_event_a_line(server: ApiServer) -> None:
    answer = server.ask(
        "PUT",
        "/v1/services/hello?activate=true",
        HELLO,
        headers={"accept": "application/x-ndjson"},
    )
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["event"] for event in events] == [
        "received", "unpacked", "compiling", "linking", "activated", "done",
    ]  # fmt: skip
    assert events[-1]["version"] == 1


def test_a_refusal_is_the_last_event(server: ApiServer) -> None:
    accept = {"accept": "application/x-ndjson"}
    answer = server.ask("PUT", "/v1/services/hello", b"PK\x03\x04", headers=accept)
    last = json.loads(answer.body.splitlines()[-1])
    assert (last["event"], last["code"]) == ("refused", "package_invalid")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("actvate=true", "invalid"),
        ("activate=yes", "invalid"),
        ("activate=true&activate=true", "invalid"),
        ("percent=0", "invalid"),
        ("max_error_rate=0.5", "invalid"),
        ("domain=a%20b", "invalid"),
        ("domain=%ff", "bad_request"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(
    server: ApiServer, query: str, code: str
) -> None:
    answer = server.ask("PUT", f"/v1/services/hello?{query}", HELLO)
    assert answer.code == code
    assert names(server) == []


def test_a_body_above_the_bound_is_refused_unread(server: ApiServer) -> None:
    connection = server.connect()
    connection.putrequest("PUT", "/v1/services/hello")
    connection.putheader("authorization", f"Bearer {server.admin}")
    connection.putheader("content-length", str(200 * 1024 * 1024))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_service_can_be_named_by_its_id(server: ApiServer) -> None:
    made = server.ask("PUT", "/v1/services/hello", HELLO).json
    again = server.ask("PUT", f"/v1/services/{made['id']}", OTHER)
    assert (again.json["service"], again.json["version"]) == ("hello", 2)


def test_a_service_named_like_the_id_of_another_does_not_get_its_deploys(
    server: ApiServer,
) -> None:
    first = server.ask("PUT", "/v1/services/hello", HELLO).json["id"]
    server.ask("PUT", "/v1/services/other", HELLO)
    assert server.ask("PATCH", "/v1/services/other", {"name": first}).status == 200
    made = server.ask("PUT", f"/v1/services/{first}", OTHER).json
    assert (made["service"], made["id"], made["version"]) == ("hello", first, 2)


def test_programs_unpacked_from_packages_count_as_what_is_held(server: ApiServer) -> None:
    body = package(EMPTY_MODULE + bytes(MIB // 2))
    assert len(body) < 64 * 1024
    held = server.calls._held
    taken = held.most - 64 * 1024
    held.take(taken)
    try:
        full = server.ask("PUT", "/v1/services/hello", body)
    finally:
        held.give(taken)
    assert (full.status, full.code) == (503, "busy")
    assert names(server) == []
    assert held.now == 0
    assert server.ask("PUT", "/v1/services/hello", body).status == 201


def test_a_name_that_is_none_is_told_what_names_are_made_of(server: ApiServer) -> None:
    answer = server.ask("PUT", "/v1/services/my%20shop?activate=true", HELLO)
    assert (answer.status, answer.code) == (422, "invalid")
    assert "letters, digits" in answer.json["detail"]
    assert names(server) == []

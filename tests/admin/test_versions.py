"""Versions and what serves: drafts, definitions, locks, canaries, roll-back, history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.admin.api import SMALL_BODY
from edge.catalogue import stores
from edge.catalogue.database import STARTUP
from edge.catalogue.records import Scope, Store, StoreKind
from edge.settings import MIB
from tests.support.api_server import ApiServer, api_server

HELLO = b'(module (func (export "_start")))'
OTHER = b'(module (func (export "_start") nop))'
VERSIONS = "/v1/services/hello/versions"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        running.ask("PUT", "/v1/services/hello?activate=true", HELLO)
        yield running


def make_store(server: ApiServer, name: str, owner: str = "") -> Store:
    return server.run(
        lambda: server.around.catalogue.write(
            STARTUP, lambda tx: stores.create(tx, StoreKind.CONFIG, name, owner=owner)
        )
    )


def test_an_upload_is_a_draft_that_nobody_gets(server: ApiServer) -> None:
    made = server.ask("POST", VERSIONS, OTHER)
    assert made.status == 201
    assert (made.json["version"], made.json["active"], made.json["locked"]) == (2, False, False)
    assert server.ask("GET", "/v1/services/hello").json["active"] == 1


def test_a_clone_has_what_its_source_has(server: ApiServer) -> None:
    server.ask("POST", VERSIONS, OTHER)
    made = server.ask("POST", VERSIONS, {"from": 1, "comment": "back to it"}).json
    first = server.ask("GET", f"{VERSIONS}/1").json
    assert (made["version"], made["comment"]) == (3, "back to it")
    assert made["package"]["sha256"] == first["package"]["sha256"]
    assert server.ask("POST", VERSIONS).json["version"] == 4
    assert server.ask("POST", VERSIONS, {"from": 99}).code == "not_found"


def test_versions_are_listed_in_pages(server: ApiServer) -> None:
    for _ in range(3):
        server.ask("POST", VERSIONS)
    first = server.ask("GET", f"{VERSIONS}?limit=3").json
    assert [item["version"] for item in first["items"]] == [1, 2, 3]
    rest = server.ask("GET", f"{VERSIONS}?limit=3&after={first['next']}").json
    assert ([item["version"] for item in rest["items"]], rest["next"]) == ([4], None)


def test_a_definition_is_read_changed_and_read_again(server: ApiServer) -> None:
    make_store(server, "flags")
    server.ask("POST", VERSIONS)
    wanted = {
        "routes": [{"host": "a.example", "path": "/api"}],
        "backends": {"origin": {"url": "https://origin.example"}},
        "env": {"GREETING": "hello"},
        "config_stores": ["flags"],
    }
    changed = server.ask("PUT", f"{VERSIONS}/2/definition", wanted)
    assert changed.status == 200, changed
    found = server.ask("GET", f"{VERSIONS}/2/definition")
    assert found.json["routes"] == wanted["routes"]
    assert found.json["env"] == wanted["env"]
    assert found.json["config_stores"] == {"flags": "flags"}
    assert found.headers["etag"] == changed.headers["etag"]


def test_every_problem_of_a_definition_is_told_with_its_place(server: ApiServer) -> None:
    server.ask("POST", VERSIONS)
    wanted = {"limits": {"memory": "1 PiB"}, "colour": "blue", "routes": [{"host": "a b"}]}
    answer = server.ask("PUT", f"{VERSIONS}/2/definition", wanted)
    assert (answer.status, answer.code) == (422, "invalid")
    places = {problem["path"] for problem in answer.json["problems"]}
    assert {"limits.memory", "colour", "routes[0].host"} <= places


def test_a_draft_is_judged_by_the_limits_of_the_last_reload(server: ApiServer) -> None:
    server.ask("POST", VERSIONS)
    path, wanted = f"{VERSIONS}/2/definition", {"limits": {"memory": "64 MiB"}}
    assert server.ask("PUT", path, wanted).status == 200
    before = server.document
    server.document = replace(before, ceilings=replace(before.ceilings, memory=32 * MIB))
    answer = server.ask("PUT", path, wanted)
    assert [problem["path"] for problem in answer.json["problems"]] == ["limits.memory"]


def test_a_change_that_was_overtaken_is_refused(server: ApiServer) -> None:
    server.ask("POST", VERSIONS)
    path = f"{VERSIONS}/2/definition"
    seen = server.ask("GET", path).headers["etag"]
    first = server.ask("PUT", path, {"env": {"A": "1"}}, headers={"if-match": seen})
    assert first.status == 200
    second = server.ask("PUT", path, {"env": {"A": "2"}}, headers={"if-match": seen})
    assert (second.status, second.code) == (412, "precondition_failed")
    assert server.ask("GET", path).json["env"] == {"A": "1"}
    odd = server.ask("PUT", path, {}, headers={"if-match": '"not ours"'})
    assert odd.code == "precondition_failed"


def test_a_token_of_one_service_links_no_store_of_others(server: ApiServer) -> None:
    service = server.ask("GET", "/v1/services/hello").json["id"]
    make_store(server, "shared")
    make_store(server, "own", owner=service)
    server.ask("POST", VERSIONS)
    token = server.token(Scope.DEPLOY, service_id=service)
    path = f"{VERSIONS}/2/definition"
    refused = server.ask("PUT", path, {"config_stores": ["shared"]}, token=token)
    assert refused.code == "forbidden"
    assert "config_stores" not in server.ask("GET", path).json
    assert server.ask("PUT", path, {"config_stores": ["own"]}, token=token).status == 200


def test_a_token_of_one_service_defines_no_part_of_anothers_host(server: ApiServer) -> None:
    service = server.ask("GET", "/v1/services/hello").json["id"]
    server.control.taken_hosts = ("other.example",)
    server.ask("POST", VERSIONS)
    token = server.token(Scope.DEPLOY, service_id=service)
    path = f"{VERSIONS}/2/definition"
    wanted = {"routes": [{"host": "mine.example"}, {"host": "other.example", "path": "/login"}]}
    refused = server.ask("PUT", path, wanted, token=token)
    assert (refused.status, refused.code) == (409, "route_conflict")
    assert refused.json["problems"][0]["path"] == "routes[1]"
    assert "routes" not in server.ask("GET", path).json
    deploy = "/v1/services/hello?domain=other.example/login"
    assert server.ask("PUT", deploy, OTHER, token=token).code == "route_conflict"
    assert len(server.ask("GET", VERSIONS).json["items"]) == 2
    assert server.ask("PUT", path, wanted).status == 200  # an operator may


def test_a_version_that_has_served_changes_no_more(server: ApiServer) -> None:
    assert server.ask("PUT", f"{VERSIONS}/1/definition", {}).code == "version_locked"
    assert server.ask("PUT", f"{VERSIONS}/1/package", OTHER).code == "version_locked"
    assert server.ask("PATCH", f"{VERSIONS}/1", {"comment": "x"}).code == "version_locked"
    assert server.ask("DELETE", f"{VERSIONS}/1").code == "version_active"


def test_a_locked_draft_changes_no_more_and_can_be_activated(server: ApiServer) -> None:
    server.ask("POST", VERSIONS, OTHER)
    assert server.ask("POST", f"{VERSIONS}/2/lock").json["locked"] is True
    assert server.ask("PATCH", f"{VERSIONS}/2", {"comment": "x"}).code == "version_locked"
    activated = server.ask("POST", f"{VERSIONS}/2/activate").json
    assert (activated["version"], activated["previous"], activated["percent"]) == (2, 1, 100.0)


def test_a_draft_gets_a_program_later(server: ApiServer) -> None:
    server.ask("POST", VERSIONS)
    answer = server.ask("PUT", f"{VERSIONS}/2/package", OTHER)
    assert answer.json["package"]["size"] == len(OTHER)
    refused = server.ask("PUT", f"{VERSIONS}/2/package", b"(; refuse me ;) (module)")
    assert refused.code == "module_refused"
    assert server.ask("GET", f"{VERSIONS}/2").json["package"]["size"] == len(OTHER)


def test_roll_back_serves_what_served_before(server: ApiServer) -> None:
    server.ask("PUT", "/v1/services/hello?activate=true", OTHER)
    assert server.ask("POST", "/v1/services/hello/rollback").json["version"] == 1
    history = server.ask("GET", "/v1/services/hello/activations").json["items"]
    assert [(one["version"], one["reason"]) for one in history] == [
        (1, "rollback"), (2, "activate"), (1, "activate"),
    ]  # fmt: skip


def test_a_canary_is_begun_raised_and_ended(server: ApiServer) -> None:
    server.ask("POST", VERSIONS, OTHER)
    path = f"{VERSIONS}/2/activate"
    begun = server.ask("POST", path, {"percent": 5, "min_requests": 50}).json
    assert begun["percent"] == 5.0
    canary = server.ask("GET", "/v1/services/hello").json["canary"]
    assert (canary["version"], canary["min_requests"]) == (2, 50)
    server.ask("POST", path, {"percent": 0})
    assert server.ask("GET", "/v1/services/hello").json["canary"] is None
    assert server.ask("POST", path, {"percent": 100}).json["percent"] == 100.0
    assert server.ask("GET", "/v1/services/hello").json["active"] == 2
    assert server.ask("POST", path, {"percent": 101}).code == "invalid"
    assert server.ask("POST", path, {"percent": 0.001}).code == "invalid"
    assert server.ask("POST", path, {"min_requests": 5}).code == "invalid"


def test_only_what_is_active_or_staged_can_be_taken_from_there(server: ApiServer) -> None:
    server.ask("POST", VERSIONS, OTHER)
    assert server.ask("POST", f"{VERSIONS}/2/deactivate").code == "conflict"
    assert server.ask("POST", f"{VERSIONS}/2/unstage").code == "conflict"
    assert server.ask("POST", f"{VERSIONS}/2/stage").status == 204
    assert server.ask("GET", "/v1/services/hello").json["staged"] == 2
    assert server.ask("POST", f"{VERSIONS}/2/unstage").status == 204
    assert server.ask("POST", f"{VERSIONS}/1/deactivate").status == 204
    assert server.ask("GET", "/v1/services/hello").json["active"] is None


def test_a_served_service_is_deleted_by_force_alone(server: ApiServer) -> None:
    assert server.ask("DELETE", "/v1/services/hello").code == "version_active"
    assert server.ask("DELETE", "/v1/services/hello?force=true").status == 204
    assert server.ask("GET", "/v1/services/hello").code == "not_found"


def test_a_service_is_renamed_and_an_overtaken_rename_is_refused(server: ApiServer) -> None:
    seen = server.ask("GET", "/v1/services/hello").headers["etag"]
    renamed = server.ask(
        "PATCH", "/v1/services/hello", {"name": "ciao"}, headers={"if-match": seen}
    )
    assert renamed.json["name"] == "ciao"
    assert server.ask("GET", "/v1/services/hello").code == "not_found"
    late = server.ask("PATCH", "/v1/services/ciao", {"comment": "x"}, headers={"if-match": seen})
    assert late.code == "precondition_failed"


def test_a_rename_that_cannot_be_served_is_taken_back(server: ApiServer) -> None:
    server.control.failing = "worker 0: no"
    assert server.ask("PATCH", "/v1/services/hello", {"name": "ciao"}).code == "not_activated"
    assert server.ask("GET", "/v1/services/hello").json["name"] == "hello"


def test_services_are_listed_in_pages_with_those_of_the_file_between(server: ApiServer) -> None:
    for name in ("alpha", "zulu"):
        server.ask("PUT", f"/v1/services/{name}", HELLO)
    first = server.ask("GET", "/v1/services?limit=2").json
    assert [item["name"] for item in first["items"]] == ["alpha", "hello"]
    rest = server.ask("GET", f"/v1/services?limit=2&after={first['next']}").json
    assert ([item["name"] for item in rest["items"]], rest["next"]) == (["zulu"], None)


def test_validation_tells_what_a_program_needs_and_stores_nothing(server: ApiServer) -> None:
    good = server.ask("POST", "/v1/validate", OTHER).json
    assert (good["ok"], good["memory_bytes"], good["problems"]) == (True, 65536, [])
    bad = server.ask("POST", "/v1/validate", b"(; refuse me ;) (module)")
    assert (bad.status, bad.json["ok"]) == (200, False)
    assert server.ask("POST", "/v1/validate", b"PK\x03\x04").code == "package_invalid"
    assert server.ask("GET", "/v1/services/hello").json["latest"] == 1


def test_a_new_token_is_told_once(server: ApiServer) -> None:
    wanted = {"name": "ci", "scopes": ["deploy"], "service": "hello", "expires_in": 60}
    made = server.ask("POST", "/v1/tokens", wanted)
    assert made.status == 201
    text = made.json["token"]
    me = server.ask("GET", "/v1/whoami", token=text).json
    assert (me["name"], me["scopes"]) == ("ci", ["deploy"])
    assert me["expires_at"] is not None
    listing = server.ask("GET", "/v1/tokens")
    assert text.encode() not in listing.body
    assert {item["name"] for item in listing.json["items"]} == {"tests", "ci"}


def test_a_document_in_place_of_a_program_is_no_longer_than_documents_are(
    server: ApiServer,
) -> None:
    answer = server.ask("POST", VERSIONS, b'{"comment": "' + b"x" * SMALL_BODY + b'"}')
    assert (answer.status, answer.code) == (413, "too_large")

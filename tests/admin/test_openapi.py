"""The OpenAPI document is what the server does: complete, valid, and held against it by a machine.

Schemathesis makes requests from the document, good and bad ones, sends them to a real server over
a real catalogue, and compares every answer with what the document promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.engine import events, from_schema

from edge.admin import auth
from edge.admin.openapi import document
from edge.errors import Refusal
from tests.support.api_server import ApiServer, api_server

HELLO = b'(module (func (export "_start")))'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        yield running


def test_the_document_is_served_without_a_token(server: ApiServer) -> None:
    answer = server.ask("GET", "/v1/openapi.json", token="")
    assert answer.status == 200
    assert answer.json["openapi"] == "3.1.0"


def test_the_document_is_valid_by_the_schema_of_openapi(server: ApiServer) -> None:
    described = server.ask("GET", "/v1/openapi.json").json
    schemathesis.openapi.from_dict(described).validate()
    described["paths"]["/v1/services"]["get"]["responses"] = 5
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(described).validate()


def test_every_route_of_v1_is_in_the_document(server: ApiServer) -> None:
    described = {
        (method.upper(), path)
        for path, item in server.ask("GET", "/v1/openapi.json").json["paths"].items()
        for method in item
    }
    declared = {(route.method, route.pattern) for route in server.calls.routes}
    assert described == {pair for pair in declared if pair[1].startswith("/v1/")}


def test_operation_ids_are_unique_and_every_part_of_a_path_is_described(
    server: ApiServer,
) -> None:
    operations = [route.operation for route in server.calls.routes if route.operation]
    ids = [operation.id for operation in operations]
    assert len(set(ids)) == len(ids)
    for path, item in document(server.calls.routes)["paths"].items():  # type: ignore[attr-defined]
        for operation in item.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_no_operation_promises_a_status_that_no_refusal_has(server: ApiServer) -> None:
    known = {refusal.status for refusal in Refusal}
    for route in server.calls.routes:
        if route.operation is not None:
            assert set(route.operation.refusals) <= known, route.pattern


def test_the_server_keeps_what_its_document_promises(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hundreds of requests with bad tokens are part of it, and want 401 rather than 429.
    monkeypatch.setattr(auth, "FAILURES", 1_000_000)
    server.ask("PUT", "/v1/services/hello?activate=true", HELLO)
    found = list(_failures(server))
    assert not found, "\n".join(found[:10])
    assert not server.faults


def _failures(server: ApiServer) -> Iterator[str]:
    config = SchemathesisConfig(seed=20_261_123)
    project = config.projects.default
    project.update(
        base_url=f"http://127.0.0.1:{server.port}",
        headers={"Authorization": f"Bearer {server.admin}"},
        workers=1,
        request_timeout=10.0,
    )
    project.generation = GenerationConfig(
        max_examples=6, deterministic=True, no_shrink=True, with_security_parameters=False
    )
    described = server.ask("GET", "/v1/openapi.json").json
    # What no schema can say makes a request of the right shape 422: that bytes are no program.
    project.checks.positive_data_acceptance.expected_statuses += ["412", "422"]
    project.checks.negative_data_rejection.expected_statuses += ["414"]
    schema = schemathesis.openapi.from_dict(described, config=config)
    cases = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            yield repr(getattr(event, "value", event))
        if not isinstance(event, events.ScenarioFinished):
            continue
        for case, checks in event.recorder.checks.items():
            cases += 1
            for check in checks:
                if check.failure_info is not None:
                    request = event.recorder.cases[case].value
                    yield f"{check.name} {request.as_curl_command()}\n{check.failure_info.failure}"
    assert cases > 300, cases

"""What a token of one service does not get at: what the file owns, what others serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.admin.control import FileService
from edge.admin.fastly import routes as fastly_routes
from edge.admin.v1 import routes as v1_routes
from edge.catalogue.records import Scope
from tests.support.api_server import ApiServer, api_server

HELLO = b'(module (func (export "_start")))'
FILED = FileService("hello", 1, "f" * 64, "serving", "", ("filed.example",))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(
        tmp_path, make_routes=lambda around: v1_routes(around) + fastly_routes(around)
    ) as running:
        yield running


@pytest.mark.parametrize(
    "path",
    [
        "/v1/services/{id}/logs",
        "/v1/services/{id}/stats",
        "/service/{id}/log_stream/managed/instance_output",
        "/stats/service/{id}",
    ],
)
def test_lines_and_numbers_of_a_name_that_the_file_has_taken_are_the_files(
    server: ApiServer, path: str
) -> None:
    identity = server.ask("PUT", "/v1/services/hello", HELLO).json["id"]
    token = server.token(Scope.DEPLOY, service_id=identity)
    asked = path.format(id=identity)
    assert server.ask("GET", asked, token=token).status == 200
    server.control.files = (FILED,)  # a reload brought it: the other one was not being served
    refused = server.ask("GET", asked, token=token)
    assert refused.status == 409
    assert b"hello" in refused.body
    assert server.ask("GET", "/v1/services/hello/logs", token=token).status == 403

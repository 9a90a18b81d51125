"""Whatever is put into the fields of Fastly's API, the answer is a refusal and never a fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edge.admin.fastly import backend_fields, health_check_fields, routes
from edge.admin.fastly.checking import check_backend, check_health_check
from edge.admin.fastly.shape import Form
from edge.errors import ApiRefused
from tests.support.api_server import ApiServer, api_server

VALUES: tuple[object, ...] = (
    "", " ", "\x00", "a\r\nb", "é", "\ud800", "x" * 70_000, "-1", "0", "1e9", "9" * 15, "9" * 400,
    -1, 0, 1, 2**63, 1.5, 1e308, True, False, None, [], ["x"], {}, {"a": 1}, "[::1]", "::1",
    "http://x", "*", "../..", "%00", "${HOME}", "{file: /etc/passwd}",
)  # fmt: skip
BACKEND = tuple(backend_fields.shown("x", {"url": "http://a.example"}))
CHECK = tuple(health_check_fields.shown("x", {}))
ONE_OF_EACH_KIND = (
    "address", "port", "use_ssl", "comment", "override_host", "ssl_ca_cert", "connect_timeout",
)  # fmt: skip
VERSION = "/service/hello/version/1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("state"), make_routes=routes) as running:
        running.ask("POST", "/service", {"name": "hello"})
        running.ask("POST", f"{VERSION}/backend", {"name": "b", "address": "a.example"})
        running.ask("POST", f"{VERSION}/healthcheck", {"name": "h"})
        running.ask("POST", f"{VERSION}/domain", {"name": "d.example"})
        yield running


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("POST", "/service", ("name", "type", "comment")),
        ("PUT", "/service/hello", ("comment",)),
        ("PUT", VERSION, ("comment",)),
        ("PUT", f"{VERSION}/domain/d.example", ("comment",)),
        ("POST", f"{VERSION}/domain", ("name", "comment")),
        ("PUT", f"{VERSION}/backend/b", ONE_OF_EACH_KIND),
        ("PUT", f"{VERSION}/healthcheck/h", ("window", "path", "timeout")),
        ("POST", "/tokens", ("name", "scope", "services", "expires_at")),
        ("POST", "/service/hello/purge", ("surrogate_keys",)),
    ],
)
def test_no_value_of_a_field_is_a_fault(
    server: ApiServer, method: str, path: str, names: tuple[str, ...]
) -> None:
    for name, value in itertools.product(names, VALUES):
        answer = server.ask(method, path, {name: value})
        assert answer.status < 500, (name, value, answer)


@pytest.mark.parametrize("path", ["/service?sort=", "/service?page=", "/service?per_page=",
                                  "/service?direction=", "/service/search?name=",
                                  "/service/hello/details?filter[versions.active]="])  # fmt: skip
def test_no_value_of_a_query_is_a_fault(server: ApiServer, path: str) -> None:
    for value in ("", "0", "-1", "9" * 30, "x", "%00", "%ff", "é".encode().hex(), "created"):
        assert server.ask("GET", path + value).status < 500, value


def test_no_field_of_a_backend_is_a_fault_or_changes_what_was_there() -> None:
    before = {"url": "https://a.example", "fastly": {"weight": 1}}
    kept = {"url": "https://a.example", "fastly": {"weight": 1}}
    for name, value in itertools.product(BACKEND, VALUES):
        with suppress(ApiRefused):
            check_backend("x", backend_fields.changed(before, Form({name: value})))
        assert before == kept


def test_no_field_of_a_health_check_is_a_fault() -> None:
    for name, value in itertools.product(CHECK, VALUES):
        with suppress(ApiRefused):
            check_health_check("x", health_check_fields.changed({}, Form({name: value})))

"""A definition is read as strictly as a service of the configuration, and named stores with it."""

from __future__ import annotations

import json

import pytest

from edge.errors import ApiRefused, Refusal
from edge.model.definition import Definition, read_definition
from edge.model.limits import Limits
from edge.model.route import Route
from edge.model.service import Family, UnknownImports


def read(fields: object) -> Definition:
    return read_definition("shop", fields)


def paths(fields: object) -> set[str]:
    """The paths of what is wrong."""
    with pytest.raises(ApiRefused) as caught:
        read(fields)
    assert caught.value.refusal is Refusal.INVALID
    return {problem.path for problem in caught.value.problems}


def test_an_empty_definition_is_a_service_without_routes() -> None:
    found = read({})
    assert found.service.name == "shop"
    assert found.service.routes == ()
    assert found.links.each() == []
    assert read({"routes": []}).service.routes == ()


def test_json_numbers_and_switches_mean_what_their_text_does() -> None:
    found = read(
        {
            "env": {"ANSWER": 42, "RATE": 0.5, "ON": True},
            "server_timing": True,
            "limits": {"memory": "64MiB", "table_elements": 100},
            "family": "fastly",
            "unknown_imports": "trap",
            "log_endpoints": ["audit"],
        }
    ).service
    assert found.env == {"ANSWER": "42", "RATE": "0.5", "ON": "true"}
    assert found.server_timing is True
    assert found.limits.memory == 64 * 1024 * 1024
    assert found.limits.table_elements == 100
    assert found.family is Family.FASTLY
    assert found.unknown_imports is UnknownImports.TRAP
    assert found.log_endpoints == ("audit",)


def test_routes_and_backends_are_those_of_the_configuration() -> None:
    found = read(
        {
            "routes": [{"host": "A.Example.com"}, {"path": {"exact": "/x"}}],
            "backends": {"origin": {"url": "https://example.com", "health_check": {"path": "/h"}}},
        }
    ).service
    assert found.routes == (Route("a.example.com"), Route(path="/x", exact=True))
    backend = found.backends["origin"]
    assert backend.health_check is not None
    assert backend.health_check.path == "/h"


def test_backends_of_a_definition_are_asked_about_by_the_egress_policy() -> None:
    found = read({"backends": {"origin": {"url": "https://example.com"}}})
    assert found.service.backends["origin"].dynamic


def test_stores_are_named_in_a_list_or_under_another_name() -> None:
    found = read(
        {
            "config_stores": ["flags"],
            "kv_stores": {"cart": "carts-of-all"},
            "secret_stores": {"keys": "shared-keys"},
            "acls": ["blocked"],
        }
    )
    assert sorted(found.links.each()) == [
        ("acls", "blocked", "blocked"),
        ("config_stores", "flags", "flags"),
        ("kv_stores", "cart", "carts-of-all"),
        ("secret_stores", "keys", "shared-keys"),
    ]
    assert found.service.config_stores == {}


def test_every_problem_is_told_with_its_path() -> None:
    assert paths(
        {
            "routes": [{"host": "a b"}],
            "limits": {"memory": 5, "nonsense": "1"},
            "backends": {"origin": {"url": "ftp://x"}},
            "server_timing": "perhaps",
            "modul": "x",
        }
    ) == {
        "routes[0].host",
        "limits.memory",
        "limits.nonsense",
        "backends.origin.url",
        "server_timing",
        "modul",
    }


def test_the_program_cannot_be_chosen() -> None:
    assert paths({"module": "/etc/passwd"}) == {"module"}


def test_stores_are_not_filled_by_a_definition() -> None:
    assert paths({"config_stores": {"flags": {"banner": "blue"}}}) == {"config_stores"}


def test_one_name_leads_to_one_store() -> None:
    assert paths({"config_stores": ["data"], "kv_stores": ["data"]}) == {"kv_stores.data"}


def test_null_is_a_value_left_out_by_mistake() -> None:
    assert paths({"env": {"A": None}, "routes": None}) == {"env.A", "routes"}


@pytest.mark.parametrize("document", [None, [], "text", 5, True])
def test_anything_but_an_object_is_refused(document: object) -> None:
    assert paths(document) == set()


def test_limits_above_the_operators_ceilings_are_refused() -> None:
    with pytest.raises(ApiRefused) as caught:
        read_definition("shop", {"limits": {"memory": "2MiB"}}, ceilings=Limits(memory=1024 * 1024))
    assert [problem.path for problem in caught.value.problems] == ["limits.memory"]
    assert "ceilings.memory" in caught.value.detail


@pytest.mark.parametrize("value", [{"file": "/etc/shadow"}, {"env": "HOME"}])
def test_neither_files_nor_the_environment_can_be_reached(value: dict[str, str]) -> None:
    backend = {"url": "https://example.com", "ca_certificate": value}
    assert paths({"backends": {"a": backend}}) == {"backends.a.ca_certificate"}


def test_a_variable_is_not_expanded() -> None:
    assert read({"env": {"A": "${HOME}"}}).service.env == {"A": "${HOME}"}


def test_a_document_nested_without_end_is_refused() -> None:
    deep: object = "x"
    for _ in range(500):
        deep = [deep]
    found = paths({"env": deep})
    assert len(found) == 1
    assert max(map(len, found)) <= 200


def test_text_that_is_no_unicode_is_refused() -> None:
    assert paths(json.loads('{"env": {"A": "\\ud800"}}')) == {"env.A"}


def test_a_private_key_is_never_quoted() -> None:
    backend = {
        "url": "https://example.com",
        "client_certificate": {"certificate": "x", "key": "very private"},
    }
    with pytest.raises(ApiRefused) as caught:
        read({"backends": {"a": backend}})
    assert "very private" not in str(caught.value.problems)
    assert "very private" not in caught.value.detail


def test_a_flood_of_problems_is_cut() -> None:
    with pytest.raises(ApiRefused) as caught:
        read({f"key{number}": "x" for number in range(1000)})
    assert len(caught.value.problems) == 100
    assert "and 999 more" in caught.value.detail

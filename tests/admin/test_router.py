"""Which route a request takes."""

from __future__ import annotations

import pytest

from edge.admin.api import Call, Reply, Route
from edge.admin.router import MAX_SEGMENTS, NoMethod, Router
from edge.errors import ApiRefused, Refusal


async def endpoint(call: Call) -> Reply:
    raise AssertionError("nobody calls it")


def router(*patterns: str) -> Router:
    pairs = [pattern.split(" ") for pattern in patterns]
    return Router([Route(method, path, endpoint) for method, path in pairs])


def found(table: Router, method: str, path: str) -> tuple[str, dict[str, str]]:
    match = table.match(method, path)
    return match.route.pattern, dict(match.params)


def refusal(table: Router, method: str, path: str) -> Refusal:
    with pytest.raises(ApiRefused) as caught:
        table.match(method, path)
    return caught.value.refusal


def test_literal_segments_win_over_named_ones() -> None:
    table = router("GET /a/{x}", "GET /a/b", "GET /a/{x}/c", "GET /a/b/d")
    assert found(table, "GET", "/a/b") == ("/a/b", {})
    assert found(table, "GET", "/a/z") == ("/a/{x}", {"x": "z"})
    assert found(table, "GET", "/a/b/d") == ("/a/b/d", {})
    assert found(table, "GET", "/a/b/c") == ("/a/{x}/c", {"x": "b"})


def test_routes_may_name_the_same_part_differently() -> None:
    table = router("GET /a/{x}", "PUT /a/{y}")
    assert found(table, "GET", "/a/1")[1] == {"x": "1"}
    assert found(table, "PUT", "/a/1")[1] == {"y": "1"}


def test_parts_are_percent_decoded_after_they_are_told_apart() -> None:
    table = router("GET /kv/{store}/{key}")
    assert found(table, "GET", "/kv/a/b%2Fc%20%C3%A9")[1] == {"store": "a", "key": "b/c é"}


def test_a_tail_takes_the_rest_slashes_included() -> None:
    table = router("GET /kv/{store}/{key...}", "GET /kv/{store}/all")
    assert found(table, "GET", "/kv/s/a/b%2Fc")[1] == {"store": "s", "key": "a/b/c"}
    assert found(table, "GET", "/kv/s/all") == ("/kv/{store}/all", {"store": "s"})


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "/a/", "/a//", "//a/b", "/a/b/", "/b/b", "/a/b/c", "/A/b"]
)
def test_what_is_not_exactly_a_route_is_none(path: str) -> None:
    assert refusal(router("GET /a/{x}"), "GET", path) is Refusal.NOT_FOUND


def test_paths_of_any_length_are_answered() -> None:
    table = router("GET /a/{x}")
    assert refusal(table, "GET", "/a" * (MAX_SEGMENTS + 1)) is Refusal.NOT_FOUND
    assert refusal(table, "GET", "/" * 10_000) is Refusal.NOT_FOUND


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("%ff", Refusal.BAD_REQUEST),
        ("%C3", Refusal.BAD_REQUEST),
        ("%00", Refusal.INVALID),
        ("a%00b", Refusal.INVALID),
    ],
)
def test_parts_that_are_no_text_are_refused(part: str, why: Refusal) -> None:
    assert refusal(router("GET /a/{x}"), "GET", f"/a/{part}") is why


def test_an_unknown_method_is_told_those_there_are() -> None:
    table = router("GET /a", "PUT /a")
    with pytest.raises(NoMethod) as caught:
        table.match("DELETE", "/a")
    assert caught.value.allowed == "GET, HEAD, PUT"
    assert found(table, "HEAD", "/a") == ("/a", {})


def test_a_route_twice_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        router("GET /a/{x}", "GET /a/{y}")
    with pytest.raises(ValueError, match="no part 'service'"):
        Router([Route("GET", "/a/{x}", endpoint, service="service")])

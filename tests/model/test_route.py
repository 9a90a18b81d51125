"""Which service answers: hosts by specificity, paths by segments, and nothing ever normalised."""

from __future__ import annotations

from typing import Any

import pytest

from edge.errors import ConfigError
from edge.model.names import read_host, read_path
from edge.model.route import Miss, Route, RouteTable

TABLE = RouteTable(
    [
        [Route("shop.example", "/"), Route("shop.example", "/api")],  # 0
        [Route("shop.example", "/api/v2"), Route("shop.example", "/api/v2/", exact=True)],  # 1
        [Route("shop.example", "/health", exact=True)],  # 2
        [Route("*.example", "/")],  # 3
        [Route("*.deep.example", "/"), Route("deep.example", "/only")],  # 4
        [Route("*", "/public")],  # 5
        [Route("api.example", "/v1/"), Route("[::1]", "/")],  # 6
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "target"),
    [
        ("shop.example", "/", 0),
        ("shop.example", "/api", 0),
        ("shop.example", "/api/", 0),
        ("shop.example", "/apix", 0),  # by the root, not by /api
        ("shop.example", "/api/v2", 1),
        ("shop.example", "/api/v2/", 1),
        ("shop.example", "/api/v2/x", 1),
        ("shop.example", "/api/v20", 0),
        ("shop.example", "/api//v2", 0),
        ("shop.example", "/health", 2),
        ("shop.example", "/health/", 0),
        ("shop.example", "/health/x", 0),
        ("a.example", "/x", 3),
        ("a.b.example", "/x", 3),
        ("a.deep.example", "/", 4),
        ("b.a.deep.example", "/", 4),
        ("deep.example", "/only/x", 4),
        ("unknown.test", "/public/x", 5),
        ("example", "/public", 5),  # *.example does not cover example itself
        (".example", "/public", 5),
        ("api.example", "/v1", 6),
        ("api.example", "/v1/x", 6),
        ("[::1]", "/", 6),
        ("", "/public", 5),
    ],
)
def test_the_most_specific_route_wins(host: str, path: str, target: int) -> None:
    assert TABLE.match(host.encode(), path.encode()) == target


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("api.example", "/v1x"),
        ("api.example", "/v"),
        ("api.example", "/"),
        ("api.example", "/v1%2fx"),  # an encoded slash is no segment border
        ("api.example", "/%761/x"),  # nothing is decoded
        ("api.example", "/x/../v1"),  # and no dot segment resolved
        ("api.example", "//v1"),
        ("api.example", "/V1"),
        ("deep.example", "/"),  # a host with routes never falls back to *.example
        ("unknown.test", "/publicx"),
        ("shop.example", "*"),
        ("shop.example", ""),
    ],
)
def test_a_known_host_without_that_path_says_so(host: str, path: str) -> None:
    assert TABLE.match(host.encode(), path.encode()) is Miss.PATH


@pytest.mark.parametrize(
    "host", [b"other.test", b"example", b"xshop.example.test", b"shop.example:80", b"SHOP.EXAMPLE"]
)
def test_a_host_that_nothing_names_is_told_apart_from_a_missing_path(host: bytes) -> None:
    table = RouteTable([[Route("shop.example", "/")], [Route("*.wild.example", "/")]])
    assert table.match(host, b"/") is Miss.HOST


def test_dot_segments_stay_under_the_prefix_they_are_written_under() -> None:
    assert TABLE.match(b"shop.example", b"/api/v2/../../secret") == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Route("a.example", "/x"), Route("a.example", "/x/")),
        (Route(), Route("*", "/")),
        (Route("a.example", "/x", exact=True), Route("a.example", "/x", exact=True)),
    ],
)
def test_two_routes_that_no_request_can_tell_apart_are_refused(first: Route, second: Route) -> None:
    with pytest.raises(ConfigError, match="two routes for"):
        RouteTable([[first], [second]])


def test_an_exact_path_and_a_prefix_may_share_their_spelling() -> None:
    table = RouteTable([[Route("*", "/x")], [Route("*", "/x", exact=True)]])
    assert (table.match(b"h", b"/x"), table.match(b"h", b"/x/")) == (1, 0)


def test_a_path_of_many_slashes_costs_no_more_than_a_plain_one() -> None:
    class Counted(bytes):
        """Counts how often it is looked into."""

        looks = 0

        def __getitem__(self, key: Any) -> Any:
            Counted.looks += 1
            return super().__getitem__(key)

    table = RouteTable([[Route("*", "/a" * depth) for depth in range(1, 20)]])
    assert table.match(b"h", Counted(b"/b" * 4000)) is Miss.PATH
    assert Counted.looks <= 2 * 19 + 1  # by the configured prefixes, not by its 4,000 segments


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*", "*"),
        ("Shop.Example", "shop.example"),
        ("*.Example", "*.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0:0::1]", "[::1]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_host", "my_host"),
    ],
)
def test_hosts_are_brought_to_one_spelling(text: str, host: str) -> None:
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example:80",
        "http://a.example",
        "a.example.",
        "a..example",
        "-a.example",
        "bücher.example",
        "a.*.example",
        "*a.example",
        "**",
        "a b",
        "a/b",
        "[::1]:80",
        "[example]",
        "x" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
def test_what_is_not_a_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_host(text)


@pytest.mark.parametrize("text", ["", "api", "/a b", "/a?x", "/a#x", "/ü", "/%2", "/api/*", "/\n"])
def test_what_is_not_a_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_path(text)


@pytest.mark.parametrize("text", ["/", "/a%2fb", "/a/../b", "/~x/;p=1,2/@:", "//"])
def test_a_path_is_kept_as_written(text: str) -> None:
    assert read_path(text) == text

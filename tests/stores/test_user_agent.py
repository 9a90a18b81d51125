"""Which program a User-Agent names."""

from __future__ import annotations

import pytest

from edge.stores.user_agent import OTHER, UserAgent, parse_user_agent

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15"


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        (
            f"Mozilla/5.0 (Windows NT 10.0) {_WEBKIT} Chrome/120.0.6099.71 Safari/537.36",
            UserAgent("Chrome", "120", "0", "6099"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/120.0.0.0 Mobile Safari/537.36",
            UserAgent("Chrome Mobile", "120", "0", "0"),
        ),
        (
            f"Mozilla/5.0 (Windows) {_WEBKIT} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210",
            UserAgent("Edge", "120", "0", "2210"),
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_1) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/17.1 Safari/605.1.15",
            UserAgent("Safari", "17", "1"),
        ),
        (
            f"{_IPHONE} (KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1",
            UserAgent("Mobile Safari", "17", "2"),
        ),
        (
            f"{_IPHONE} (KHTML, like Gecko) CriOS/120.0.6099.50 Mobile/15E148 Safari/604.1",
            UserAgent("Chrome Mobile iOS", "120", "0", "6099"),
        ),
        (
            "Mozilla/5.0 (Android 14; Mobile; rv:121.0) Gecko/121.0 Firefox/121.0",
            UserAgent("Firefox Mobile", "121", "0"),
        ),
        ("Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1)", UserAgent("IE", "9", "0")),
        (
            "Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko",
            UserAgent("IE", "11", "0"),
        ),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            UserAgent("Googlebot", "2", "1"),
        ),
        ("curl/8.5.0", UserAgent("curl", "8", "5", "0")),
        ("python-requests/2.31.0", UserAgent("python-requests", "2", "31", "0")),
        ("Go-http-client/1.1", UserAgent("Go-http-client", "1", "1")),
        ("Thing/1.beta.2", UserAgent("Thing", "1")),
        ("Thing/²", UserAgent("Thing")),
        ("Mozilla/5.0", OTHER),
        ("x" * 100 + "/1", OTHER),
        ("/1.0", OTHER),
        ("nothing here", OTHER),
        ("", OTHER),
    ],
)
def test_families_and_versions(text: str, agent: UserAgent) -> None:
    assert parse_user_agent(text) == agent


def test_a_hostile_text_is_read_once_and_not_to_its_end() -> None:
    assert parse_user_agent("(" * 1_000_000) == OTHER
    assert parse_user_agent("a/" * 5_000 + " Chrome/1").family != "Chrome"

"""A token is found where one put it, and goes to the server that it was put there for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.client.failures import Unusable
from edge.client.profile import (
    Given,
    Profile,
    find_target,
    profiles_path,
    read_profiles,
    read_server,
    write_profiles,
)
from tests.support.fake_api import FakeApi


def env(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def save(home: Path, **profiles: Profile) -> Path:
    return write_profiles(env(home), profiles)


def test_without_anything_it_is_this_machine_and_no_token(home: Path) -> None:
    target = find_target(Given(), env(home))
    assert (target.server, target.token, target.warning) == ("http://127.0.0.1:8090", "", "")


def test_options_come_before_the_environment_and_that_before_a_profile(home: Path) -> None:
    save(home, default=Profile("http://127.0.0.1:1", "saved"))
    assert find_target(Given(), env(home)).token == "saved"
    variables = env(home, EDGE_SERVER="http://127.0.0.1:2", EDGE_TOKEN="environment")
    found = find_target(Given(), variables)
    assert (found.server, found.token) == ("http://127.0.0.1:2", "environment")
    found = find_target(Given("http://127.0.0.1:3", "option"), variables)
    assert (found.server, found.token) == ("http://127.0.0.1:3", "option")


def test_a_profile_that_is_named_comes_before_the_environment(home: Path) -> None:
    save(home, far=Profile("https://far.example", "far"))
    found = find_target(Given(profile="far"), env(home, EDGE_SERVER="http://x", EDGE_TOKEN="x"))
    assert (found.server, found.token) == ("https://far.example", "far")
    assert find_target(Given(), env(home, EDGE_PROFILE="far")).token == "far"


def test_the_token_of_a_profile_is_not_sent_to_another_server(home: Path) -> None:
    save(home, default=Profile("https://mine.example", "saved"))
    assert find_target(Given("https://other.example"), env(home)).token == ""
    assert find_target(Given("https://mine.example"), env(home)).token == "saved"
    assert find_target(Given("http://mine.example"), env(home)).token == ""


def test_a_state_directory_has_the_first_token(home: Path) -> None:
    state = home / "state"
    state.mkdir()
    (state / "admin.token").write_text("first\n")
    save(home, default=Profile("https://mine.example", "saved"))
    found = find_target(Given(state_dir=state), env(home))
    assert (found.server, found.token) == ("http://127.0.0.1:8090", "first")
    with pytest.raises(Unusable, match=r"admin\.token cannot be read"):
        find_target(Given(state_dir=home), env(home))


def test_the_state_directory_beside_one_is_for_this_machine_only(home: Path) -> None:
    (home / "var").mkdir()
    (home / "var" / "admin.token").write_text("near")
    assert find_target(Given(), env(home)).token == "near"
    assert find_target(Given("https://far.example"), env(home)).token == ""


def test_the_state_directory_of_make_run_is_found_too(home: Path) -> None:
    (home / "config" / "var").mkdir(parents=True)
    (home / "config" / "var" / "admin.token").write_text("shipped")
    assert find_target(Given(), env(home)).token == "shipped"
    assert find_target(Given("https://far.example"), env(home)).token == ""


def test_a_token_that_others_can_read_on_the_way_is_warned_of(home: Path) -> None:
    assert "not TLS" in find_target(Given("http://far.example", "t"), env(home)).warning
    assert find_target(Given("https://far.example", "t"), env(home)).warning == ""
    assert find_target(Given("http://localhost:1", "t"), env(home)).warning == ""


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("http://127.0.0.1:8090/", "http://127.0.0.1:8090"),
        ("HTTPS://Edge.Example", "https://edge.example"),
        ("127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("edge.example:8443", "https://edge.example:8443"),
        ("[::1]:8090", "http://[::1]:8090"),
    ],
)
def test_addresses_have_one_form(text: str, server: str) -> None:
    assert read_server(text) == server


@pytest.mark.parametrize(
    "text", ["ftp://x", "http://", "http://x:99999", "http://x/path", "http://a@x", "http://x?y"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        read_server(text)


def test_profiles_are_for_their_owner_alone(home: Path) -> None:
    path = save(home, default=Profile("https://mine.example", "saved"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert "saved" not in repr(read_profiles(env(home)))
    path.chmod(0o644)
    with pytest.raises(Unusable, match="chmod 600"):
        read_profiles(env(home))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"profiles": {"a": {}}}', '{"profiles": []}'])
def test_a_damaged_file_is_said_to_be(home: Path, text: str) -> None:
    path = profiles_path(env(home))
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(Unusable, match="damaged"):
        read_profiles(env(home))


def test_profiles_are_where_the_desktop_keeps_settings(home: Path) -> None:
    assert profiles_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/edge/profiles.json")
    assert profiles_path({"HOME": "/h"}) == Path("/h/.config/edge/profiles.json")


Run = Callable[..., int]


def test_login_tries_a_token_before_it_saves_it(run: Run, api: FakeApi, home: Path) -> None:
    api.on_refused("GET /v1/whoami", "unauthorized", "the token is not valid")
    words = ("login", "--server", "http://127.0.0.1:9", "--token", "abc")
    assert run(*words) == 1
    assert read_profiles(env(home)) == {}
    api.on("GET /v1/whoami", {"name": "me", "scopes": ["admin"]})
    assert run(*words) == 0
    assert read_profiles(env(home)) == {"default": Profile("http://127.0.0.1:9", "abc")}
    api.on("GET /v1/services", {"items": [], "next": None})
    assert run("services") == 0
    assert api.asked[-1].headers["authorization"] == "Bearer abc"
    assert api.asked[-1].headers["host"] == "127.0.0.1:9"


def test_login_saves_under_the_name_of_a_profile_and_logout_forgets_it(
    run: Run, api: FakeApi, home: Path
) -> None:
    api.on("GET /v1/whoami", {"name": "me", "scopes": ["admin"]})
    assert run("login", "--profile", "b", "--token", "abc", "--server", "http://127.0.0.1:9") == 0
    assert run("whoami", "--profile", "b") == 0
    assert run("logout", "--profile", "b") == 0
    assert json.loads(profiles_path(env(home)).read_text()) == {"profiles": {}}
    assert run("whoami", "--profile", "b") == 2

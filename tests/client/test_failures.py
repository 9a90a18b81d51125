"""Refusals and failures of `edge` are readable, and its exit status says whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from edge.client.cli import main
from tests.support.fake_api import Asked, FakeApi

Run = Callable[..., int]


def test_a_refusal_is_shown_with_every_problem(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [{"path": "limits.memory", "message": "too much\x1b[2J", "line": 3}]
    api.on_refused("GET /v1/services/app", "invalid", "two things are wrong", problems=problems)
    assert run("describe", "app") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "refused: Invalid",
        "  two things are wrong",
        "  - line 3: limits.memory: too much\\x1b[2J",
        "  (invalid, request r1)",
    ]


def test_a_refusal_as_json_is_the_problem_document(
    run: Run, api: FakeApi, capfd: pytest.CaptureFixture[str]
) -> None:
    api.on_refused("GET /v1/services/app", "invalid", "wrong")
    assert run("--json", "describe", "app") == 1
    assert json.loads(capfd.readouterr().out)["code"] == "invalid"


def test_something_that_is_no_edge_server_is_said_to_be(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answers["GET /v1/services"] = lambda _: httpx.Response(502, text="<html>Bad gateway")
    assert run("services") == 3
    api.answers["GET /v1/services"] = lambda _: httpx.Response(200, text="<html>")
    assert run("services") == 3
    api.answers["GET /v1/services"] = lambda _: httpx.Response(302, headers={"location": "/x"})
    assert run("services") == 3
    assert len(api.asked) == 3  # no redirect is followed: the token would go along
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("late"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("garbage"),
        httpx.ReadTimeout("late"),
        httpx.ProxyError("none"),
    ],
)
def test_a_connection_that_fails_is_one_line_and_exit_3(
    run: Run, api: FakeApi, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Asked) -> httpx.Response:
        raise error

    api.answers["GET /v1/services"] = fail
    assert run("services") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edge: http://127.0.0.1:8090")


def test_nobody_listens_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["services", "--server", "http://127.0.0.1:1"]) == 3
    assert "is the server running?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",), ("services", "--nonsense"), ("activate", "app", "zero"), ("describe",),
        ("services", "--server", "ftp://x"), ("services", "--token", "\x00"),
        ("services", "--ca", "/nonexistent"), ("acl", "add", "l", "maybe", "::1"),
    ],
)  # fmt: skip
def test_a_command_line_that_cannot_be_read_is_exit_2(
    run: Run, api: FakeApi, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert api.asked == []
    assert "Traceback" not in capsys.readouterr().err


def test_a_misspelt_command_is_told_the_nearest(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("servces") == 2
    assert "Did you mean 'services'?" in capsys.readouterr().err


def test_a_token_is_in_no_message(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on_refused("GET /v1/whoami", "unauthorized", "the token is not valid")
    assert run("whoami", "--token", "sesame") == 1
    printed = capsys.readouterr()
    assert "sesame" not in printed.out + printed.err


def test_whoever_shows_no_token_is_told_how_to_show_one(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.on_refused("GET /v1/whoami", "unauthorized", "show a token")
    assert run("whoami") == 1
    assert "--state-dir" in capsys.readouterr().err
    assert run("whoami", "--token", "wrong") == 1
    assert "--state-dir" not in capsys.readouterr().err

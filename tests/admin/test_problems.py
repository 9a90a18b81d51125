"""Refusals on the wire, and the page that promises them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge.admin.problems import TYPE, fault_reply, refusal_reply
from edge.errors import ApiRefused, Problem, Refusal

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def body_of(error: ApiRefused, *, fastly: bool = False) -> dict[str, object]:
    reply = refusal_reply(error, "abc", fastly=fastly)
    assert isinstance(reply.body, bytes)
    found: dict[str, object] = json.loads(reply.body)
    return found


def test_the_page_lists_every_code_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    fault = json.loads(fault_reply("abc", fastly=False).body)  # type: ignore[arg-type]
    assert rows == [
        *((refusal.code, str(refusal.status), refusal.title) for refusal in Refusal),
        ("fault", "500", fault["title"]),
    ]


def test_a_problem_has_its_code_and_every_mistake_with_its_place() -> None:
    error = ApiRefused(
        Refusal.INVALID, "two things", problems=(Problem("a.b", "x", 3), Problem("c", "y"))
    )
    assert body_of(error) == {
        "type": TYPE + "invalid",
        "title": Refusal.INVALID.title,
        "status": 422,
        "code": "invalid",
        "detail": "two things",
        "problems": [{"path": "a.b", "message": "x", "line": 3}, {"path": "c", "message": "y"}],
        "request_id": "abc",
    }


def test_fastly_s_clients_get_their_own_shape_and_status() -> None:
    locked = ApiRefused(Refusal.VERSION_LOCKED, "version 3", problems=(Problem("a", "b"),))
    assert body_of(locked, fastly=True) == {
        "msg": Refusal.VERSION_LOCKED.title,
        "detail": "version 3\na: b",
    }
    assert refusal_reply(locked, "abc", fastly=True).status == 422
    assert refusal_reply(locked, "abc").status == 409


@pytest.mark.parametrize("refusal", [Refusal.BUSY, Refusal.STOPPING])
def test_who_is_to_come_back_is_told_when(refusal: Refusal) -> None:
    names = [name for name, _ in refusal_reply(ApiRefused(refusal, ""), "abc").headers]
    assert names == ["retry-after"]


def test_a_challenge_comes_with_401() -> None:
    headers = dict(refusal_reply(ApiRefused(Refusal.UNAUTHORIZED, ""), "abc").headers)
    assert headers["www-authenticate"].startswith("Bearer ")

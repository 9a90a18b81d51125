"""A control API for tests of `edge`: canned answers, and what was asked for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

Answering = Callable[["Asked"], httpx.Response]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, its body read whole."""

    method: str
    path: str  # raw, without the query
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> object:
        return json.loads(self.body)


@dataclass(slots=True)
class FakeApi:
    """Give its `transport` to `edge.client.cli.main`."""

    answers: dict[str, Answering] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    @property
    def calls(self) -> list[str]:
        """`METHOD PATH` of every call."""
        return [f"{one.method} {one.path}" for one in self.asked]

    def on(self, call: str, value: object = None, status: int = 200) -> None:
        """Answer `METHOD PATH` with JSON; None is an empty body."""
        content = b"" if value is None else json.dumps(value, indent=2).encode() + b"\n"
        self.answers[call] = lambda _: httpx.Response(status, content=content)

    def on_refused(self, call: str, code: str, detail: str, **more: object) -> None:
        """Answer with a problem document."""
        problem = {"code": code, "title": code.title(), "detail": detail, "request_id": "r1"}
        self.on(call, {**problem, **more}, 422)

    def on_page(self, call: str, pages: Mapping[str, tuple[list[object], str | None]]) -> None:
        """Answer with pages, by `after`: entries, and what the next page is after."""

        def answer(asked: Asked) -> httpx.Response:
            items, following = pages[asked.query.get("after", [""])[0]]
            return httpx.Response(200, json={"items": items, "next": following})

        self.answers[call] = answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        query: dict[str, list[str]] = {}
        for key, value in request.url.params.multi_items():
            query.setdefault(key, []).append(value)
        path = request.url.raw_path.decode().partition("?")[0]
        asked = Asked(request.method, path, query, dict(request.headers), request.read())
        self.asked.append(asked)
        answering = self.answers.get(f"{asked.method} {asked.path}")
        if answering is None:
            problem = {"code": "not_found", "title": "Not Found", "detail": f"no {path} here"}
            return httpx.Response(404, json=problem)
        return answering(asked)

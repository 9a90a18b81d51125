"""One run of `edge`: its options, where it prints, and the server it talks to."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console, RenderableType

from edge.client.api import Answer, Api
from edge.client.profile import Given, find_target
from edge.client.show import safe
from edge.telemetry.escape import plain

_PIPE_WIDTH = 1000  # columns where no terminal says how many there are: nothing is cut


@dataclass(slots=True)
class Session:
    """Made by `edge.client.cli`; commands get it with `pass_session`."""

    env: Mapping[str, str]
    transport: httpx.BaseTransport | None = None
    given: Given = field(default_factory=Given)
    authority: Path | None = None
    json: bool = False
    out: Console = field(default_factory=lambda: console(stderr=False))
    err: Console = field(default_factory=lambda: console(stderr=True))
    _api: Api | None = None

    @property
    def api(self) -> Api:
        """The server, from the first call on."""
        if self._api is None:
            target = find_target(self.given, self.env)
            if target.warning:
                self.warn(target.warning)
            self._api = Api(target, authority=self.authority, transport=self.transport)
        return self._api

    def close(self) -> None:
        if self._api is not None:
            self._api.close()

    @property
    def is_interactive(self) -> bool:
        """Whether somebody can be asked, and sees progress."""
        return not self.json and self.err.is_terminal and sys.stdin.isatty()

    def show(self, answer: Answer, render: Callable[[Any], RenderableType]) -> None:
        """With `--json` exactly what the server said; else what `render` makes of it."""
        if self.json:
            self.raw(answer.body)
        else:
            self.tell(render(answer.value))

    def show_items(self, items: list[object], render: Callable[[Any], RenderableType]) -> None:
        """A list whose pages have been put together."""
        if self.json:
            self.raw(json.dumps({"items": items, "next": None}, indent=2).encode())
        else:
            self.tell(render(items))

    def tell(self, shown: RenderableType) -> None:
        """What a command found, on the standard output."""
        for one in shown.splitlines() if isinstance(shown, str) else [shown]:
            line = safe(one) if isinstance(one, str) else one
            if self.out.is_terminal:
                self.out.print(line, soft_wrap=True)
                continue
            with self.out.capture() as printed:
                self.out.print(line, soft_wrap=True)
            # cells are filled up to the width of their column: of no use in a pipe
            for text in printed.get().splitlines():
                click.echo(text.rstrip())

    def raw(self, data: bytes) -> None:
        """Bytes as they are, on the standard output."""
        if data and not data.endswith(b"\n"):
            data += b"\n"
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def say(self, text: str) -> None:
        """What was done, for people."""
        if not self.json:
            self.out.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """What is being done, beside the output."""
        if not self.json:
            self.err.print(safe(text), style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        self.err.print(safe(f"warning: {text}"), style="yellow", soft_wrap=True)

    def choose(self, **changes: Any) -> None:
        """An option of the command line."""
        self.given = replace(self.given, **changes)


def console(*, stderr: bool) -> Console:
    """Colours and the width of the window on a terminal only."""
    made = Console(stderr=stderr)
    return made if made.is_terminal else Console(stderr=stderr, width=_PIPE_WIDTH)


pass_session = click.make_pass_decorator(Session)

"""Why a command of `edge` ended without doing what it was asked, and the exit status of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import click

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3


class Refused(click.ClickException):
    """The server said no, with a problem document (RFC 9457)."""

    exit_code = EXIT_REFUSED

    def __init__(self, problem: Mapping[str, object], raw: bytes = b"") -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or "refused"))
        self.problem = problem
        self.raw = raw  # as it came, for `--json`

    @property
    def code(self) -> str:
        """The stable code of the problem."""
        return str(self.problem.get("code", ""))

    @property
    def title(self) -> str:
        return str(self.problem.get("title", "The server refused"))

    @property
    def problems(self) -> Sequence[Mapping[str, object]]:
        """Each thing wrong with a document: path and message."""
        found = self.problem.get("problems")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class Unreachable(click.ClickException):
    """There was no answer, or not one of an edge server."""

    exit_code = EXIT_UNREACHABLE


class Unusable(click.ClickException):
    """Something on this side: a file that cannot be read, a value that cannot be sent."""

    exit_code = EXIT_USAGE

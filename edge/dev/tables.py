"""Typed reading of a TOML document: every problem is noted with its path, and every file it names.

Not here: what the tables of a `fastly.toml` mean.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from edge.errors import Problem
from edge.model.yaml_lines import PRIVATE_VARIABLES

T = TypeVar("T")
Table = Mapping[str, Any]

# Twice what a KV store takes as one value; a larger file is the wrong one.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Tables:
    """One document being read; relative paths start from its own directory."""

    def __init__(self, base: Path, env: Mapping[str, str]) -> None:
        self.base = base
        self.env = env
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.files: set[Path] = set()

    def problem(self, path: str, message: str) -> None:
        """Note what is wrong, and go on."""
        self.problems.append(Problem(path, message))

    def attempt(self, path: str, read: Callable[[], T]) -> T | None:
        """What `read` gives; its ValueError is noted."""
        try:
            return read()
        except ValueError as error:
            self.problem(path, str(error))
            return None

    def check_keys(self, table: Table, known: Collection[str], path: str) -> None:
        """Note every key that is not known, with the nearest one that is."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
                self.problem(f"{path}.{key}", f"unknown key; {hint}")

    # Values of a type -------------------------------------------------------------------------

    def table(self, value: object, path: str) -> Table:
        """A table; anything else is noted and read as empty."""
        if isinstance(value, Mapping):
            return value
        self.problem(path, f"must be a table, not {_kind(value)}")
        return {}

    def part(self, table: Table, key: str, path: str) -> Table:
        """A table in a table; empty when it is not there."""
        return self.table(table[key], f"{path}.{key}") if key in table else {}

    def text(self, table: Table, key: str, path: str) -> str | None:
        """Text, or None when it is absent or no text."""
        return self._typed(table, key, path, str, "text")

    def required(self, table: Table, key: str, path: str) -> str | None:
        """Text that must be there and not be empty."""
        if key not in table:
            self.problem(f"{path}.{key}", "is missing")
            return None
        found = self.text(table, key, path)
        if found is not None and not found.strip():
            self.problem(f"{path}.{key}", "is empty")
            return None
        return found

    def switch(self, table: Table, key: str, path: str, default: bool) -> bool:
        """true or false."""
        found = self._typed(table, key, path, bool, "true or false")
        return default if found is None else found

    def number(
        self, table: Table, key: str, path: str, *, least: float, most: float
    ) -> float | None:
        """A number in these bounds, or None."""
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(f"{path}.{key}", f"must be a number, not {_kind(value)}")
            return None
        if not least <= value <= most:
            self.problem(f"{path}.{key}", f"{value} is not between {least:g} and {most:g}")
            return None
        return value

    def texts(self, table: Table, key: str, path: str) -> list[str]:
        """A list of texts; empty when it is absent."""
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problem(f"{path}.{key}", "must be a list of texts")
            return []
        return value

    def _typed(self, table: Table, key: str, path: str, kind: type[T], words: str) -> T | None:
        value = table.get(key)
        if value is None or isinstance(value, kind):
            return value
        self.problem(f"{path}.{key}", f"must be {words}, not {_kind(value)}")
        return None

    # What lies outside ------------------------------------------------------------------------

    def expand(self, text: str, path: str) -> str:
        """`${NAME}` replaced by what the environment has; a variable that is not set is noted."""

        def value(match: re.Match[str]) -> str:
            found = None if match[1] in PRIVATE_VARIABLES else self.env.get(match[1])
            if found is None:
                self.problem(path, f"the environment variable {match[1]} is not set")
            return found or ""

        return _VARIABLE.sub(value, text)

    def file(self, name: str, path: str) -> bytes | None:
        """The bytes of a file, which counts among those that the document depends on."""
        where = self.base / name
        self.files.add(where)
        try:
            with where.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.problem(path, f"cannot read {where}: {reason}")
            return None
        if len(data) > MAX_FILE_BYTES:
            self.problem(path, f"{where} has more than {MAX_FILE_BYTES} bytes")
            return None
        return data

    def json_object(self, name: str, path: str) -> dict[str, Any] | None:
        """The JSON object that a file holds."""
        data = self.file(name, path)
        if data is None:
            return None
        try:
            found = json.loads(data)
        except RecursionError:
            self.problem(path, f"{name} nests too deep")
            return None
        except ValueError as error:
            self.problem(path, f"{name} is not JSON: {error}")
            return None
        if not isinstance(found, dict):
            self.problem(path, f"{name} must hold a JSON object, not {_kind(found)}")
            return None
        return found


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")

"""What people see: tables, facts, problems.  Text of others is made harmless before a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.client.failures import Refused
from edge.telemetry.escape import plain

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def safe(value: object) -> Text:
    """A value as one line that moves no cursor and is no markup."""
    match value:
        case None:
            return Text("-", style="dim")
        case Text():
            return value
        case bool():
            return Text("yes" if value else "no")
        case list() | tuple():
            return Text(", ".join(plain(str(item)) for item in value) or "-")
        case float():
            return Text(f"{value:g}")
        case _:
            return Text(plain(str(value)))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, tight: bool = False
) -> Table:
    """Columns as wide as they need; in a pipe, words only.  `tight`: one space between them."""
    padding = (0, 1, 0, 0) if tight else (0, 1)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=padding)
    for name in columns:
        right = name.startswith(">")
        made.add_column(name.removeprefix(">").upper(), justify="right" if right else "left")
    for row in rows:
        made.add_row(*(safe(value) for value in row))
    return made


def facts(pairs: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line; those without a value are left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", [], {}):
            made.add_row(name, safe(value))
    return made


def show_refusal(console: Console, error: Refused) -> None:
    """Title, detail, and each problem with its path."""
    console.print(Text.assemble(("refused: ", "bold red"), safe(error.title)), soft_wrap=True)
    console.print(Text("  ").append_text(safe(error.message)), soft_wrap=True)
    shown = [one for one in error.problems if str(one.get("message", "")) not in error.message]
    for problem in shown:
        line = f"line {problem['line']}: " if "line" in problem else ""
        path = str(problem.get("path", ""))
        told = (
            f"{line}{path}: {problem.get('message', '')}" if path else str(problem.get("message"))
        )
        console.print(Text("  - ").append_text(safe(told)), soft_wrap=True)
    code, request = error.code, str(error.problem.get("request_id") or "")
    console.print(
        Text(plain(f"  ({code}{', request ' + request if request else ''})"), style="dim")
    )


def size(value: object) -> str:
    """Bytes for people: `1.4 MiB`."""
    if not isinstance(value, (int, float)):
        return "-"
    number = float(value)
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("the last unit takes any number")


def ago(text: object, now: datetime | None = None) -> str:
    """How long a time of the API is past: `5 min ago`."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return "-"
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for most, unit, per in ((90, "s", 1), (5400, "min", 60), (129600, "h", 3600)):
        if seconds < most:
            return f"{max(0, round(seconds / per))} {unit} ago"
    return f"{round(seconds / 86400)} days ago"


def rows_of(items: Iterable[object]) -> list[Mapping[str, object]]:
    """The objects of a list; anything else of it is left out."""
    return [item for item in items if isinstance(item, dict)]

"""A YAML document as a small tree of text that remembers its lines; YAML's own types stay outside.

Only the event stream of PyYAML is used, so no tag, anchor or merge key can construct anything and
`off`, `1.10` or `0x10` arrive as they were written: the reader of each setting decides what text
means.  `${NAME}` is expanded in scalars after parsing, so that a value cannot inject structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from edge.errors import ConfigError, Problem

# Thousands of services fit; a larger document is a mistake or an attack on the parser.
MAX_DOCUMENT_BYTES = 1024 * 1024
# Our own schema nests 5 deep; the bound keeps recursion over a hostile document shallow.
MAX_DEPTH = 16
# Tokens of the control API; a document never hands them on, least of all to a guest's environment.
PRIVATE_VARIABLES = frozenset({"EDGE_ADMIN_TOKEN", "EDGE_TOKEN"})

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value.  `shown` is what error messages may quote: never the contents of a variable."""

    text: str
    shown: str
    line: int | None = None
    null: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping; `lines` has the line of each key."""

    entries: Mapping[str, Node]
    lines: Mapping[str, int | None]
    line: int | None = None


Node = Scalar | Items | Entries


def join(path: str, key: str | int) -> str:
    """The path of a member: `services.shop.routes[1].path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def read_document(
    text: str, *, source: str, env: Mapping[str, str]
) -> tuple[Node | None, list[Problem]]:
    """The tree of a document and every problem short of unreadable.

    Raises ConfigError when there is no tree to be had: not YAML, too large, too deep, an alias.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        raise ConfigError(Problem("", f"{source} is larger than {MAX_DOCUMENT_BYTES} bytes"))
    # libyaml where the wheel has it: 1 MiB takes it 0.1 s, the Python scanner several seconds
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(yaml.parse(text, Loader=loader), env)
    try:
        return builder.document(), builder.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        if "alias" in said:
            said += '; a value that begins with * must be quoted: "*"'
        line = mark.line + 1 if mark else None
        raise ConfigError(Problem("", f"{source} is not YAML: {said}", line)) from None
    except (yaml.YAMLError, UnicodeError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(Problem("", f"{source} is not YAML: {said}")) from None


def node_from_plain(value: object, line: int | None = None) -> Node:
    """The tree of text, lists and mappings that did not come from YAML, such as a query string.

    Nothing is expanded.  Raises TypeError for anything but str, list, tuple and dict.
    """
    match value:
        case str():
            return Scalar(value, value, line)
        case list() | tuple():
            return Items(tuple(node_from_plain(item, line) for item in value), line)
        case dict():
            entries = {str(key): node_from_plain(item, line) for key, item in value.items()}
            return Entries(entries, dict.fromkeys(entries, line), line)
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a document")


class _Builder:
    """Turns PyYAML's events into the tree, noting what it does not like."""

    def __init__(self, events: Iterator[yaml.Event], env: Mapping[str, str]) -> None:
        self._events = events
        self._env = env
        self.problems: list[Problem] = []

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ConfigError(
                        Problem("", "a second document begins here; write one", _line(event))
                    )
                root = self._node(next(self._events), "", 0)
        return root

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                Problem(
                    path,
                    f"*{event.anchor} is a YAML alias; write the value out, or quote it if it "
                    "begins with *",
                    line,
                )
            )
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None:
            raise ConfigError(
                Problem(path, f"&{event.anchor} is a YAML anchor; write the value out", line)
            )
        tag: str | None = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self.problems.append(Problem(path, f"the YAML tag {tag} has no meaning here", line))
        if depth > MAX_DEPTH:
            raise ConfigError(Problem(path, f"nested deeper than {MAX_DEPTH} levels", line))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(path, depth, line)
        return self._entries(path, depth, line)

    def _items(self, path: str, depth: int, line: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, join(path, len(items)), depth + 1))
        return Items(tuple(items), line)

    def _entries(self, path: str, depth: int, line: int) -> Entries:
        entries: dict[str, Node] = {}
        lines: dict[str, int | None] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key_line = _line(event)
            if isinstance(event, yaml.ScalarEvent) and event.tag is None and event.anchor is None:
                key = event.value
            else:
                self._node(event, path, depth + 1)
                key = ""
            where = join(path, key)
            value = self._node(next(self._events), where, depth + 1)
            if not key:
                self.problems.append(Problem(path, "a key must be plain text", key_line))
            elif key in entries:
                self.problems.append(
                    Problem(where, f"written twice; the first is on line {lines[key]}", key_line)
                )
            else:
                entries[key] = value
                lines[key] = key_line
        return Entries(entries, lines, line)

    def _scalar(self, event: yaml.ScalarEvent, path: str, line: int) -> Scalar:
        written: str = event.value
        plain = event.implicit[0]
        if plain and written in ("", "~", "null"):
            return Scalar("", "", line, null=True)
        if "${" not in written:
            return Scalar(written, written, line)
        try:
            return Scalar(expand(written, self._env), written, line)
        except ValueError as error:
            self.problems.append(Problem(path, str(error), line))
            return Scalar(written, written, line)


def expand(text: str, env: Mapping[str, str]) -> str:
    """`${NAME}` and `${NAME:-default}` replaced from `env`; `$${` stands for `${` itself.

    As in a shell, the default is used when the variable is unset or empty.  Values are not
    expanded again.  Raises ValueError for a variable that is not set or not well written.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inside = _VARIABLE_INSIDE.fullmatch(match[1] or "")
        if inside is None:
            raise ValueError(
                f"{match[0]} is not ${{NAME}} or ${{NAME:-default}}; $${{ is a plain ${{"
            )
        name, default = inside[1], inside[2]
        if name in PRIVATE_VARIABLES:
            raise ValueError(f"{name} is the server's own and is never put into a document")
        found = env.get(name, "")
        if found or (name in env and default is None):
            return found
        if default is None:
            raise ValueError(
                f"the environment variable {name} is not set; {match[0][:-1]}:-...}} "
                "gives a default"
            )
        return str(default)

    return _VARIABLE.sub(value, text)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    assert mark is not None  # every event of a parsed document has one
    return mark.line + 1

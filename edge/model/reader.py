"""Reads documented dataclasses from a document tree, collecting every problem on the way.

One method per kind of setting, driven by `edge.settings.About`.  A bad value is noted and its
default kept, so that one run reports everything.  Not here: services and checks across settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

from edge.errors import Problem
from edge.model import names, units
from edge.model.documented import SettingField, documented
from edge.model.yaml_lines import Entries, Items, Node, Scalar, join
from edge.settings import About, Kind, Listen

T = TypeVar("T")
Special = Callable[[Node, str], object]

_NUMBERS: Mapping[Kind, tuple[Callable[[str], float], Callable[..., str]]] = {
    Kind.DURATION: (units.read_duration, units.write_duration),
    Kind.BYTES: (units.read_bytes, units.write_bytes),
    Kind.COUNT: (units.read_count, str),
    Kind.SHARE: (units.read_share, units.write_share),
}


class Reader:
    """Reads one document; `problems` has what it found wrong, in no particular order."""

    def __init__(self, base: Path, special: Mapping[Kind, Special] | None = None) -> None:
        self.base = base
        self.special = special or {}
        self.problems: list[Problem] = []

    def problem(self, path: str, message: str, line: int | None) -> None:
        """Notes one problem."""
        self.problems.append(Problem(path, message, line))

    def group(self, start: T, node: Node, path: str) -> T:
        """`start` with the settings that `node` changes."""
        assert not isinstance(start, type)
        return replace(start, **self.changes(type(start), node, path, start))  # type: ignore[type-var]

    def changes(self, cls: type, node: Node, path: str, start: object = None) -> dict[str, object]:
        """The values that `node` gives to fields of `cls`; bad ones are noted and left out."""
        fields = documented(cls)
        entries = self.entries(node, path)
        self.check_keys(entries, [item.name for item in fields], path)
        values: dict[str, object] = {}
        for item in fields:
            child = entries.entries.get(item.name)
            where = join(path, item.name)
            if child is None:
                if item.required and (isinstance(node, Entries) or _is_null(node)):
                    self.problem(where, "is missing", entries.line)
                continue
            try:
                values[item.name] = self._value(item, child, where, getattr(start, item.name, None))
            except ValueError as error:
                self.problem(where, str(error), child.line)
        return values

    def entries(self, node: Node, path: str) -> Entries:
        """The mapping a node must be; anything else is noted and read as empty."""
        if isinstance(node, Entries):
            return node
        if not _is_null(node):
            self.problem(path, "must be a mapping of keys to values", node.line)
        return Entries({}, {}, node.line)

    def check_keys(self, node: Entries, known: Collection[str], path: str) -> None:
        """Notes every key that is not known, with the nearest one that is."""
        for key in node.entries:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
                self.problem(join(path, key), f"unknown key; {hint}", node.lines[key])

    def _value(self, item: SettingField, node: Node, path: str, current: object) -> object:
        about = item.about
        if about.unset and isinstance(node, Scalar) and node.text == about.unset:
            return None
        special = self.special.get(about.kind)
        if special is not None:
            return special(node, path)
        match about.kind:
            case Kind.GROUP:
                return self.group(item.type() if current is None else current, node, path)
            case Kind.DURATION | Kind.BYTES | Kind.COUNT | Kind.SHARE:
                return parsed(node, partial(_number, about))
            case Kind.SWITCH:
                return parsed(node, units.read_switch)
            case Kind.CHOICE:
                return parsed(node, partial(_choice, item.type))
            case Kind.NAMES:
                return self.each(node, path, names.read_name)
            case Kind.HOST:
                return parsed(node, names.read_one_host)
            case Kind.HOSTS:
                return self.each(node, path, names.read_one_host)
            case Kind.PATH:
                return parsed(node, self.path)
            case Kind.ADDRESS:
                return parsed(node, names.read_address)
            case Kind.LISTENERS:
                return self._listeners(node, path)
            case Kind.NETWORKS:
                return self.each(node, path, names.read_network)
            case Kind.TEXT:
                return parsed(node, names.read_word)
            case Kind.TEXT_MAP:
                return self.text_map(node, path, names.read_variable)
            case _:
                raise AssertionError(f"no reader for {about.kind}")

    def each(self, node: Node, path: str, read: Callable[[str], T]) -> tuple[T, ...]:
        """One value or a list of them; each bad one is noted by itself."""
        found: list[T] = []
        for position, one in enumerate(_list(node)):
            try:
                found.append(parsed(one, read))
            except ValueError as error:
                where = join(path, position) if isinstance(node, Items) else path
                self.problem(where, str(error), one.line)
        return tuple(found)

    def path(self, text: str) -> Path:
        """A path, relative to the document's directory."""
        if not text or "\0" in text:
            raise ValueError("is not a path")
        return self.base / text

    def text_map(self, node: Node, path: str, key_of: Callable[[str], str]) -> dict[str, str]:
        """A mapping of names to text; each bad entry is noted by itself."""
        found: dict[str, str] = {}
        entries = self.entries(node, path)
        for key, child in entries.entries.items():
            try:
                name = key_of(key)
                text = text_of(child)
                if "\0" in text:
                    raise ValueError("has a NUL byte, which no guest can take")
                found[name] = text
            except ValueError as error:
                self.problem(join(path, key), str(error), child.line)
        return found

    def _listeners(self, node: Node, path: str) -> tuple[Listen, ...]:
        found: list[Listen] = []
        whole = isinstance(node, Items)
        for position, one in enumerate(_list(node)):
            where = join(path, position) if whole else path
            try:
                found.append(self._listener(one, where))
            except ValueError as error:
                self.problem(where, str(error), one.line)
        if whole and not node.items:  # type: ignore[union-attr]
            raise ValueError("names no address; nothing would be served")
        return tuple(found)

    def _listener(self, node: Node, path: str) -> Listen:
        if not isinstance(node, Entries):
            return parsed(node, names.read_address)
        self.check_keys(node, ("address", "proxy_protocol"), path)
        if "address" not in node.entries:
            raise ValueError("has no address")
        listen = parsed(node.entries["address"], names.read_address)
        if "proxy_protocol" not in node.entries:
            return listen
        proxy_protocol = parsed(node.entries["proxy_protocol"], units.read_switch)
        return Listen(listen.host, listen.port, proxy_protocol)


def text_of(node: Node) -> str:
    """The text of a scalar; raises ValueError for anything else and for no value at all."""
    if not isinstance(node, Scalar):
        raise ValueError(
            f"must be one value, not a {'list' if isinstance(node, Items) else 'mapping'}"
        )
    if node.null:
        raise ValueError('has no value; write "" for empty text or remove the key')
    return node.text


def parsed(node: Node, read: Callable[[str], T]) -> T:
    """What `read` makes of a scalar.

    Its message is dropped where the text came from a variable: that may be secret, and logs are
    read by many.
    """
    text = text_of(node)
    try:
        return read(text)
    except ValueError:
        assert isinstance(node, Scalar)
        if node.text != node.shown:
            raise ValueError(f"{node.shown} does not give a valid value") from None
        raise


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _list(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Items) else (node,)


def _number(about: About, text: str) -> float:
    read, write = _NUMBERS[about.kind]
    value = read(text)
    if about.least is not None and value < about.least:
        raise ValueError(f"{text} is below the least, {_bound(write, about, about.least)}")
    if about.most is not None and value > about.most:
        raise ValueError(f"{text} is above the most, {_bound(write, about, about.most)}")
    return value


def _bound(write: Callable[..., str], about: About, bound: float) -> str:
    return write(int(bound) if about.kind in (Kind.BYTES, Kind.COUNT) else bound)


def _choice(options: type[Enum], text: str) -> Enum:
    known = [str(option.value) for option in options]
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{text!r} is not one of {', '.join(known)}{hint}")
    return options(text)

"""JSON Schema, as much of it as the control API says about itself, and the check of a value by it.

One declaration serves both the OpenAPI document and the reader, so that neither can promise what
the other does not do.  A schema with a keyword that is not known here is our bug: `check` raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edge.errors import ApiRefused, Problem, Refusal

Schema = Mapping[str, object]
MAX_PROBLEMS: Final = 20  # of one document: a hostile one must not make a long answer

_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or _is_whole(value)),
    "number": lambda value: _is_number(value),
    "null": lambda value: value is None,
}
_SILENT: Final = frozenset(
    ("description", "title", "examples", "format", "default", "readOnly", "contentMediaType")
)


def obj(
    required: Mapping[str, Schema] | None = None, optional: Mapping[str, Schema] | None = None
) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": {**(required or {}), **(optional or {})},
        "required": list(required or {}),
        "additionalProperties": False,
    }


def text(least: int = 0, most: int | None = None, pattern: str = "", about: str = "") -> Schema:
    """A string; lengths in characters."""
    found: dict[str, object] = {"type": "string"}
    if least:
        found["minLength"] = least
    if most is not None:
        found["maxLength"] = most
    if pattern:
        found["pattern"] = pattern
    if about:
        found["description"] = about
    return found


def one_of(*words: str, about: str = "") -> Schema:
    """One of some words."""
    return {"type": "string", "enum": list(words), **({"description": about} if about else {})}


def number(
    least: float | None = None, most: float | None = None, *, kind: str = "number", about: str = ""
) -> Schema:
    """A number, or with `kind` an `integer`."""
    found: dict[str, object] = {"type": kind}
    if least is not None:
        found["minimum"] = least
    if most is not None:
        found["maximum"] = most
    if about:
        found["description"] = about
    return found


def array(items: Schema, most: int | None = None, least: int = 0) -> Schema:
    """A list; bounds of its length."""
    found: dict[str, object] = {"type": "array", "items": items}
    if most is not None:
        found["maxItems"] = most
    if least:
        found["minItems"] = least
    return found


def maybe(schema: Schema) -> Schema:
    """It, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


ANY: Final[Schema] = {}
YES_OR_NO: Final[Schema] = {"type": "boolean"}
# The same as a query parameter, where people write 1 as well.
SWITCH: Final[Schema] = {"type": "string", "enum": ["true", "false", "1", "0"]}
FREE: Final[Schema] = {"type": "object"}  # an object that is described elsewhere


def require(schema: Schema, value: object, what: str) -> None:
    """Raises ApiRefused INVALID with every problem of `value`, up to a bound."""
    problems = []
    for problem in check(schema, value, ""):
        problems.append(problem)
        if len(problems) == MAX_PROBLEMS:
            break
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ApiRefused(Refusal.INVALID, f"{what}: {first}{more}", problems=tuple(problems))


def check(schema: Schema, value: object, path: str) -> Iterator[Problem]:
    """What is wrong with a value of plain JSON; values themselves are not quoted."""
    for keyword, rule in schema.items():
        if keyword in _SILENT:
            continue
        yield from _RULES[keyword](schema, rule, value, path)


Rule = Callable[[Schema, object, object, str], Iterator[Problem]]


def _type(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if not _TYPES[str(rule)](value):
        article = "an" if str(rule)[0] in "aeiou" else "a"
        yield Problem(path, "must be null" if rule == "null" else f"must be {article} {rule}")


def _enum(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    assert isinstance(rule, list)
    if value not in rule:
        yield Problem(path, f"must be one of {', '.join(map(str, rule))}")


def _minimum(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, int | float) and _is_number(value) and value < float(str(rule)):
        yield Problem(path, f"must be at least {rule}")


def _maximum(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, int | float) and _is_number(value) and value > float(str(rule)):
        yield Problem(path, f"must be at most {rule}")


def _min_length(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, str) and len(value) < int(str(rule)):
        least = int(str(rule))
        yield Problem(path, "is empty" if least == 1 else f"needs {least} characters")


def _max_length(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, str) and len(value) > int(str(rule)):
        yield Problem(path, f"has more than {rule} characters")


def _pattern(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, str) and not re.search(str(rule), value):
        words = str(schema.get("description", "")).rstrip(".")
        yield Problem(path, f"does not match {rule}{': ' if words else ''}{words}")


def _properties(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    assert isinstance(rule, Mapping)
    if isinstance(value, dict):
        for name, inner in rule.items():
            if name in value:
                yield from check(inner, value[name], _join(path, name))


def _required(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    assert isinstance(rule, list)
    if isinstance(value, dict):
        for name in rule:
            if name not in value:
                yield Problem(_join(path, name), "is missing")


def _additional(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if not isinstance(value, dict) or rule is True:
        return
    known = schema.get("properties", {})
    assert isinstance(known, Mapping)
    for name, inner in value.items():
        if name in known:
            continue
        if isinstance(rule, Mapping):
            yield from check(rule, inner, _join(path, name))
        else:
            there = ", ".join(known) or "none"
            yield Problem(_join(path, name[:64]), f"is not known; there are {there}")


def _items(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    assert isinstance(rule, Mapping)
    if isinstance(value, list):
        for position, inner in enumerate(value):
            yield from check(rule, inner, f"{path}[{position}]")


def _min_items(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, list) and len(value) < int(str(rule)):
        yield Problem(path, f"needs {rule} entries or more")


def _max_items(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, list) and len(value) > int(str(rule)):
        yield Problem(path, f"has more than {rule} entries")


def _any_of(schema: Schema, rule: object, value: object, path: str) -> Iterator[Problem]:
    assert isinstance(rule, list)
    tried = [list(check(inner, value, path)) for inner in rule]
    if all(tried):
        yield from min(tried, key=len)


_RULES: Final[Mapping[str, Rule]] = {
    "type": _type,
    "enum": _enum,
    "minimum": _minimum,
    "maximum": _maximum,
    "minLength": _min_length,
    "maxLength": _max_length,
    "pattern": _pattern,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "items": _items,
    "minItems": _min_items,
    "maxItems": _max_items,
    "anyOf": _any_of,
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

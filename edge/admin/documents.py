"""Reading what callers say: JSON bodies and query parameters, strictly, by their declared schema.

And writing what they are told: JSON replies, lists with the mark of the next page, ETags.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn, TypeVar

from edge.admin import schema
from edge.admin.api import JSON, Call, Operation, Parameter, Reply
from edge.admin.schema import Schema
from edge.catalogue.records import Page
from edge.errors import ApiRefused, Problem, Refusal

T = TypeVar("T")
MAX_PAGE: Final = 1000
_LONG: Final = 16 * 1024  # bytes of a document that is read and judged in a thread
_ETAG: Final = re.compile(r'\s*(?:W/)?"([^"]*)"\s*(?:,|$)')

PAGE: Final = (
    Parameter("limit", "Most entries of the answer.", schema.number(1, MAX_PAGE, kind="integer")),
    Parameter(
        "after",
        "Where to go on: `next` of the answer before.",
        schema.text(0, 1024),
    ),
)
_DEFAULT_PAGE: Final = 100


async def read_json(call: Call, wanted: Schema, *, empty: object = None) -> object:
    """The body as plain JSON that fits `wanted`; an empty body is `empty`, where that is not None.

    Raises ApiRefused: BAD_REQUEST for what is no JSON, INVALID for what does not fit.
    """
    data = await call.body.read()
    if not data and empty is not None:
        return empty
    return (
        await asyncio.to_thread(_read, data, wanted) if len(data) > _LONG else _read(data, wanted)
    )


def _read(data: bytes, wanted: Schema) -> object:
    value = parse_json(data)
    schema.require(wanted, value, "the request body")
    return value


async def read_fields(call: Call, wanted: Schema, *, optional: bool = False) -> dict[str, object]:
    """A body that is a JSON object; `optional`: an empty body is an empty object."""
    value = await read_json(call, wanted, empty={} if optional else None)
    if not isinstance(value, dict):
        raise ApiRefused(Refusal.INVALID, "the request body must be a JSON object")
    return value


def parse_json(data: bytes) -> object:
    """JSON in UTF-8, without repeated keys, NaN, or numbers and nesting beyond reason."""
    try:
        text = data.decode()
        value: object = json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant)
        if "\\u" in text:  # half of a surrogate pair, escaped, is text that nobody can encode
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeError:
        problem = "is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError as error:  # ours, and integers of thousands of digits
        problem = str(error) if isinstance(error, _Repeated) else "has a number that is too long"
    raise ApiRefused(Refusal.BAD_REQUEST, f"the request body {problem}")


def check_query(operation: Operation, query: Mapping[str, Sequence[str]]) -> None:
    """Raises ApiRefused for parameters that the operation does not have, or not like that."""
    known = {parameter.name: parameter for parameter in operation.query}
    problems: list[Problem] = []
    for name, values in query.items():
        parameter = known.get(name)
        if parameter is None:
            there = ", ".join(known) or "none"
            problems.append(Problem(f"?{name[:64]}", f"is no parameter here; there are {there}"))
            continue
        if len(values) > 1 and not parameter.many:
            problems.append(Problem(f"?{name}", "is given twice"))
        for value in values:
            problems += schema.check(parameter.schema, _plain(parameter.schema, value), f"?{name}")
    _refuse(problems)


def check_params(operation: Operation, params: Mapping[str, str]) -> None:
    """The same for the parts of the path that have a schema."""
    problems: list[Problem] = []
    for name, value in params.items():
        rule = operation.params.get(name)
        if rule is not None:
            problems += schema.check(rule, _plain(rule, value), name)
    _refuse(problems)


def is_yes(call: Call, name: str) -> bool:
    """A query parameter whose schema is `schema.SWITCH`."""
    return call.asked(name) in ("true", "1")


def page_of(call: Call) -> Page:
    """The part of a list that is asked for; `PAGE` are the parameters."""
    return Page(int(call.asked("limit", str(_DEFAULT_PAGE))), call.asked("after"))


def expected_revision(call: Call) -> int | None:
    """The revision that If-Match wants; None where anything will do.

    Raises ApiRefused PRECONDITION_FAILED for one that no thing of ours can have.
    """
    wanted = call.headers("if-match")
    if wanted is None or wanted.strip() == "*":
        return None
    found = _ETAG.match(wanted)
    if found is None or not found[1].isascii() or not found[1].isdigit() or len(found[1]) > 18:
        raise ApiRefused(
            Refusal.PRECONDITION_FAILED, "If-Match is not an ETag that was given out here"
        )
    return int(found[1])


def etag(revision: int) -> tuple[str, str]:
    """The field that tells a revision."""
    return ("etag", f'"{revision}"')


def json_reply(value: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Reply:
    """Plain values as JSON, two spaces deep: people read it in terminals."""
    body = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return Reply(status, body.encode("utf-8", "backslashreplace"), JSON, headers)


def list_reply(
    items: Sequence[T], page: Page, write: Callable[[T], object], key: Callable[[T], str]
) -> Reply:
    """A part of a list: ask the catalogue for `limit` + 1, so that the last page is known."""
    shown = items[: page.limit]
    following = key(shown[-1]) if len(items) > page.limit else None
    return json_reply({"items": [write(item) for item in shown], "next": following})


def one_more(page: Page) -> Page:
    """The page to ask for: its last entry only tells that there is more."""
    return Page(page.limit + 1, page.after)


def list_of(item: Schema) -> Schema:
    """The schema of what `list_reply` writes."""
    return schema.obj({"items": schema.array(item), "next": schema.maybe(schema.text())})


def _plain(rule: Schema, value: str) -> object:
    """A parameter as JSON would have it; text where it cannot be what the schema wants."""
    kind = rule.get("type")
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
        return int(value)
    if kind == "number" and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", value, re.ASCII):
        return float(value)
    return value


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise ApiRefused(
            Refusal.INVALID, str(problems[0]), problems=tuple(problems[: schema.MAX_PROBLEMS])
        )


class _Repeated(ValueError):
    """A key twice in one object: two readers would take different ones."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Repeated("has a key twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise _Repeated(f"has {text}, which is no JSON")

"""A version as the control API describes it: a service of the configuration without its program.

The keys are those of a service in a document but `module`, with two differences: routes may be left
out, and stores are named, not filled.  `edge.model.service_reader` judges both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

from edge.errors import ApiRefused, ConfigError, Problem, Refusal
from edge.model.limits import DEFAULT_CEILINGS, DEFAULT_LIMITS, Limits
from edge.model.parse import parse_service
from edge.model.service import Service
from edge.model.service_reader import ServiceReader, Surroundings
from edge.model.yaml_lines import MAX_DEPTH, join, node_from_plain
from edge.settings import About, Kind

LINKS: Final = ("config_stores", "kv_stores", "secret_stores", "acls")
_NO_PROGRAM: Final = Path("/module.wasm")
_MOST_SHOWN: Final = 100  # problems; a document may have one for each of its bytes


@dataclass(frozen=True, slots=True)
class Links:
    """Stores by the names that the program opens them by."""

    config_stores: Annotated[
        Mapping[str, str], About(Kind.KV_STORES, "Config stores, and dictionaries alike.")
    ] = field(default_factory=dict)
    kv_stores: Annotated[Mapping[str, str], About(Kind.KV_STORES, "KV stores.")] = field(
        default_factory=dict
    )
    secret_stores: Annotated[Mapping[str, str], About(Kind.KV_STORES, "Secret stores.")] = field(
        default_factory=dict
    )
    acls: Annotated[Mapping[str, str], About(Kind.KV_STORES, "Access control lists.")] = field(
        default_factory=dict
    )

    def each(self) -> list[tuple[str, str, str]]:
        """(key, name in the program, name of the store) of every link."""
        return [
            (key, name, store or name)
            for key in LINKS
            for name, store in getattr(self, key).items()
        ]


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition that has been read.  `service` has no stores; no routes where none are given."""

    service: Service
    links: Links


def read_definition(
    name: str,
    fields: object,
    *,
    defaults: Limits = DEFAULT_LIMITS,
    ceilings: Limits = DEFAULT_CEILINGS,
    module: Path = _NO_PROGRAM,
) -> Definition:
    """The definition of a version of the service `name`, from JSON's types.

    Raises ApiRefused INVALID with every problem.  Neither the environment nor files can be reached
    from a definition.
    """
    if not isinstance(fields, dict):
        raise ApiRefused(Refusal.INVALID, "a definition is a JSON object")
    problems: list[Problem] = []
    given = {key: _text_of(value, key, 1, problems) for key, value in fields.items()}
    if problems:
        raise refused(problems)
    linked = {key: given.pop(key) for key in LINKS if key in given}
    reader = ServiceReader(Path("/"), Surroundings(defaults, ceilings, {}))
    # The reader gives each field what its own annotation says.
    links = Links(**reader.changes(Links, node_from_plain(linked), ""))  # type: ignore[arg-type]
    problems = list(reader.problems)
    _check_links(links, problems)
    # A version may be written before its domains are known; the reader wants some route.
    routed = given.get("routes") not in (None, [])
    if not routed:
        given["routes"] = [{}]
    try:
        service = parse_service(name, given, module=module, defaults=defaults, ceilings=ceilings)
    except ConfigError as error:
        raise refused([*problems, *error.problems]) from None
    if problems:
        raise refused(problems)
    return Definition(service if routed else replace(service, routes=()), links)


def refused(problems: list[Problem]) -> ApiRefused:
    """What the author of a document with problems is told."""
    first = str(problems[0])
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return ApiRefused(Refusal.INVALID, first + more, problems=tuple(problems[:_MOST_SHOWN]))


def _check_links(links: Links, problems: list[Problem]) -> None:
    """A version knows its links by name alone, whatever they lead to."""
    seen: dict[str, str] = {}
    for key, name, _ in links.each():
        first = seen.setdefault(name, key)
        if first != key:
            problems.append(
                Problem(join(key, name), f"is also the name of one of {first}; choose another")
            )


def _text_of(value: object, path: str, depth: int, problems: list[Problem]) -> object:
    """JSON as a document would have it: text, lists and mappings."""
    if depth > MAX_DEPTH:
        problems.append(Problem(path[:200], f"is nested deeper than {MAX_DEPTH} levels"))
        return ""
    match value:
        case str():
            # half of a surrogate pair, which JSON can write and nothing else can hold
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                problems.append(Problem(path, "is not Unicode text"))
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list():
            return [
                _text_of(item, join(path, at), depth + 1, problems) for at, item in enumerate(value)
            ]
        case dict():
            return {
                key: _text_of(item, join(path, key), depth + 1, problems)
                for key, item in value.items()
            }
    problems.append(Problem(path, "is null; leave the key out"))
    return ""

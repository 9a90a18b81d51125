"""Renders docs/settings.md from the settings classes themselves; `python -m` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from edge.model.backend import Backend, HealthCheck
from edge.model.documented import SettingField, documented
from edge.model.limits import DEFAULT_CEILINGS, Limits
from edge.model.parse import Config
from edge.model.route import Route
from edge.model.service import Service
from edge.model.units import write_bytes, write_duration, write_share
from edge.settings import Kind, Listen, Settings

_HEAD = """\
# Settings

One YAML document configures the server: `edge-server --config edge.yaml`. This page is generated
from the definitions in the code; `python -m edge.model.reference` prints it.

* Units are written out. Durations: `ns`, `us`, `ms`, `s`, `m`, `h`, `d` (`50ms`). Sizes: `B`;
  `KB`, `MB`, `GB` are powers of 1000; `KiB`, `MiB`, `GiB` are powers of 1024 (`128MiB`).
  Percentages: `50%`. Switches are `true` or `false`.
* `${NAME}` is replaced from the environment, in values only and after parsing, so that a value
  cannot change the structure; `${NAME:-default}` also serves when it is unset or empty; `$${`
  stands for `${`. The variables `EDGE_ADMIN_TOKEN` and `EDGE_TOKEN` are never put into a document.
* Relative paths start from the directory of the document.
* Unknown keys, keys written twice, YAML tags, anchors and aliases are errors, and all errors are
  reported at once with their lines. A value that begins with `*` must be quoted. The document may
  have 1 MiB.
* `edge-server --check-config` says whether a document is good (exit code 0) or not (2). SIGHUP
  reads it again; a document with an error changes nothing.
"""

_SERVICE_HEAD = """\
## services

A mapping of names to services. A name has 1 to 63 letters, digits, `.`, `_` or `-`, and begins
with a letter or a digit. `module` and `routes` are required.
"""

_BACKEND_HEAD = """\
## services.NAME.backends.NAME

Where requests of a guest may go. Backends in this document are the operator's word and may lead
anywhere; those that a guest registers, or that come with a deployment through the API, obey
`egress`. Certificates and keys are text, `{env: NAME}` or `{file: PATH}`.
"""

_HEALTH_HEAD = """\
## services.NAME.backends.NAME.health_check

Each worker checks for itself. A backend is well while `threshold` of its last `window` checks were.
"""

_ROUTE_HEAD = """\
## services.NAME.routes[]

The most specific host wins: an exact one, then the longest wildcard, then `"*"`. A host with
routes of its own never falls back to a less specific one, so what its routes do not cover is
answered 404; a host that nothing covers is answered 421. Then an exact path wins, then the longest
prefix. Paths are compared as they arrive, byte for byte: `/a/../b` is below `/a`, and `/a%2fb` is
not. Two equal routes are an error. Hosts are written in lower-case ASCII (IDNA `xn--` for
others), without port or trailing dot; requests match with either.
"""


def render() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    loose = [item for item in documented(Settings) if item.about.kind is not Kind.GROUP]
    yield "## Top level\n"
    yield _table(loose, "")
    for item in documented(Settings):
        if item.about.kind is Kind.GROUP:
            yield from _group(item, item.name)
    limits, ceilings = documented(Config)
    yield f"## limits\n\n{limits.about.meaning}\n"
    yield _table(documented(Limits), "limits.", ceilings=DEFAULT_CEILINGS)
    yield f"## ceilings\n\n{ceilings.about.meaning} Defaults: see the table above.\n"
    yield _SERVICE_HEAD
    yield _table(documented(Service), "services.NAME.")
    yield _ROUTE_HEAD
    yield _table(documented(Route), "")
    yield _BACKEND_HEAD
    yield _table(documented(Backend), "")
    yield _HEALTH_HEAD
    yield _table(documented(HealthCheck), "")


def _group(group: SettingField, path: str) -> Iterator[str]:
    own = [item for item in documented(group.type) if item.about.kind is not Kind.GROUP]
    yield f"## {path}\n\n{group.about.meaning}\n"
    yield _table(own, f"{path}.")
    for item in documented(group.type):
        if item.about.kind is Kind.GROUP:
            yield from _group(item, f"{path}.{item.name}")


def _table(
    items: tuple[SettingField, ...] | list[SettingField],
    prefix: str,
    ceilings: Limits | None = None,
) -> str:
    extra = " ceiling |" if ceilings else ""
    lines = [
        f"| setting | written as | default |{extra} meaning | when to change it |",
        f"|---|---|---|{'---|' if ceilings else ''}---|---|",
    ]
    for item in items:
        cells = [f"`{prefix}{item.name}`", _form(item), _default(item)]
        if ceilings:
            cells.append(f"`{written(item, getattr(ceilings, item.name))}`")
        cells += [_cell(item.about.meaning), _cell(item.about.change)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _form(item: SettingField) -> str:
    about = item.about
    if about.kind is Kind.CHOICE:
        form = ", ".join(f"`{option.value}`" for option in item.type)
    else:
        form = about.kind.value
    if about.unset:
        form += f" or `{about.unset}`"
    if about.least is not None and about.most is not None:
        form += f", `{written(item, about.least)}` to `{written(item, about.most)}`"
    return form


def _default(item: SettingField) -> str:
    if item.required:
        return f"required; e.g. `{item.about.example}`"
    text = written(item, item.default)
    shown = f"`{text}`" if text else "none"
    return f"{shown}; e.g. `{item.about.example}`" if item.about.example else shown


def written(item: SettingField, value: object) -> str:
    """A value of a setting as a document has it; empty for an empty list or mapping."""
    match value:
        case None:
            return item.about.unset
        case bool():
            return "true" if value else "false"
        case Enum():
            return str(value.value)
        case Path() | Listen():
            return str(value)
        case tuple():
            return ", ".join(str(one) for one in value)
        case str():
            return f'"{value}"' if value.startswith("*") else value
    match item.about.kind:
        case Kind.DURATION:
            assert isinstance(value, (int, float))
            return write_duration(value)
        case Kind.BYTES:
            assert isinstance(value, int)
            return write_bytes(value)
        case Kind.SHARE:
            assert isinstance(value, (int, float))
            return write_share(value)
        case Kind.COUNT:
            return str(value)
    return "those of limits" if item.about.kind is Kind.LIMITS else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render())

"""The `fastly.toml` of a package: what its author says of it, and what it wants set up.

Whoever deploys creates what `[setup]` asks for; the server only reads it.  `edge.dev.manifest`
reads `[local_server]`, which is about the author's own machine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edge.errors import ApiRefused, Problem, Refusal

MAX_MANIFEST_BYTES: Final = 256 * 1024
MAX_TEXT: Final = 4096  # characters of a description
MAX_NAME: Final = 255  # of a name, a language, an author
MAX_AUTHORS: Final = 50
MAX_ENTRIES: Final = 1000  # of each table of [setup]
# The parser's work grows with the square of a key's depth; a key stands on one line.
MAX_DOTS: Final = 200

# What `[setup]` may have, by table: the key below each entry that holds further ones, if any.
_TABLES: Final[Mapping[str, str]] = {
    "backends": "",
    "config_stores": "items",
    "kv_stores": "items",
    "secret_stores": "entries",
    "log_endpoints": "",
}
_OLDER: Final = {"dictionaries": "config_stores", "object_stores": "kv_stores"}
_TEXTS: Final = ("address", "description", "provider", "value", "file")


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """A manifest that has been read.

    `setup` has tables by the names of today: backends {NAME: {address, port, description}},
    config_stores and kv_stores {NAME: {description, items: {KEY: {value, file, description}}}},
    secret_stores {NAME: {description, entries: {KEY: {description}}}}, log_endpoints
    {NAME: {provider}}.  Only keys that the manifest writes are there.
    """

    name: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    language: str = ""
    service_id: str = ""
    setup: Mapping[str, object] = field(default_factory=dict)


def read_manifest(data: bytes) -> PackageManifest:
    """Raises ApiRefused PACKAGE_INVALID with every problem; keys of other tools are left alone."""
    document = _document(data)
    problems: list[Problem] = []
    found = PackageManifest(
        name=_text(document, "name", "", problems),
        description=_text(document, "description", "", problems),
        authors=_authors(document.get("authors"), problems),
        language=_text(document, "language", "", problems),
        service_id=_text(document, "service_id", "", problems),
        setup=_setup(document.get("setup"), problems),
    )
    if problems:
        raise ApiRefused(
            Refusal.PACKAGE_INVALID,
            f"fastly.toml: {problems[0]}",
            problems=tuple(problems),
        )
    return found


def _document(data: bytes) -> Mapping[str, object]:
    def wrong(why: str) -> ApiRefused:
        return ApiRefused(Refusal.PACKAGE_INVALID, f"fastly.toml {why}")

    if len(data) > MAX_MANIFEST_BYTES:
        raise wrong(f"has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are taken")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(f"is not UTF-8 at byte {error.start}") from None
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise wrong(f"has a line with more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise wrong("nests too deep") from None
    except ValueError as error:  # numbers of thousands of digits are no TOMLDecodeError
        raise wrong(f"is not TOML: {error}") from None


def _setup(value: object, problems: list[Problem]) -> dict[str, object]:
    document = _table(value, "setup", problems)
    found: dict[str, dict[str, object]] = {}
    for key, table in document.items():
        name = _OLDER.get(key, key)
        if name not in _TABLES:
            continue  # [setup.products] and whatever comes later: theirs, not ours
        path = f"setup.{key}"
        kept = found.setdefault(name, {})
        for entry, fields in _entries(table, path, problems).items():
            if entry in kept:
                problems.append(Problem(f"{path}.{entry}", f"is also in setup.{name}"))
            kept[entry] = _entry(fields, _TABLES[name], f"{path}.{entry}", problems)
    return dict(found)


def _entry(value: object, inner: str, path: str, problems: list[Problem]) -> dict[str, object]:
    fields = _table(value, path, problems)
    found: dict[str, object] = {
        key: _text(fields, key, path, problems) for key in _TEXTS if key in fields
    }
    port = fields.get("port")
    if port is not None:
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            problems.append(Problem(f"{path}.port", "is not a port, 1 to 65535"))
        found["port"] = port
    if inner and inner in fields:
        where = f"{path}.{inner}"
        found[inner] = {
            key: _entry(item, "", f"{where}.{key}", problems)
            for key, item in _entries(fields[inner], where, problems).items()
        }
    return found


def _table(value: object, path: str, problems: list[Problem]) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(Problem(path, "must be a table"))
        return {}
    return value


def _entries(value: object, path: str, problems: list[Problem]) -> Mapping[str, object]:
    table = _table(value, path, problems)
    if len(table) > MAX_ENTRIES:
        problems.append(Problem(path, f"has {len(table)} entries; {MAX_ENTRIES} are the most"))
        return {}
    return table


def _text(table: Mapping[str, object], key: str, path: str, problems: list[Problem]) -> str:
    value = table.get(key, "")
    where = f"{path}.{key}" if path else key
    if not isinstance(value, str):
        problems.append(Problem(where, "must be text"))
        return ""
    # values of stores have bounds of their own, which their stores know
    most = MAX_NAME if key in ("name", "language") else MAX_TEXT
    if key != "value" and len(value) > most:
        problems.append(Problem(where, f"has more than {most} characters"))
    return value


def _authors(value: object, problems: list[Problem]) -> tuple[str, ...]:
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > MAX_AUTHORS
        or not all(isinstance(one, str) and len(one) <= MAX_NAME for one in value)
    ):
        problems.append(Problem("authors", f"must be a list of at most {MAX_AUTHORS} texts"))
        return ()
    return tuple(value)

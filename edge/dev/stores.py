"""The stores in a `fastly.toml`: config, secret and KV stores, access lists, and records by key.

The shapes and their older spellings are those that Viceroy reads.  No message quotes a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

from edge.dev.tables import Table, Tables
from edge.local.world import Seed
from edge.model.acl import AclEntry
from edge.model.platform_reader import acl_from_json
from edge.model.secret import Secret
from edge.stores.secret_store import check_name

# Of Fastly's config stores (ABI: a longer key is an error, a longer value cannot be stored).
MAX_CONFIG_KEY: Final = 256
MAX_CONFIG_VALUE: Final = 8000
_INLINE, _JSON = "inline-toml", "json"


def config_store(tables: Tables, value: object, path: str) -> dict[str, str]:
    """`{format = "inline-toml", contents = {...}}` or `{format = "json", file = "..."}`."""
    table = tables.table(value, path)
    tables.check_keys(table, ("format", "contents", "file"), path)
    found: dict[str, str] = {}
    for key, item in _formatted(tables, table, "contents", path):
        where = f"{path}.{key}"
        if not isinstance(item, str):
            tables.problem(where, "must be text")
        elif len(key) > MAX_CONFIG_KEY:
            tables.problem(where, f"a key has at most {MAX_CONFIG_KEY} characters")
        elif len(item) > MAX_CONFIG_VALUE:
            tables.problem(where, f"a value has at most {MAX_CONFIG_VALUE} characters")
        else:
            found[key] = item
    return found


def records(tables: Tables, table: Table, key: str, path: str) -> dict[str, str]:
    """Records as JSON text by key; the keys of `addresses` are IP addresses."""
    found: dict[str, str] = {}
    for name, item in _formatted(tables, table, key, path):
        where = f"{path}.{name}"
        if not isinstance(item, Mapping):
            tables.problem(where, "must be a table of fields")
            continue
        try:
            text = json.dumps(item)
            found[str(ip_address(name)) if key == "addresses" else name] = text
        except (ValueError, TypeError, RecursionError) as error:
            tables.problem(where, str(error))
    return found


def _formatted(tables: Tables, table: Table, inline: str, path: str) -> Iterator[tuple[str, Any]]:
    """The entries of a table that holds them or names a JSON file that does."""
    form = tables.required(table, "format", path)
    if form == _INLINE:
        if inline not in table:
            tables.problem(f"{path}.{inline}", f'is missing, and format = "{_INLINE}" needs it')
        yield from tables.part(table, inline, path).items()
    elif form == _JSON:
        name = tables.required(table, "file", path)
        found = tables.json_object(name, f"{path}.file") if name else None
        yield from (found or {}).items()
    elif form is not None:
        tables.problem(f"{path}.format", f'{form!r} is not one of "{_INLINE}", "{_JSON}"')


def kv_store(tables: Tables, value: object, path: str) -> dict[str, Seed]:
    """A list of `{key, data | file, metadata}`, or `{file = "...", format = "json"}`."""
    found: dict[str, Seed] = {}
    for where, item in _items(tables, value, path, whole_json=True):
        tables.check_keys(item, ("key", "data", "file", "path", "metadata"), where)
        key = tables.required(item, "key", where)
        given = [name for name in ("data", "file", "path") if name in item]
        if len(given) != 1:
            tables.problem(where, "needs exactly one of data and file")
            continue
        text = tables.text(item, given[0], where)
        metadata = tables.text(item, "metadata", where) or ""
        if key is None or text is None:
            continue
        data = text.encode() if given == ["data"] else tables.file(text, f"{where}.{given[0]}")
        if data is not None:
            found[key] = Seed(data, metadata.encode())
    return found


def secret_store(tables: Tables, value: object, path: str) -> dict[str, Secret]:
    """A list of `{key, data | file | env}`, or `{file = "...", format = "json"}`.

    `${NAME}` in `data` is taken from the environment.
    """
    found: dict[str, Secret] = {}
    for where, item in _items(tables, value, path, whole_json=False):
        tables.check_keys(item, ("key", "data", "file", "env"), where)
        key = tables.required(item, "key", where)
        if key is None:
            continue
        try:
            check_name(key)
        except Exception as error:
            tables.problem(f"{where}.key", str(error))
            continue
        data = _secret(tables, item, where)
        if data is not None:
            found[key] = Secret(data)
    return found


def _secret(tables: Tables, item: Table, where: str) -> bytes | None:
    given = [name for name in ("data", "file", "env") if name in item]
    if len(given) != 1:
        tables.problem(where, "needs exactly one of data, file and env")
        return None
    text = tables.text(item, given[0], where)
    if text is None:
        return None
    if given == ["file"]:
        return tables.file(text, f"{where}.file")
    if given == ["data"]:
        return tables.expand(text, f"{where}.data").encode("utf-8", "surrogateescape")
    if text not in tables.env:  # Viceroy's reading of it is an empty secret
        tables.warnings.append(
            f"{where}.env: the environment variable {text} is not set; the secret is empty"
        )
    return tables.env.get(text, "").encode("utf-8", "surrogateescape")


def _items(
    tables: Tables, value: object, path: str, *, whole_json: bool
) -> Iterator[tuple[str, Table]]:
    """The items of a store with their paths, from a list or from a JSON file.

    `whole_json`: values of the file may be objects of an item's own keys.
    """
    if isinstance(value, list):
        for position, item in enumerate(value):
            where = f"{path}[{position}]"
            yield where, tables.table(item, where)
        return
    if not isinstance(value, Mapping):
        tables.problem(path, 'must be a list of items or {file = "...", format = "json"}')
        return
    tables.check_keys(value, ("file", "format"), path)
    name, form = tables.required(value, "file", path), tables.required(value, "format", path)
    if form is not None and form != _JSON:
        tables.problem(f"{path}.format", f'{form!r} is not "{_JSON}"')
    elif name is not None and form is not None:
        for key, item in (tables.json_object(name, f"{path}.file") or {}).items():
            where = f"{path}.{key}"
            if isinstance(item, str):
                yield where, {"key": key, "data": item}
            elif whole_json and isinstance(item, Mapping):
                yield where, {**item, "key": key}
            else:
                tables.problem(where, "must be text" + (" or an object" if whole_json else ""))


def acl(tables: Tables, value: object, path: str) -> tuple[AclEntry, ...]:
    """`"path.json"` or `{file = "path.json"}`."""
    if isinstance(value, str):
        name, where = value, path
    else:
        table = tables.table(value, path)
        tables.check_keys(table, ("file",), path)
        name, where = tables.required(table, "file", path) or "", f"{path}.file"
    data = tables.file(name, where) if name else None
    if data is None:
        return ()
    return tables.attempt(where, lambda: acl_from_json(data)) or ()

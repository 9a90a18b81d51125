"""What a project's `[setup]` asks for: stores are created, and a draft is linked to them.

What is there already is left as it is, whatever the manifest says of it now.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from edge.client.api import part
from edge.client.failures import Refused, Unusable
from edge.client.sending import service_path
from edge.client.session import Session

# `[setup.X]` -> where its stores are, and where what is in one of them
_STORES: Final[Mapping[str, tuple[str, str]]] = {
    "config_stores": ("/v1/config-stores", "items"),
    "kv_stores": ("/v1/kv", "keys"),
    "secret_stores": ("/v1/secret-stores", "secrets"),
}
_MAX_FILE: Final = 25 * 1024 * 1024  # of an item of a KV store
_PLAIN_PORT: Final = 80


def create_stores(session: Session, setup: Mapping[str, object], base: Path) -> None:
    """Every store that `[setup]` names; one that is new is filled.  `base`: where files are."""
    for kind, (path, inside) in _STORES.items():
        for name, wanted in _tables(setup.get(kind)).items():
            one = f"{path}/{part(name)}"
            is_new = session.api.call("PUT", one).status == 201
            if is_new:
                session.note(f"created {kind.removesuffix('s').replace('_', ' ')} {name}")
            if kind == "secret_stores":
                _ask_secrets(session, name, f"{one}/{inside}", _tables(wanted.get("entries")))
            elif is_new:
                for key, item in _tables(wanted.get("items")).items():
                    content = _content(item, base, f"[setup.{kind}.{name}.items.{key}]")
                    session.api.call("PUT", f"{one}/{inside}/{part(key)}", content=content)


def link(session: Session, service: str, number: int, setup: Mapping[str, object]) -> int:
    """The version that has what `[setup]` names: this one, or a clone where it cannot change."""
    path = service_path(service, "versions", str(number))
    definition = session.api.get(f"{path}/definition").fields
    changed = merged(definition, setup)
    if changed == definition:
        return number
    if session.api.get(path).fields.get("locked"):
        document = {"from": number}
        made = session.api.call("POST", service_path(service, "versions"), document=document)
        number = int(str(made.fields["version"]))
        path = service_path(service, "versions", str(number))
    session.api.call("PUT", f"{path}/definition", document=changed)
    return number


def merged(definition: Mapping[str, object], setup: Mapping[str, object]) -> dict[str, object]:
    """The definition, with stores and backends of `[setup]` that it does not have."""
    found: dict[str, object] = dict(definition)
    for kind in _STORES:
        names = _tables(setup.get(kind))
        present = _links(found.get(kind))
        added = {name: name for name in names if name not in present}
        if added:
            found[kind] = {**present, **added}
    backends = dict(_tables(found.get("backends")))
    for name, wanted in _tables(setup.get("backends")).items():
        if name not in backends:
            backends[name] = _backend(name, wanted)
    if backends:
        found["backends"] = backends
    return found


def _backend(name: str, wanted: Mapping[str, object]) -> dict[str, object]:
    address = wanted.get("address")
    if not address:
        raise Unusable(f"[setup.backends.{name}] has no address")
    port = wanted.get("port", 443)
    scheme = "http" if port == _PLAIN_PORT else "https"
    host = f"[{address}]" if ":" in str(address) else str(address)
    shown = "" if port in (80, 443) else f":{port}"
    return {"url": f"{scheme}://{host}{shown}"}


def _ask_secrets(
    session: Session, store: str, path: str, wanted: Mapping[str, Mapping[str, object]]
) -> None:
    """A manifest has no values of secrets: whoever deploys types them, or is told to set them."""
    for name, entry in wanted.items():
        one = f"{path}/{part(name)}"
        try:
            session.api.get(one)
        except Refused as error:
            if error.code != "not_found":
                raise
        else:
            continue
        if not session.is_interactive:
            session.warn(f"the secret {name} is not set: edge secret put {store} {name}")
            continue
        about = f" ({entry['description']})" if entry.get("description") else ""
        value = click.prompt(f"Value of the secret {name}{about}", hide_input=True, err=True)
        session.api.call("PUT", one, content=str(value).encode())


def _content(item: Mapping[str, object], base: Path, where: str) -> bytes:
    if "value" in item:
        return str(item["value"]).encode()
    if "file" not in item:
        raise Unusable(f"{where} has neither value nor file")
    path = base / str(item["file"])
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise Unusable(f"{where}: {path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE:
        raise Unusable(f"{where}: {path} has more than {_MAX_FILE} bytes")
    return data


def _links(value: object) -> dict[str, object]:
    if isinstance(value, list):
        return {str(name): name for name in value}
    return dict(value) if isinstance(value, dict) else {}


def _tables(value: object) -> dict[str, Mapping[str, object]]:
    return value if isinstance(value, dict) else {}

"""`edge services`, `describe`, `versions`, `definition`, `link`, `rename` and `delete`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from edge.client.api import Answer
from edge.client.completing import service_names
from edge.client.failures import Unusable
from edge.client.options import Command
from edge.client.sending import service_path
from edge.client.session import Session, pass_session
from edge.client.show import ago, facts, rows_of, size, table

_LINKS = {
    "config": "config_stores",
    "kv": "kv_stores",
    "secret": "secret_stores",
    "acl": "acls",
}


@click.command(cls=Command)
@pass_session
def services(session: Session) -> None:
    """List services."""
    session.show_items(session.api.items("/v1/services"), _services)


def _services(items: list[object]) -> RenderableType:
    columns = ("name", ">active", "canary", ">staged", ">latest", "changed", "owner")
    return table(
        columns,
        (
            (
                one.get("name"),
                one.get("active"),
                _canary(one.get("canary")),
                one.get("staged"),
                one.get("latest"),
                ago(one.get("updated_at")) if one.get("updated_at") else None,
                one.get("owner"),
            )
            for one in rows_of(items)
        ),
    )


def _canary(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    return f"{value.get('version')} ({value.get('percent'):g} %)"


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@pass_session
def describe(session: Session, name: str) -> None:
    """Describe a service: where it answers, what serves, what served before."""
    answer = session.api.get(service_path(name))
    if session.json:
        session.raw(answer.body)
        return
    found = answer.fields
    history: list[Mapping[str, object]] = []
    definition: dict[str, object] = {}
    if found.get("owner") != "file":
        listed = session.api.get(service_path(name, "activations"), limit=5).fields
        items = listed.get("items")
        history = rows_of(items if isinstance(items, list) else [])
        number = found.get("active") or found.get("latest")
        if number:
            path = service_path(name, "versions", str(number), "definition")
            definition = session.api.get(path).fields
    session.tell(_described(found, history, definition))


def _described(
    found: dict[str, Any], history: list[Mapping[str, object]], definition: Mapping[str, Any]
) -> RenderableType:
    lines: list[RenderableType] = [
        facts(
            [
                ("name", found.get("name")),
                ("id", found.get("id")),
                ("comment", found.get("comment")),
                ("owner", "the configuration file" if found.get("owner") == "file" else None),
                ("state", found.get("state")),
                ("reason", found.get("reason")),
                ("url", found.get("url")),
                ("domains", found.get("domains")),
                ("active", found.get("active")),
                ("canary", _canary(found.get("canary"))),
                ("staged", found.get("staged")),
                ("latest", found.get("latest")),
                ("backends", [f"{n} {b.get('url')}" for n, b in _pairs(definition, "backends")]),
                *(
                    (key.replace("_", " "), [_linked(n, s) for n, s in _pairs(definition, key)])
                    for key in _LINKS.values()
                ),
                ("limits", [f"{n} {value}" for n, value in _pairs(definition, "limits")]),
            ]
        )
    ]
    if history:
        rows = ((one.get("version"), ago(one.get("at")), one.get("actor"), one.get("reason"))
                for one in history)  # fmt: skip
        lines += [Text(""), table((">version", "served", "by", "reason"), rows)]
    return Lines(*lines)


def _pairs(definition: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    value = definition.get(key)
    return list(value.items()) if isinstance(value, dict) else []


def _linked(name: str, store: object) -> str:
    return name if store == name else f"{name} ({store})"


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@pass_session
def versions(session: Session, name: str) -> None:
    """List the versions of a service."""
    session.show_items(session.api.items(service_path(name, "versions")), _versions)


def _versions(items: list[object]) -> RenderableType:
    def row(one: Mapping[str, Any]) -> tuple[object, ...]:
        package = one.get("package") or {}
        state = [word for word in ("active", "staged", "locked") if one.get(word)]
        return (
            one.get("version"),
            state[0] if state else "draft",
            ago(one.get("created_at")),
            size(package.get("size")),
            str(package.get("sha256", ""))[:12] or None,
            package.get("language") or None,
            one.get("comment") or None,
        )

    columns = (">version", "state", "made", ">size", "sha256", "language", "comment")
    return table(columns, map(row, rows_of(items)))


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.argument("number", type=int, required=False)
@click.option("--set", "source", type=click.File("rb"), help="Make a draft what this JSON says.")
@pass_session
def definition(session: Session, name: str, number: int | None, source: BinaryIO | None) -> None:
    """Print what a version consists of besides its program, as JSON, or change a draft's."""
    wanted = number or served_or_latest(session, name)
    path = service_path(name, "versions", str(wanted), "definition")
    if source is None:
        session.raw(session.api.get(path).body)
        return
    try:
        document = json.load(source)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{Path(source.name)} is not JSON: {error}") from None
    session.raw(session.api.call("PUT", path, document=document).body)


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.argument("kind", type=click.Choice(list(_LINKS)))
@click.argument("store")
@click.option("--as", "alias", metavar="NAME", help="What the program calls it, if not STORE.")
@click.option("--no-activate", is_flag=True, help="Change a draft, and serve the old one on.")
@pass_session
def link(
    session: Session, name: str, kind: str, store: str, alias: str | None, no_activate: bool
) -> None:
    """Let a service open a store: a new version has the link, and is served."""
    service = session.api.get(service_path(name)).fields
    base = int(str(service.get("latest") or 0))
    if not base:
        raise Unusable(f"{name} has no version yet; deploy it first")
    made = session.api.call("POST", service_path(name, "versions"), document={"from": base})
    number = str(made.fields["version"])
    path = service_path(name, "versions", number, "definition")
    document = session.api.get(path).fields
    present = document.get(_LINKS[kind])
    document[_LINKS[kind]] = {
        **(present if isinstance(present, dict) else {}),
        alias or store: store,
    }
    answer: Answer = session.api.call("PUT", path, document=document)
    if not no_activate and service.get("active") is not None:
        answer = session.api.call("POST", service_path(name, "versions", number, "activate"))
    session.show(answer, lambda _: f"{name} version {number} opens the {kind} store {store}")


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.argument("new")
@pass_session
def rename(session: Session, name: str, new: str) -> None:
    """Rename a service."""
    answer = session.api.call("PATCH", service_path(name), document={"name": new})
    session.show(answer, lambda found: f"{name} is {found.get('name')} now")


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.option("--force", is_flag=True, help="Even if it is served.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, name: str, force: bool, yes: bool) -> None:
    """Delete a service with all its versions."""
    if not yes and session.is_interactive:
        click.confirm(f"Delete {name} with all its versions?", abort=True, err=True)
    query = {"force": "true"} if force else {}
    session.api.call("DELETE", service_path(name), query=query)
    session.say(f"{name} is deleted")


def served_or_latest(session: Session, name: str) -> int:
    """The number of the version that is meant where none is named."""
    found = session.api.get(service_path(name)).fields
    number = found.get("active") or found.get("latest")
    if not number:
        raise Unusable(f"{name} has no version yet; deploy it first")
    return int(str(number))


COMMANDS = (services, describe, versions, definition, link, rename, delete)

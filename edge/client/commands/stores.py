"""`edge kv`, `config`, `secret` and `acl`: stores, and what is in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import RenderableType

from edge.client.api import Content, part
from edge.client.completing import names_below
from edge.client.failures import Unusable
from edge.client.options import Group
from edge.client.session import Session, pass_session
from edge.client.show import ago, rows_of, size, table


def _store_commands(group: click.Group, path: str, word: str) -> None:
    """What stores of every kind have: list, create, delete."""

    @group.command("list")
    @pass_session
    def listing(session: Session) -> None:
        session.show_items(session.api.items(path), _stores)

    listing.help = f"List every {word}."

    @group.command("create")
    @click.argument("store")
    @pass_session
    def create(session: Session, store: str) -> None:
        answer = session.api.call("PUT", f"{path}/{part(store)}")
        done = "is created" if answer.status == 201 else "is there already"
        session.show(answer, lambda _: f"the {word} {store} {done}")

    create.help = f"Create a {word}, unless there is one."

    @group.command("delete")
    @click.argument("store", shell_complete=names_below(path))
    @click.option("--force", is_flag=True, help="Even if a served version opens it.")
    @click.option("--yes", "-y", is_flag=True, help="Do not ask.")
    @pass_session
    def delete(session: Session, store: str, force: bool, yes: bool) -> None:
        if not yes and session.is_interactive:
            click.confirm(f"Delete {store} and all that is in it?", abort=True, err=True)
        query = {"force": "true"} if force else {}
        session.api.call("DELETE", f"{path}/{part(store)}", query=query)
        session.say(f"the {word} {store} is deleted")

    delete.help = f"Delete a {word} and all that is in it."


def _remove_command(group: click.Group, path: str, entries: str, word: str, what: str) -> None:
    """Deletes one entry; `entries` is what they are called below a store, `what` what names one."""

    @group.command("rm")
    @click.argument("store", shell_complete=names_below(path))
    @click.argument("key", metavar=what)
    @pass_session
    def remove(session: Session, store: str, key: str) -> None:
        session.api.call("DELETE", f"{path}/{part(store)}/{entries}/{part(key)}")
        session.say(f"{key} is deleted")

    remove.help = f"Delete {word}."


def _of_each(first: str, second: str) -> Callable[[list[object]], RenderableType]:
    """Shows two facts of each item, under their names."""
    return lambda items: table(
        (first, second), ((one.get(first), one.get(second)) for one in rows_of(items))
    )


def _stores(items: list[object]) -> RenderableType:
    return table(
        ("name", ">entries", "changed", "id"),
        (
            (one.get("name"), one.get("entries"), ago(one.get("updated_at")), one.get("id"))
            for one in rows_of(items)
        ),
    )


def _value(value: str | None, file: BinaryIO | None) -> Content:
    """What is to be stored: an argument, a file, or what comes in a pipe."""
    if value is not None and file is not None:
        raise click.UsageError("give the value or --file, not both")
    if file is not None:
        return file.read()
    if value is not None:
        return value.encode()
    if sys.stdin.isatty():
        raise click.UsageError("give a VALUE, --file FILE, or the value on standard input")
    return sys.stdin.buffer.read()


_FILE = click.option("--file", "-f", type=click.File("rb"), help="A file that is the value.")


@click.group(cls=Group)
def kv() -> None:
    """KV stores and their values."""


_store_commands(kv, "/v1/kv", "KV store")


@kv.command()
@click.argument("store", shell_complete=names_below("/v1/kv"))
@click.option("--prefix", default="", help="What keys begin with.")
@pass_session
def keys(session: Session, store: str, prefix: str) -> None:
    """List keys."""
    query = {"prefix": prefix} if prefix else {}
    found = session.api.items(f"/v1/kv/{part(store)}/keys", query)
    session.show_items(found, lambda items: table(("key",), ((one,) for one in items)))


@kv.command()
@click.argument("store", shell_complete=names_below("/v1/kv"))
@click.argument("key")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A new file.")
@pass_session
def get(session: Session, store: str, key: str, output: Path | None) -> None:
    """Print a value, byte for byte."""
    with session.api.pieces(f"/v1/kv/{part(store)}/keys/{part(key)}") as pieces:
        if output is None:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        try:
            with output.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            raise Unusable(f"{output} cannot be written: {error.strerror}") from None


@kv.command()
@click.argument("store", shell_complete=names_below("/v1/kv"))
@click.argument("key")
@click.argument("value", required=False)
@_FILE
@click.option("--ttl", type=click.IntRange(1), metavar="SECONDS", help="Until it is gone.")
@click.option("--metadata", metavar="TEXT", help="Kept beside it.")
@click.option("--mode", type=click.Choice(["overwrite", "add", "append", "prepend"]))
@pass_session
def put(
    session: Session,
    /,
    store: str,
    key: str,
    value: str | None,
    file: BinaryIO | None,
    **wanted: str | int | None,
) -> None:
    """Store a value."""
    query: dict[str, str | int | list[str]] = {
        name: given for name, given in wanted.items() if given is not None
    }
    path = f"/v1/kv/{part(store)}/keys/{part(key)}"
    answer = session.api.call("PUT", path, query=query, content=_value(value, file))
    session.show(answer, lambda found: f"{key} is stored, generation {found.get('generation')}")


_remove_command(kv, "/v1/kv", "keys", "a value", "KEY")


@kv.command()
@click.argument("store", shell_complete=names_below("/v1/kv"))
@pass_session
def usage(session: Session, store: str) -> None:
    """Say how much a store holds."""
    answer = session.api.get(f"/v1/kv/{part(store)}")
    session.show(answer, lambda found: f"{store} holds {size(found.get('bytes'))}")


@click.group(cls=Group)
def config() -> None:
    """Config stores and their items; services see a change without a deploy."""


_store_commands(config, "/v1/config-stores", "config store")


@config.command("items")
@click.argument("store", shell_complete=names_below("/v1/config-stores"))
@click.option("--prefix", default="", help="What keys begin with.")
@pass_session
def config_items(session: Session, store: str, prefix: str) -> None:
    """List items with their values."""
    query = {"prefix": prefix} if prefix else {}
    found = session.api.items(f"/v1/config-stores/{part(store)}/items", query)
    session.show_items(found, _of_each("key", "value"))


@config.command("get")
@click.argument("store", shell_complete=names_below("/v1/config-stores"))
@click.argument("key")
@pass_session
def config_get(session: Session, store: str, key: str) -> None:
    """Print a value."""
    session.raw(session.api.get(f"/v1/config-stores/{part(store)}/items/{part(key)}").body)


@config.command("put")
@click.argument("store", shell_complete=names_below("/v1/config-stores"))
@click.argument("key")
@click.argument("value", required=False)
@_FILE
@pass_session
def config_put(
    session: Session, store: str, key: str, value: str | None, file: BinaryIO | None
) -> None:
    """Set an item."""
    path = f"/v1/config-stores/{part(store)}/items/{part(key)}"
    answer = session.api.call("PUT", path, content=_value(value, file))
    session.show(answer, lambda _: f"{key} is set")


_remove_command(config, "/v1/config-stores", "items", "an item", "KEY")


@click.group(cls=Group)
def secret() -> None:
    """Secret stores; values go in and never come out again."""


_store_commands(secret, "/v1/secret-stores", "secret store")


@secret.command("names")
@click.argument("store", shell_complete=names_below("/v1/secret-stores"))
@pass_session
def secret_names(session: Session, store: str) -> None:
    """List secrets, without their values."""
    found = session.api.items(f"/v1/secret-stores/{part(store)}/secrets")
    session.show_items(
        found,
        lambda items: table(
            ("name", "changed"),
            ((one.get("name"), ago(one.get("updated_at"))) for one in rows_of(items)),
        ),
    )


@secret.command("put")
@click.argument("store", shell_complete=names_below("/v1/secret-stores"))
@click.argument("name")
@_FILE
@pass_session
def secret_put(session: Session, store: str, name: str, file: BinaryIO | None) -> None:
    """Set a secret, from a file, standard input, or what is typed.

    There is no argument for it: command lines can be seen by others and are kept.
    """
    content: Content
    if file is None and sys.stdin.isatty():
        typed = click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True)
        content = str(typed).encode()
    else:
        content = _value(None, file)
    answer = session.api.call(
        "PUT", f"/v1/secret-stores/{part(store)}/secrets/{part(name)}", content=content
    )
    session.show(answer, lambda _: f"{name} is set")


_remove_command(secret, "/v1/secret-stores", "secrets", "a secret", "NAME")


@secret.command("rotate")
@pass_session
def secret_rotate(session: Session) -> None:
    """Seal all secrets of the server with a new key."""
    session.show(session.api.call("POST", "/v1/secrets/rotate"), _rotated)


def _rotated(found: Mapping[str, Any]) -> str:
    return f"all secrets are sealed with the key {found.get('key')}"


@click.group(cls=Group)
def acl() -> None:
    """Access control lists and their entries."""


_store_commands(acl, "/v1/acls", "list")


@acl.command("entries")
@click.argument("store", metavar="LIST", shell_complete=names_below("/v1/acls"))
@pass_session
def acl_entries(session: Session, store: str) -> None:
    """List networks and what is said of them."""
    found = session.api.items(f"/v1/acls/{part(store)}/entries")
    session.show_items(found, _of_each("prefix", "action"))


@acl.command("add")
@click.argument("store", metavar="LIST", shell_complete=names_below("/v1/acls"))
@click.argument("action", type=click.Choice(["ALLOW", "BLOCK"], case_sensitive=False))
@click.argument("prefixes", nargs=-1, required=True, metavar="NETWORK...")
@pass_session
def acl_add(session: Session, store: str, action: str, prefixes: tuple[str, ...]) -> None:
    """Say something of networks; all of them or none."""
    _change(session, store, [{"op": "upsert", "prefix": p, "action": action} for p in prefixes])


@acl.command("rm")
@click.argument("store", metavar="LIST", shell_complete=names_below("/v1/acls"))
@click.argument("prefixes", nargs=-1, required=True, metavar="NETWORK...")
@pass_session
def acl_rm(session: Session, store: str, prefixes: tuple[str, ...]) -> None:
    """Say nothing of networks any more; all of them or none."""
    _change(session, store, [{"op": "delete", "prefix": prefix} for prefix in prefixes])


def _change(session: Session, store: str, entries: list[dict[str, str]]) -> None:
    answer = session.api.call(
        "PATCH", f"/v1/acls/{part(store)}/entries", document={"entries": entries}
    )
    session.show(answer, lambda found: f"{found.get('changed')} entries of {store} changed")


COMMANDS = (kv, config, secret, acl)

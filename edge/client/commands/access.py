"""`edge login`, `logout`, `whoami`, `tokens` and `audit`: who may, and who did."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import RenderableType

from edge.client.api import part
from edge.client.failures import Unusable
from edge.client.options import Command, Group
from edge.client.profile import (
    DEFAULT_PROFILE,
    Profile,
    find_target,
    read_profiles,
    write_profiles,
)
from edge.client.session import Session, pass_session
from edge.client.show import ago, facts, rows_of, table

_SCOPES = ("read", "deploy", "purge", "admin")


@click.command(cls=Command)
@pass_session
def login(session: Session) -> None:
    """Remember a server and a token, for the commands after this one.

    The token is read from --token, --state-dir, EDGE_TOKEN, standard input, or what is typed; it is
    tried before it is saved, in a file that only you can read.
    """
    name = session.given.profile or DEFAULT_PROFILE
    session.choose(profile="")
    profiles = read_profiles(session.env)
    saved = profiles.get(name)
    if not session.given.server and not session.env.get("EDGE_SERVER") and saved is not None:
        session.choose(server=saved.server)
    target = find_target(session.given, session.env)
    token = session.given.token or session.env.get("EDGE_TOKEN", "")
    if not token and session.given.state_dir is not None:
        token = target.token
    if not token:
        if sys.stdin.isatty():
            token = str(click.prompt(f"Token for {target.server}", hide_input=True, err=True))
        else:
            token = sys.stdin.readline()
    token = token.strip()
    if not token:
        raise Unusable("there is no token; the first one is in admin.token of the state directory")
    session.choose(server=target.server, token=token, state_dir=None)
    answer = session.api.get("/v1/whoami")
    profiles[name] = Profile(target.server, token)
    path = write_profiles(session.env, profiles)
    session.note(f"saved as profile {name} in {path}")
    session.show(answer, _who)


@click.command(cls=Command)
@pass_session
def logout(session: Session) -> None:
    """Forget what `edge login` saved.  The token itself stays valid: revoke it with `tokens`."""
    name = session.given.profile or DEFAULT_PROFILE
    profiles = read_profiles(session.env)
    if profiles.pop(name, None) is None:
        raise Unusable(f"there is no profile {name!r}")
    write_profiles(session.env, profiles)
    session.say(f"the profile {name} is forgotten")


@click.command(cls=Command)
@pass_session
def whoami(session: Session) -> None:
    """Show which token this is, and what it allows."""
    session.show(session.api.get("/v1/whoami"), _who)


def _who(found: dict[str, Any]) -> RenderableType:
    return facts(
        [
            ("token", found.get("name")),
            ("id", found.get("id")),
            ("scopes", found.get("scopes")),
            ("service", found.get("service_id")),
            ("expires", found.get("expires_at")),
        ]
    )


@click.group(cls=Group)
def tokens() -> None:
    """Tokens of the control API."""


@tokens.command("list")
@pass_session
def tokens_list(session: Session) -> None:
    """List tokens, without their texts."""
    session.show_items(session.api.items("/v1/tokens"), _tokens)


def _tokens(items: list[object]) -> RenderableType:
    return table(
        ("name", "scopes", "service", "used", "expires", "id"),
        (
            (
                one.get("name"),
                one.get("scopes"),
                one.get("service_id"),
                ago(one["last_used_at"]) if one.get("last_used_at") else "never",
                one.get("expires_at"),
                one.get("id"),
            )
            for one in rows_of(items)
        ),
    )


@tokens.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(_SCOPES), help="What it allows: deploy."
)
@click.option("--service", metavar="NAME", help="Of this service only.")
@click.option("--days", type=click.FloatRange(0.001, 36500), help="How long it is valid.")
@pass_session
def tokens_create(
    session: Session, name: str, scopes: tuple[str, ...], service: str | None, days: float | None
) -> None:
    """Make a token.  Its text is shown once, alone on the standard output."""
    document: dict[str, object] = {"name": name, "scopes": list(scopes or ("deploy",))}
    if service is not None:
        document["service"] = service
    if days is not None:
        document["expires_in"] = days * 86400
    answer = session.api.call("POST", "/v1/tokens", document=document)
    if not session.json:
        session.note("it is shown this once; keep it where only its user can read it")
    session.show(answer, lambda found: str(found.get("token")))


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
@pass_session
def tokens_revoke(session: Session, token_id: str) -> None:
    """Revoke a token, by its id."""

    session.api.call("DELETE", f"/v1/tokens/{part(token_id)}")
    session.say(f"the token {token_id} is revoked")


@click.command(cls=Command)
@click.option("--subject", metavar="TEXT", help="What it was done to: services/NAME.")
@click.option("--actor", metavar="NAME", help="The token that did it.")
@click.option("--limit", "-n", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--full", is_flag=True, help="What it was before, and after.")
@pass_session
def audit(session: Session, subject: str | None, actor: str | None, limit: int, full: bool) -> None:
    """Show who changed what, newest first."""
    query: dict[str, str | int | list[str]] = {}
    if subject:
        query["subject"] = subject
    if actor:
        query["actor"] = actor
    found = session.api.items("/v1/audit", query, limit)
    session.show_items(found, lambda items: _audit(items, full=full))


def _audit(items: list[object], *, full: bool) -> RenderableType:
    columns = ["when", "who", "from", "what", "to"]
    if full:
        columns += ["before", "after"]

    def row(one: Any) -> list[object]:
        cells = [one.get("at"), one.get("actor"), one.get("remote"), one.get("action"),
                 one.get("subject")]  # fmt: skip
        if full:
            cells += [json.dumps(one.get(key), sort_keys=True) for key in ("before", "after")]
        return cells

    return table(columns, map(row, rows_of(items)))


COMMANDS = (login, logout, whoami, tokens, audit)

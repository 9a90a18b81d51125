"""Options that every command of `edge` takes, before its name and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.client.session import Session

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _given(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def take(context: click.Context, _: click.Parameter, value: Any) -> None:
        session = context.find_object(Session)
        if session is not None and value:
            session.choose(**{name: value})

    return take


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def take(context: click.Context, _: click.Parameter, value: Any) -> None:
        session = context.find_object(Session)
        if session is not None and value:
            setattr(session, name, value)

    return take


def _option(
    flag: str,
    take: Callable[[click.Context, click.Parameter, Any], None],
    about: str,
    **settings: Any,
) -> click.Option:
    """One that the session takes: no command sees its value."""
    return click.Option([flag], expose_value=False, callback=take, help=about, **settings)


def common() -> list[click.Parameter]:
    """Fresh ones: click keeps state in them."""
    folder = click.Path(path_type=Path, file_okay=False)
    file = click.Path(path_type=Path, dir_okay=False)
    return [
        _option("--server", _given("server"), "The control API; or EDGE_SERVER.", metavar="URL"),
        _option(
            "--token",
            _given("token"),
            "A token of it; better in EDGE_TOKEN, which no list of processes shows.",
            metavar="TOKEN",
        ),
        _option(
            "--state-dir",
            _given("state_dir"),
            "Take the token of a server on this machine from its state_dir.",
            type=folder,
        ),
        _option(
            "--profile",
            _given("profile"),
            "What `edge login` saved under this name; or EDGE_PROFILE.",
            metavar="NAME",
        ),
        _option(
            "--ca", _set("authority"), "Certificates to trust in place of the system's.", type=file
        ),
        _option("--json", _set("json"), "Print what the server answered, as JSON.", is_flag=True),
    ]


class Command(click.Command):
    """A command with the common options behind its own."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", _SETTINGS)
        super().__init__(*words, **settings)
        self.params = [*self.params, *common()]


class Group(click.Group):
    """Commands that belong together; the common options may come before their names."""

    command_class = Command

    def __init__(self, *words: Any, **settings: Any) -> None:
        settings.setdefault("context_settings", _SETTINGS)
        super().__init__(*words, **settings)
        self.params = [*self.params, *common()]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command for one that there is not."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = _near(args[:1], self.list_commands(ctx))
            if near and "Did you mean" not in error.message:
                raise click.UsageError(f"{error.message} Did you mean {near}?", ctx) from None
            raise


Group.group_class = Group


def _near(words: Sequence[str], known: Sequence[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(words[0], known, n=1) if words else []
    return repr(found[0]) if found else ""

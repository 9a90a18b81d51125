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


def common() -> list[click.Parameter]:
    """Fresh ones: click keeps state in them."""
    return [
        click.Option(
            ["--server"],
            metavar="URL",
            expose_value=False,
            callback=_given("server"),
            help="The control API; or EDGE_SERVER.",
        ),
        click.Option(
            ["--token"],
            metavar="TOKEN",
            expose_value=False,
            callback=_given("token"),
            help="A token of it; better in EDGE_TOKEN, which no list of processes shows.",
        ),
        click.Option(
            ["--state-dir"],
            type=click.Path(path_type=Path, file_okay=False),
            expose_value=False,
            callback=_given("state_dir"),
            help="Take the token of a server on this machine from its state_dir.",
        ),
        click.Option(
            ["--profile"],
            metavar="NAME",
            expose_value=False,
            callback=_given("profile"),
            help="What `edge login` saved under this name; or EDGE_PROFILE.",
        ),
        click.Option(
            ["--ca"],
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_set("authority"),
            help="Certificates to trust in place of the system's.",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set("json"),
            help="Print what the server answered, as JSON.",
        ),
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

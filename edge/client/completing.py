"""What a shell offers when a name is half typed: asked of the server, quickly or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click

from edge.client.api import Api
from edge.client.profile import find_target
from edge.client.session import Session
from edge.client.show import rows_of

_SECONDS: Final = 2.0  # longer, and whoever types has typed it
_MOST: Final = 1000

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def service_names(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Services whose names begin so."""
    return _names(context, "/v1/services", typed)


def names_below(path: str) -> Complete:
    """The same for what is listed at a path of the API."""

    def complete(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
        return _names(context, path, typed)

    return complete


def _names(context: click.Context, path: str, typed: str) -> list[str]:
    session = context.find_object(Session)
    if session is None:
        return []
    try:
        target = find_target(session.given, session.env)
        api = Api(
            target, authority=session.authority, transport=session.transport, seconds=_SECONDS
        )
        try:
            items = rows_of(api.items(path, most=_MOST))
        finally:
            api.close()
    except click.ClickException:  # a shell in the middle of a line is no place for complaints
        return []
    return [name for name in (str(one.get("name", "")) for one in items) if name.startswith(typed)]

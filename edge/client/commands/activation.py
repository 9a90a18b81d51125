"""`edge activate`, `deactivate`, `rollback`, `stage` and `unstage`."""

from __future__ import annotations

from typing import Any

import click

from edge.client.completing import service_names
from edge.client.options import Command
from edge.client.sending import service_path
from edge.client.session import Session, pass_session


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.argument("number", type=click.IntRange(1))
@click.option("--percent", type=click.FloatRange(0, 100), help="Of clients; 0 takes it back.")
@click.option("--max-error-rate", type=click.FloatRange(0, 1), help="Above, it is rolled back.")
@click.option("--max-limit-rate", type=click.FloatRange(0, 1), help="The same for limits it met.")
@click.option("--min-requests", type=click.IntRange(1), help="Before which no rate is believed.")
@pass_session
def activate(session: Session, /, name: str, number: int, **terms: float | None) -> None:
    """Serve a version, or give it to a share of clients."""
    document = {key: value for key, value in terms.items() if value is not None}
    path = service_path(name, "versions", str(number), "activate")
    session.show(session.api.call("POST", path, document=document), _activated)


def _activated(found: dict[str, Any]) -> str:
    percent = found.get("percent", 100)
    share = "" if percent == 100 else f" to {percent:g} % of clients"
    text = f"{found.get('service')} version {found.get('version')} is served{share}"
    previous = found.get("previous")
    if previous is not None and previous != found.get("version"):
        text += f"; before it was {previous}"
    for warning in found.get("warnings") or []:
        text += f"\nwarning: {warning}"
    return text + f" ({found.get('activation_ms')} ms)"


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@pass_session
def rollback(session: Session, name: str) -> None:
    """Serve the version that served before; with a canary, end that instead."""
    session.show(session.api.call("POST", service_path(name, "rollback")), _activated)


def _one(verb: str, summary: str, done: str) -> click.Command:
    @click.command(cls=Command, name=verb, help=summary)
    @click.argument("name", shell_complete=service_names)
    @click.argument("number", type=click.IntRange(1))
    @pass_session
    def command(session: Session, name: str, number: int) -> None:
        session.api.call("POST", service_path(name, "versions", str(number), verb))
        session.say(f"{name} version {number} {done}")

    return command


COMMANDS = (
    activate,
    rollback,
    _one("deactivate", "Serve a version no longer.", "is not served any more"),
    _one("stage", "Load a version that only `edge invoke` reaches.", "is staged"),
    _one("unstage", "Unload a staged version.", "is not staged any more"),
)

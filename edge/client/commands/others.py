"""`edge dev`, `purge`, `status`, `api` and `completion`."""

from __future__ import annotations

from typing import BinaryIO

import click
from click.shell_completion import get_completion_class

from edge.client.failures import Unusable
from edge.client.node_view import node_view
from edge.client.options import Command
from edge.client.session import Session, pass_session


class _PassedOn(click.Command):
    """A command whose words are not ours to read, `--` and `--help` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """All of them, as they are."""
        ctx.args = list(args)
        return ctx.args


@click.command(cls=_PassedOn, options_metavar="ARGUMENT...")
@click.pass_context
def dev(context: click.Context) -> int:
    """Serve a program on this machine while it is written: `edge-dev ARGUMENT...`."""
    from edge.dev.cli import main  # it brings the whole engine along

    return main(context.args)


@click.command(cls=Command)
@click.argument("service", required=False)
@click.option("--key", "keys", multiple=True, help="A surrogate key.")
@click.option("--url", help="One URL.")
@pass_session
def purge(session: Session, service: str | None, keys: tuple[str, ...], url: str | None) -> None:
    """Drop cached responses."""
    document: dict[str, object] = {}
    if service:
        document["service"] = service
    if keys:
        document["keys"] = list(keys)
    if url:
        document["url"] = url
    if not keys and not url:
        document["all"] = True
    answer = session.api.call("POST", "/v1/purge", document=document)
    session.show(answer, lambda found: f"purged {found.get('purged')}: {found.get('detail')}")


@click.command(cls=Command)
@pass_session
def status(session: Session) -> None:
    """Show what the server says of itself."""
    session.show(session.api.get("/v1/status"), node_view)


@click.command(cls=Command)
@click.argument("path")
@click.option("--method", "-X", default="GET", show_default=True)
@click.option("--data", "-d", type=click.File("rb"), help="A file that is the body; - is stdin.")
@pass_session
def api(session: Session, path: str, method: str, data: BinaryIO | None) -> None:
    """Call the control API: `edge api /v1/openapi.json`."""
    if not path.startswith("/"):
        raise click.UsageError("a path begins with /")
    content = data.read() if data is not None else None
    session.raw(session.api.call(method.upper(), path, content=content).body)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell needs to complete commands: `eval "$(edge completion bash)"`."""
    found = get_completion_class(shell)
    if found is None:
        raise Unusable(f"there is no completion for {shell}")
    root = context.find_root().command
    click.echo(found(root, {}, "edge", "_EDGE_COMPLETE").source())


COMMANDS = (dev, purge, status, api, completion)

"""The `edge` command: deploys to a running server, and looks at what it does.

Exit status: 0 when it was done, 1 when the server refused, 2 for a command line or a file that
cannot be used, 3 when the server cannot be reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
import httpx

import edge
from edge.client.commands import access, activation, deploy, observe, others, services, stores
from edge.client.failures import EXIT_REFUSED, EXIT_USAGE, Refused
from edge.client.options import Group
from edge.client.session import Session
from edge.client.show import show_refusal
from edge.telemetry.escape import plain

EXIT_INTERRUPTED = 130  # as a shell has it for SIGINT
_NOTHING_SHOWN = (
    "edge found none to show: run `edge login`, set EDGE_TOKEN, or name the state directory of a "
    "server on this machine with --state-dir"
)


@click.group(cls=Group, name="edge")
@click.version_option(edge.__version__, prog_name="edge")
def root() -> None:
    """Deploys WebAssembly services to an edge server, and shows what they do."""


for module in (deploy, services, activation, observe, stores, access, others):
    for command in module.COMMANDS:
        root.add_command(command)


def main(
    arguments: Sequence[str] | None = None, *, transport: httpx.BaseTransport | None = None
) -> int:
    """Entry point of `edge`; returns the exit status.  `transport` stands in for the network."""
    session = Session(dict(os.environ), transport)
    try:
        done = root.main(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="edge",
            obj=session,
            standalone_mode=False,
        )
        return done if isinstance(done, int) else 0
    except Refused as error:
        if session.json and error.raw:
            session.raw(error.raw)
        else:
            show_refusal(session.err, error)
            if error.code == "unauthorized" and not session.api.target.token:
                session.note(_NOTHING_SHOWN)
        return EXIT_REFUSED
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        click.echo(f"edge: {plain(error.format_message())}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    finally:
        session.close()

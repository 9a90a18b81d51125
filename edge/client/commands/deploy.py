"""`edge deploy` and `edge validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from edge.client.api import Answer
from edge.client.failures import Unusable
from edge.client.options import Command
from edge.client.project import Project, find_project
from edge.client.sending import send, service_path
from edge.client.session import Session, pass_session
from edge.client.setup import create_stores, link
from edge.client.show import facts, safe, size

_WHERE = click.Path(path_type=Path, exists=True)


@click.command(cls=Command)
@click.argument("path", type=_WHERE, default=Path(), metavar="[DIR|FILE]")
@click.option("--service", metavar="NAME", help="Its name; else that of the project or the file.")
@click.option("--domain", "-d", "domains", multiple=True, metavar="HOST", help="Where it answers.")
@click.option("--no-activate", is_flag=True, help="Upload a version, and serve the old one on.")
@click.option(
    "--percent", type=click.FloatRange(0.01, 100), help="Give it to this share of clients first."
)
@click.option("--comment", default="", metavar="TEXT", help="Of the version.")
@click.option("--dry-run", is_flag=True, help="Check and compile, but store nothing.")
@pass_session
def deploy(
    session: Session,
    path: Path,
    service: str | None,
    domains: tuple[str, ...],
    no_activate: bool,
    percent: float | None,
    comment: str,
    dry_run: bool,
) -> None:
    """Deploy a program, a package or a project.

    A directory is that of a Fastly project: what it was built into is uploaded, and stores and
    backends of its [setup] are created where they are missing.
    """
    if no_activate and percent is not None:
        raise click.UsageError("--percent activates; leave out --no-activate")
    project = find_project(path)
    name = service or project.name
    if not name:
        raise Unusable(f"{path} gives the service no name; add --service NAME")
    query: dict[str, str | int | list[str]] = {}
    if domains:
        query["domain"] = list(domains)
    if comment:
        query["comment"] = comment
    if dry_run:
        query["dry_run"] = "true"
    with_setup = bool(project.setup) and not dry_run
    if not no_activate and not with_setup:
        query["activate"] = "true"
        if percent is not None:
            query["percent"] = f"{percent:g}"
    session.note(f"deploying {project.file} as {name}")
    if with_setup:
        create_stores(session, project.setup, project.base)
    answer = send(session, service_path(name), project.file, project.size, query)
    if with_setup:
        answer = _finish(session, name, project, answer, activate=not no_activate, percent=percent)
    session.show(answer, _deployed)


def _finish(
    session: Session,
    name: str,
    project: Project,
    answer: Answer,
    *,
    activate: bool,
    percent: float | None,
) -> Answer:
    """Link the uploaded version to what `[setup]` names, then serve it."""
    uploaded = answer.fields
    number = link(session, name, int(str(uploaded["version"])), project.setup)
    if not activate:
        return answer
    document = {} if percent is None else {"percent": percent}
    path = service_path(name, "versions", str(number), "activate")
    done = session.api.call("POST", path, document=document)
    if session.json:
        return done
    found = {**uploaded, **done.fields, "active": True, "url": uploaded.get("url")}
    return Answer(done.status, done.headers, _encoded(found))


def _encoded(value: object) -> bytes:
    import json

    return json.dumps(value).encode()


def _deployed(found: dict[str, Any]) -> RenderableType:
    version = found.get("version")
    if found.get("dry_run"):
        creates = ", ".join(map(str, found.get("creates") or [])) or "nothing"
        headline = f"{found.get('service')} can be served; deploying would create: {creates}"
    elif found.get("unchanged"):
        headline = f"{found.get('service')} version {version} is that program already"
    elif found.get("active") or found.get("percent"):
        percent = found.get("percent")
        share = "" if percent in (None, 100, 100.0) else f" to {percent:g} % of clients"
        headline = f"{found.get('service')} version {version} is served{share}"
    else:
        headline = f"{found.get('service')} version {version} is uploaded and not served"
    times = {key: found[key] for key in ("compile_ms", "activation_ms") if key in found}
    return Lines(
        Text(headline, style="bold green"),
        facts(
            [
                ("url", found.get("url")),
                ("domains", found.get("domains")),
                ("size", size(found.get("size"))),
                ("sha256", found.get("sha256")),
                *((key.replace("_ms", ""), f"{value:g} ms") for key, value in times.items()),
            ]
        ),
        *(
            Text("warning: ", style="yellow").append_text(safe(w))
            for w in found.get("warnings", [])
        ),
    )


@click.command(cls=Command)
@click.argument("path", type=_WHERE, default=Path(), metavar="[DIR|FILE]")
@click.option(
    "--unknown-imports", type=click.Choice(["refuse", "trap"]), default="refuse", show_default=True
)
@click.pass_context
def validate(context: click.Context, path: Path, unknown_imports: str) -> int:
    """Compile a program on the server and say whether it could be served; stores nothing.

    Exits 1 when it could not.
    """
    session = context.find_object(Session)
    assert session is not None
    project = find_project(path)
    try:
        content = project.file.read_bytes()
    except OSError as error:
        raise Unusable(f"{project.file} cannot be read: {error.strerror}") from None
    answer = session.api.call(
        "POST", "/v1/validate", query={"unknown_imports": unknown_imports}, content=content
    )
    session.show(answer, _inspected)
    return 0 if answer.fields.get("ok") else 1


def _inspected(found: dict[str, Any]) -> RenderableType:
    good = bool(found.get("ok"))
    memory = size(found.get("memory_bytes"))
    if found.get("memory_max_bytes"):
        memory += f", at most {size(found['memory_max_bytes'])}"
    return Lines(
        Text("it can be served", style="bold green")
        if good
        else Text("it cannot be served", style="bold red"),
        *(Text("  - ").append_text(safe(one)) for one in found.get("problems", [])),
        *(
            Text("warning: ", style="yellow").append_text(safe(w))
            for w in found.get("warnings", [])
        ),
        facts(
            [
                ("size", f"{size(found.get('size'))}, compiled {size(found.get('code_bytes'))}"),
                ("memory", memory),
                ("table", f"{found.get('table_elements')} elements"),
                ("compiled in", f"{found.get('compile_ms')} ms"),
                ("imports", f"{len(found.get('imports', []))}"),
                ("unknown", found.get("unknown_imports")),
                ("exports", found.get("exports")),
            ]
        ),
    )


COMMANDS = (deploy, validate)

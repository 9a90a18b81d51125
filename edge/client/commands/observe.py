"""`edge logs`, `stats`, `invoke` and `nodes`: what services do."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import click
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from edge.client.api import Answer
from edge.client.commands.services import served_or_latest
from edge.client.completing import service_names
from edge.client.failures import Refused, Unreachable
from edge.client.node_view import node_view
from edge.client.options import Command
from edge.client.sending import service_path
from edge.client.session import Session, pass_session
from edge.client.show import facts, rows_of, safe, size, table

_STYLES = {"stderr": "red", "access": "cyan"}


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=service_names)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines.")
@click.option("--recent", "-n", type=click.IntRange(0, 1000), help="How many that were kept.")
@click.option("--version", type=click.IntRange(1), help="Of this version only.")
@click.option("--stream", help="stdout, stderr, the name of a log endpoint, or access.")
@click.option("--request", help="Of the request with this id.")
@click.option("--outcome", help="Records of requests that ended like this, such as trap.")
@pass_session
def logs(session: Session, /, name: str | None, follow: bool, **wanted: str | int | None) -> None:
    """Show what a service printed, or all, and how requests ended that did not end well.

    Records of requests that ended well come while somebody follows.
    """
    query: dict[str, str | int | list[str]] = {
        key: value for key, value in wanted.items() if value is not None
    }
    if follow:
        query["follow"] = "true"
    path = "/v1/logs" if name is None else service_path(name, "logs")
    for line in session.api.lines("GET", path, query=query):
        record = _record(line)
        if not record:
            continue  # a sign of life
        if session.json:
            session.raw(line)
        else:
            session.out.print(log_line(record, named=name is None), soft_wrap=True)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise Unreachable("a line of the log is no JSON; is this an edge server?")
    return record


def log_line(record: Mapping[str, Any], *, named: bool = False) -> Text:
    """One line for people; what a program printed may hold anything.  `named`: with its service."""
    if "dropped" in record:
        return Text(f"... {record['dropped']} lines were dropped: too many to keep up", "yellow")
    at = str(record.get("time") or "")
    line = Text.assemble((str(safe(at[11:23] if len(at) > 23 else at)), "dim"), " ")
    if named:
        line.append(f"{safe(record.get('service'))} ", "bold")
    if record.get("version") is not None:
        line.append(f"v{record['version']} ", "dim")
    stream = str(record.get("stream") or "")
    line.append(str(safe(stream)), _STYLES.get(stream, "green")).append(" ")
    if "status" in record:
        return line.append_text(_request_line(record))
    line.append(str(safe(record.get("message") or "")))
    if record.get("truncated_bytes"):
        line.append(f" ... {record['truncated_bytes']} bytes more", "dim")
    return line


def _request_line(record: Mapping[str, Any]) -> Text:
    outcome = str(record.get("outcome") or "")
    words = [record.get("method"), f"{record.get('host') or ''}{record.get('path') or ''}",
             record["status"]]  # fmt: skip
    line = Text(" ".join(str(safe(word)) for word in words if word is not None))
    line.append(" ").append(str(safe(outcome)), "" if outcome == "ok" else "bold red")
    for name, key in (("cpu", "cpu_us"), ("wall", "wall_us")):
        if isinstance(record.get(key), int):
            line.append(f" {name} {record[key] / 1000:.1f}ms", "dim")
    for key in ("detail", "value", "limit", "setting"):
        if record.get(key):
            line.append(f" {key}={safe(record[key])}", "red")
    return line


@click.command(cls=Command)
@click.argument("name", required=False, shell_complete=service_names)
@click.option("--version", type=click.IntRange(1), help="Of this version only.")
@click.option("--watch", "-w", is_flag=True, help="A table that goes on until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True)
@pass_session
def stats(
    session: Session, name: str | None, version: int | None, watch: bool, interval: float
) -> None:
    """Show requests, outcomes and times; of one service, or of all."""
    if version is not None and name is None:
        raise click.UsageError("--version needs the NAME of a service")
    one = "" if name is None else _stats_path(name, version)
    if not watch or session.json:
        if name is not None:
            session.show(session.api.get(one), _one_service)
        else:
            session.show_items(list(_all_stats(session)), lambda items: _many(items, {}))
        return

    def read() -> list[object]:
        if name is None:
            return list(_all_stats(session))
        return [session.api.get(one).value]

    _watch(session, read, interval)


def _stats_path(name: str, version: int | None) -> str:
    if version is None:
        return service_path(name, "stats")
    return service_path(name, "versions", str(version), "stats")


def _all_stats(session: Session) -> Iterator[object]:
    for service in rows_of(session.api.items("/v1/services")):
        try:
            yield session.api.get(_stats_path(str(service["name"]), None)).value
        except Refused as error:
            if error.code != "not_found":  # deleted since
                raise


def _watch(session: Session, read: Callable[[], list[object]], interval: float) -> None:
    """Rates are those since the look before."""
    before: dict[str, tuple[float, float]] = {}
    with Live(console=session.out, auto_refresh=False, screen=session.out.is_terminal) as live:
        while True:
            items = read()
            now = time.monotonic()
            rates: dict[str, float] = {}
            for one in rows_of(items):
                key, count = _key(one), float(str(one.get("requests") or 0))
                at, last = before.get(key, (now, count))
                rates[key] = (count - last) / (now - at) if now > at else 0.0
                before[key] = (now, count)
            live.update(_many(items, rates), refresh=True)
            time.sleep(interval)


def _key(one: Mapping[str, object]) -> str:
    return f"{one.get('service')}@{one.get('version')}"


def _many(items: list[object], rates: Mapping[str, float]) -> RenderableType:
    columns = [
        "service", ">requests", ">now", ">2xx", ">4xx", ">5xx", ">failed", ">p50", ">p99",
        ">cpu p99", ">mem p99",
    ]  # fmt: skip
    if rates:
        columns.insert(1, ">req/s")

    def row(one: Mapping[str, Any]) -> list[object]:
        codes, outcomes = one.get("by_code") or {}, one.get("by_outcome") or {}
        failed = sum(count for name, count in outcomes.items() if name != "ok")
        wall, cpu, memory = (one.get(key) or {} for key in ("wall_ms", "cpu_ms", "memory_bytes"))
        version = one.get("version")
        cells: list[object] = [
            f"{one.get('service')}{'' if version is None else f' v{version}'}",
            one.get("requests"),
            one.get("in_flight"),
            *(codes.get(code, 0) for code in ("2xx", "4xx", "5xx")),
            failed,
            _milliseconds(wall.get("p50")),
            _milliseconds(wall.get("p99")),
            _milliseconds(cpu.get("p99")),
            size(memory.get("p99")),
        ]
        if rates:
            cells.insert(1, f"{rates.get(_key(one), 0.0):.1f}")
        return cells

    return table(columns, map(row, rows_of(items)), tight=True)


def _one_service(found: dict[str, Any]) -> RenderableType:
    pairs: list[tuple[str, object]] = []
    for key, value in found.items():
        name = key.replace("_", " ")
        if key == "backends" and isinstance(value, dict):
            pairs += [(f"backend {one}", _counts(counts)) for one, counts in value.items()]
        elif isinstance(value, dict):
            pairs.append((name, _counts(value)))
        else:
            pairs.append((name, value))
    return facts(pairs)


def _counts(value: object) -> list[str]:
    if not isinstance(value, dict):
        return [str(value)]
    return [
        f"{name} {count:g}" if isinstance(count, float) else f"{name} {count}"
        for name, count in value.items()
    ]


def _milliseconds(value: object) -> str:
    return f"{value:.1f} ms" if isinstance(value, (int, float)) else "-"


@click.command(cls=Command)
@click.argument("name", shell_complete=service_names)
@click.argument("words", nargs=-1, metavar="[NUMBER] [PATH]")
@click.option("--method", "-X", help="GET, or POST with --data.")
@click.option("--host", help="The Host field; localhost if left out.")
@click.option("--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'")
@click.option("--data", "-d", help="The body.")
@click.option("--data-file", type=click.File("rb"), help="A file that is the body; - is stdin.")
@click.option("--include", "-i", is_flag=True, help="Status and headers too.")
@pass_session
def invoke(
    session: Session,
    name: str,
    words: tuple[str, ...],
    method: str | None,
    host: str | None,
    headers: tuple[str, ...],
    data: str | None,
    data_file: BinaryIO | None,
    include: bool,
) -> None:
    """Send one request to a version, whatever is served: the served one if none is named."""
    number, path = _target(words)
    body = data_file.read() if data_file else (data or "").encode()
    document: dict[str, object] = {
        "method": method or ("POST" if body else "GET"),
        "path": path,
        "headers": [_header(text) for text in headers],
    }
    if host:
        document["host"] = host
    if body:
        document["body_base64"] = base64.b64encode(body).decode()
    wanted = number or served_or_latest(session, name)
    where = service_path(name, "versions", str(wanted), "invoke")
    answer = session.api.call("POST", where, document=document)
    if session.json:
        session.raw(answer.body)
    else:
        _show_invoked(session, answer, include=include)


def _target(words: tuple[str, ...]) -> tuple[int | None, str]:
    number: int | None = None
    rest = list(words)
    if rest and rest[0].isdigit():
        number = int(rest.pop(0))
    path = rest.pop(0) if rest else "/"
    if rest or not path.startswith("/"):
        raise click.UsageError("write edge invoke NAME [NUMBER] [PATH]; a path begins with /")
    return number, path


def _header(text: str) -> list[str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.UsageError(f"{text!r} is not a header; write 'name: value'")
    return [name.strip(), value.strip()]


def _show_invoked(session: Session, answer: Answer, *, include: bool) -> None:
    found = answer.fields
    outcome = str(found.get("outcome") or "")
    if include:
        session.say(f"{found.get('status')}")
        fields = found.get("headers")
        for pair in fields if isinstance(fields, list) else []:
            session.say(f"{pair[0]}: {pair[1]}")
        session.say("")
    encoded = found.get("body_base64")
    body = base64.b64decode(str(encoded)) if encoded else str(found.get("body") or "").encode()
    if session.out.is_terminal:
        for line in body.decode("utf-8", "backslashreplace").splitlines():
            session.say(line)
    else:
        session.raw(body)
    if found.get("truncated"):
        session.warn("there was more of the body than is shown")
    lines = found.get("logs")
    for record in rows_of(lines if isinstance(lines, list) else []):
        session.err.print(log_line(record), soft_wrap=True)
    if outcome not in ("", "ok"):
        detail = f": {found['detail']}" if found.get("detail") else ""
        session.warn(f"the sandbox ended with {outcome}{detail}")


@click.command(cls=Command)
@pass_session
def nodes(session: Session) -> None:
    """Show the server's workers."""
    session.show(session.api.get("/v1/nodes"), _nodes)


def _nodes(found: Any) -> RenderableType:
    items = found.get("items") if isinstance(found, dict) else found
    return Lines(*map(node_view, rows_of(items or [])))


COMMANDS = (logs, stats, invoke, nodes)

"""The configuration document to `Config`: one strict YAML text in, frozen dataclasses out.

Pure: the caller reads the file, and hands in the environment and a way to read secret files.
Every problem is reported at once, each with its path and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edge.errors import ConfigError, Problem
from edge.model.documented import documented
from edge.model.limits import DEFAULT_CEILINGS, DEFAULT_LIMITS, Limits, above_ceiling
from edge.model.platform_reader import PlatformReader
from edge.model.reader import Reader
from edge.model.service import Service
from edge.model.service_reader import ReadFile, ServiceReader, Surroundings
from edge.model.yaml_lines import Entries, Node, join, node_from_plain, read_document
from edge.settings import About, Kind, Settings


@dataclass(frozen=True, slots=True)
class Config:
    """A whole document; its own top-level keys are those of `Settings` and these."""

    settings: Settings
    limits: Annotated[
        Limits, About(Kind.GROUP, "What a sandbox may use where its service does not say.")
    ] = DEFAULT_LIMITS
    ceilings: Annotated[
        Limits,
        About(
            Kind.GROUP,
            "What no service may exceed, however it is deployed; the keys are those of `limits`.",
        ),
    ] = DEFAULT_CEILINGS
    services: tuple[Service, ...] = ()


def parse_config(
    text: str,
    *,
    source: str,
    base: Path,
    env: Mapping[str, str],
    read_file: ReadFile | None = None,
) -> Config:
    """The configuration in `text`.

    `source` names the document in messages, relative paths start from `base`, `env` is what
    `${NAME}` and `{env: NAME}` see, and `read_file` serves `{file: PATH}` (it may raise OSError;
    without it such secrets are refused).  Raises ConfigError with every problem found.
    """
    root, problems = read_document(text, source=source, env=env)
    if root is None:
        root = Entries({}, {}, 1)
    reader = PlatformReader(base)
    top = reader.entries(root, "")
    parts = documented(Settings)
    own = ("limits", "ceilings", "services")
    reader.check_keys(top, [*(item.name for item in parts), *own], "")
    mine = {part.name: top.entries[part.name] for part in parts if part.name in top.entries}
    start = Settings(state_dir=base / Settings().state_dir)
    settings = reader.group(start, Entries(mine, top.lines, top.line), "")
    limits = _group(reader, DEFAULT_LIMITS, top, "limits")
    ceilings = _group(reader, DEFAULT_CEILINGS, top, "ceilings")
    _check_defaults(reader, limits, ceilings, top)
    _check_settings(reader, settings, top)
    services: tuple[Service, ...] = ()
    if "services" in top.entries:
        around = Surroundings(limits, ceilings, env, read_file, trusted=True)
        service_reader = ServiceReader(base, around)
        services = service_reader.services(top.entries["services"])
        problems += service_reader.problems
    _raise_all([*problems, *reader.problems])
    return Config(settings, limits, ceilings, services)


def parse_service(
    name: str,
    fields: Mapping[str, object],
    *,
    module: Path,
    defaults: Limits = DEFAULT_LIMITS,
    ceilings: Limits = DEFAULT_CEILINGS,
) -> Service:
    """A service deployed at run time, from the same keys as in a document except `module`.

    `fields` holds text, lists and mappings only; nothing in it is expanded, and neither the
    environment nor files can be reached from it.  Raises ConfigError with every problem found.
    """
    reader = ServiceReader(Path("/"), Surroundings(defaults, ceilings, {}))
    node = node_from_plain({**fields, "module": str(module)})
    service = reader.service(name, node, "")
    if "module" in fields:
        reader.problem("module", "is what is being deployed and cannot be chosen", None)
    _raise_all(reader.problems)
    assert service is not None
    return service


def _group(reader: Reader, start: Limits, top: Entries, key: str) -> Limits:
    node = top.entries.get(key)
    return start if node is None else reader.group(start, node, key)


def _check_defaults(reader: Reader, limits: Limits, ceilings: Limits, top: Entries) -> None:
    for name in above_ceiling(limits, ceilings):
        # whichever of the two the document wrote is what the operator must change
        where = "limits" if _line(top, "limits", name) else "ceilings"
        reader.problem(
            join(where, name),
            f"the default limit is above the ceiling; change limits.{name} or ceilings.{name}",
            _line(top, where, name),
        )


def _check_settings(reader: Reader, settings: Settings, top: Entries) -> None:
    admin, server, metrics = settings.admin, settings.server, settings.metrics
    tls = admin.tls
    if (tls.certificate is None) != (tls.key is None):
        reader.problem(
            "admin.tls", "needs both certificate and key, or neither", _line(top, "admin", "tls")
        )
    if not admin.listen.loopback and not admin.allow_plaintext and tls.certificate is None:
        reader.problem(
            "admin.listen",
            f"{admin.listen} can be reached from other machines and the control API has no TLS; "
            "listen on 127.0.0.1, set admin.tls, or accept it with admin.allow_plaintext: true",
            _line(top, "admin", "listen"),
        )
    if not server.trusted_proxies and any(listen.proxy_protocol for listen in server.listen):
        reader.problem(
            "server.listen",
            "proxy_protocol needs server.trusted_proxies: it is believed from there only",
            _line(top, "server", "listen"),
        )
    seen = {"admin.listen": admin.listen}
    if metrics.listen is not None:
        seen["metrics.listen"] = metrics.listen
    for position, listen in enumerate(server.listen):
        seen[f"server.listen[{position}]"] = listen
    taken: dict[tuple[str, int], str] = {}
    for where, listen in seen.items():
        first = taken.setdefault((listen.host, listen.port), where)
        if first != where and listen.port:
            section = where.partition(".")[0]
            line = _line(top, section, "listen")
            reader.problem(where, f"{listen} is already the address of {first}", line)


def _line(top: Entries, section: str, key: str) -> int | None:
    """The line of `section.key`, or None where the document does not write it."""
    node: Node | None = top.entries.get(section)
    return node.lines.get(key) if isinstance(node, Entries) else None


def _raise_all(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(*sorted(problems, key=lambda problem: problem.line or 0))

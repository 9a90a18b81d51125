"""Settings of the process: control API, log, metrics, sandbox pool, compiler, engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

from edge.settings.about import GIB, MIB, About, Kind
from edge.settings.server import Listen


class AccessLog(Enum):
    """How one finished request is logged."""

    JSON = "json"
    TEXT = "text"
    OFF = "off"


class LineFormat(Enum):
    """How the server's own lines and those of guests are written."""

    JSON = "json"
    TEXT = "text"


class Level(Enum):
    """The least serious line of the server's own that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class CodeLabel(Enum):
    """What the `code` label of the request metrics holds."""

    CLASS = "class"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class AdminTls:
    """How the control API proves who it is; both or none."""

    certificate: Annotated[
        Path | None,
        About(Kind.PATH, "PEM file with its certificate and the chain to its root.", unset="none"),
    ] = None
    key: Annotated[
        Path | None,
        About(Kind.PATH, "PEM file with the key of that certificate.", unset="none"),
    ] = None


@dataclass(frozen=True, slots=True)
class Admin:
    """The control API."""

    listen: Annotated[
        Listen,
        About(
            Kind.ADDRESS,
            "Where the control API answers.",
            "To reach it from other machines; see `admin.allow_plaintext` first.",
        ),
    ] = Listen("127.0.0.1", 8090)
    tls: Annotated[AdminTls, About(Kind.GROUP, "The control API speaks TLS when this is set.")] = (
        AdminTls()
    )
    allow_plaintext: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Allow the control API on an address that other machines can reach, without TLS.",
            "Only on a network where nobody can read the token off the wire.",
        ),
    ] = False
    hosts: Annotated[
        tuple[str, ...],
        About(
            Kind.HOSTS,
            "Names that the control API answers to, besides IP addresses; any other Host is "
            "answered 421, which stops DNS rebinding.",
            "Add the name under which you reach it.",
        ),
    ] = ("localhost",)
    package_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Largest module that can be deployed through the control API.",
            "Raise it for very large programs.",
            least=1024,
            most=GIB,
        ),
    ] = 100 * MIB


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged, how, and where to."""

    access: Annotated[
        AccessLog,
        About(
            Kind.CHOICE,
            "One line for each finished request.",
            "`off` saves a few microseconds a request; the metrics remain.",
        ),
    ] = AccessLog.JSON
    messages: Annotated[
        LineFormat,
        About(
            Kind.CHOICE,
            "Form of the server's own lines and of what guests print.",
            "`text` for reading at a terminal.",
        ),
    ] = LineFormat.JSON
    level: Annotated[
        Level,
        About(Kind.CHOICE, "Least serious of the server's own lines that is written."),
    ] = Level.INFO
    file: Annotated[
        Path | None,
        About(
            Kind.PATH,
            "File that lines are appended to.",
            "Leave it on `stdout` under systemd or in a container.",
            unset="stdout",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Prometheus metrics; they are always on the control API's /metrics as well."""

    listen: Annotated[
        Listen | None,
        About(
            Kind.ADDRESS,
            "An address that answers /metrics, /livez and /readyz only, without a token.",
            "When the scraper must not reach the control API.",
            unset="none",
        ),
    ] = None
    code: Annotated[
        CodeLabel,
        About(
            Kind.CHOICE,
            "Whether the `code` label is the class of the status (`2xx`) or the status itself.",
            "`exact` multiplies the number of series.",
        ),
    ] = CodeLabel.CLASS


@dataclass(frozen=True, slots=True)
class Pool:
    """How many sandboxes a worker can hold at once."""

    slots: Annotated[
        int | None,
        About(
            Kind.COUNT,
            "Sandboxes alive at once in one worker; `auto` is the worker's memory budget divided "
            "by 16 MiB, and at most 1000.",
            "Raise it for guests that wait long and hold little.",
            least=1,
            most=20_000,
            unset="auto",
        ),
    ] = None
    memory_share: Annotated[
        float,
        About(
            Kind.SHARE,
            "Share of the machine's (or the cgroup's) memory that all workers' sandboxes may use "
            "together.",
            "Lower it when other programs need the memory.",
            least=0.05,
            most=0.95,
        ),
    ] = 0.7


@dataclass(frozen=True, slots=True)
class Compile:
    """Bounds of the child process that compiles a module, so that none can hurt the server."""

    cpu: Annotated[
        float,
        About(
            Kind.DURATION,
            "CPU time for compiling one module.",
            "Raise it for very large modules on slow machines.",
            least=1,
            most=3600,
        ),
    ] = 120.0
    wall: Annotated[
        float,
        About(Kind.DURATION, "Wall time for compiling one module.", least=1, most=7200),
    ] = 300.0
    parallel: Annotated[
        int | None,
        About(
            Kind.COUNT,
            "Modules that are compiled at once; `auto` is one for every four cores, and at least "
            "one. A single compilation uses several cores where it can.",
            "Raise it when many services start or are deployed together.",
            least=1,
            most=64,
            unset="auto",
        ),
    ] = None
    memory: Annotated[
        int,
        About(
            Kind.BYTES,
            "Address space of the compiling process.",
            "Raise it when a large module is refused for want of memory.",
            least=256 * MIB,
            most=256 * GIB,
        ),
    ] = 4 * GIB


@dataclass(frozen=True, slots=True)
class Deploy:
    """What developers may deploy through the control API."""

    domain: Annotated[
        str | None,
        About(
            Kind.HOST,
            "A service that is deployed without a domain answers on its own name below this one: "
            "`hello` on `hello.localhost`.",
            "To a domain with a wildcard record that leads here; `none` if every service must "
            "name its domains.",
            unset="none",
        ),
    ] = "localhost"
    services: Annotated[
        int,
        About(
            Kind.COUNT,
            "Most services in the catalogue.",
            "Lower it where strangers may deploy.",
            least=1,
            most=100_000,
        ),
    ] = 1000
    keep_versions: Annotated[
        int,
        About(
            Kind.COUNT,
            "Versions of a service that are kept besides those in use; older ones are deleted "
            "with their packages.",
            "Raise it to be able to roll back further.",
            least=2,
            most=100_000,
        ),
    ] = 100
    service_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Modules of all versions of a service together, each counted once. The oldest "
            "versions make room for a new one, but none that is in use.",
            "Lower it where strangers may deploy; raise it for large programs that are deployed "
            "often.",
            least=1024,
            most=1024 * GIB,
        ),
    ] = GIB
    stores: Annotated[
        int,
        About(Kind.COUNT, "Most stores of each kind.", least=1, most=100_000),
    ] = 1000
    store_entries: Annotated[
        int,
        About(
            Kind.COUNT,
            "Most entries of one config, secret or ACL store or dictionary.",
            "With care: every worker holds all of them in memory.",
            least=1,
            most=1_000_000,
        ),
    ] = 10_000
    audit_records: Annotated[
        int,
        About(Kind.COUNT, "Changes that the audit log remembers.", least=100, most=100_000_000),
    ] = 100_000


@dataclass(frozen=True, slots=True)
class Wasm:
    """What every guest on this machine sees."""

    clock_resolution: Annotated[
        float,
        About(
            Kind.DURATION,
            "Step of the clocks that guests can read.",
            "Raise it to make timing attacks between tenants harder.",
            least=1e-9,
            most=1,
        ),
    ] = 1e-6
    exceptions: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Accept modules that use WebAssembly exception handling.",
            "For programs built by compilers that need it; it widens what the engine must get "
            "right.",
        ),
    ] = False

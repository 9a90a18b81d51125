"""What an operator can set for the whole process: frozen dataclasses with their own documentation.

Every field says what it means, its unit, its default and when to change it, in `About`; the
document reader and docs/settings.md are both driven by that.  Inside the program durations are
seconds, sizes are bytes, and `None` stands for the word in `About.unset`.
Not here: what can be set per service (`edge.model`), and reading any of it from a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated

IPNetwork = IPv4Network | IPv6Network

MIB = 1024 * 1024
GIB = 1024 * MIB


class Kind(Enum):
    """How a setting is written in a document; the value is how docs/settings.md names it."""

    GROUP = "group"
    DURATION = "duration"
    BYTES = "size"
    COUNT = "number"
    SHARE = "percentage"
    SWITCH = "true or false"
    CHOICE = "choice"
    NAMES = "name or list of names"
    HOST = "host"
    HOSTS = "host or list of hosts"
    URL_PATH = "path of a URL or `{exact: PATH}`"
    PATH = "path"
    ADDRESS = "address"
    LISTENERS = "address or list of addresses"
    NETWORKS = "network or list of networks"
    ROUTES = "list of routes"
    TEXT_MAP = "mapping of text"
    STORES = "mapping of stores"
    SECRETS = "mapping of secret stores"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True)
class About:
    """The documentation of one setting, and the bounds its reader enforces.

    `least` and `most` are in the unit the program uses (seconds, bytes, a count, a share of 1).
    `unset` is the word a document uses for `None`.  `example` replaces a default in the docs
    where there is none.
    """

    kind: Kind
    meaning: str
    change: str = ""
    least: float | None = None
    most: float | None = None
    unset: str = ""
    example: str = ""


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
class Listen:
    """An IP address and a TCP port; port 0 lets the kernel choose one."""

    host: str
    port: int
    proxy_protocol: bool = False  # every connection must begin with a PROXY v1 or v2 header

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a client may keep us waiting, in seconds."""

    head: Annotated[
        float,
        About(
            Kind.DURATION,
            "From the first byte of a request head to its last.",
            "Raise it for clients on very poor links; lower it under a slow-header attack.",
            least=0.1,
            most=3600,
        ),
    ] = 10.0
    body_idle: Annotated[
        float,
        About(
            Kind.DURATION,
            "Longest silence while a request body is awaited.",
            "Raise it for uploads that pause.",
            least=0.1,
            most=3600,
        ),
    ] = 30.0
    write_stall: Annotated[
        float,
        About(
            Kind.DURATION,
            "Longest time a client may take none of the bytes we have ready for it.",
            "Raise it for clients that stop reading on purpose, such as paused players.",
            least=0.1,
            most=3600,
        ),
    ] = 30.0
    keep_alive: Annotated[
        float,
        About(
            Kind.DURATION,
            "How long an idle connection stays open between requests.",
            "Keep it above the idle timeout of a load balancer in front, or it will reuse "
            "connections that we have just closed.",
            least=0,
            most=3600,
        ),
    ] = 75.0


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections there may be, and how deep each may queue."""

    max: Annotated[
        int | None,
        About(
            Kind.COUNT,
            "Most client connections of one worker; `auto` is the limit on open files less a "
            "reserve for our own.",
            "Lower it when connections cost too much memory.",
            least=1,
            most=1_000_000,
            unset="auto",
        ),
    ] = None
    per_client: Annotated[
        int,
        About(
            Kind.COUNT,
            "Most connections of one client address to one worker; 0 is no such limit. Peers in "
            "`server.trusted_proxies` are not counted.",
            "Raise it when many clients share one address; lower it under attack.",
            least=0,
            most=1_000_000,
        ),
    ] = 1024
    pipeline: Annotated[
        int,
        About(
            Kind.COUNT,
            "Most pipelined requests taken in before the first of them is answered; then reading "
            "pauses.",
            "Hardly ever: browsers do not pipeline, benchmarks do.",
            least=1,
            most=1024,
        ),
    ] = 16


@dataclass(frozen=True, slots=True)
class Server:
    """The public side: where we listen and what a client may send before a service is known."""

    listen: Annotated[
        tuple[Listen, ...],
        About(
            Kind.LISTENERS,
            "Where clients connect. An entry may be written `{address: ..., proxy_protocol: "
            "true}`: then every connection there must begin with a PROXY protocol header and come "
            "from `server.trusted_proxies`.",
            "To serve on another port or on chosen interfaces only.",
        ),
    ] = (Listen("0.0.0.0", 8080),)  # noqa: S104 - the public listener is meant to be public
    workers: Annotated[
        int | None,
        About(
            Kind.COUNT,
            "Worker processes; `auto` is one for each core this process may use.",
            "Lower it to leave cores to other programs.",
            least=1,
            most=256,
            unset="auto",
        ),
    ] = None
    timeouts: Annotated[Timeouts, About(Kind.GROUP, "How long a client may keep us waiting.")] = (
        Timeouts()
    )
    connections: Annotated[Connections, About(Kind.GROUP, "How many connections there may be.")] = (
        Connections()
    )
    trusted_proxies: Annotated[
        tuple[IPNetwork, ...],
        About(
            Kind.NETWORKS,
            "Peers whose X-Forwarded-For, X-Request-Id and PROXY headers are believed.",
            "Name your load balancers here, and nothing else: whoever is listed can claim any "
            "client address.",
            example="[10.0.0.0/8]",
        ),
    ] = ()
    drain: Annotated[
        float,
        About(
            Kind.DURATION,
            "How long requests in flight may take to finish after SIGTERM or SIGINT.",
            "Keep it below what your process manager allows before SIGKILL.",
            least=0,
            most=3600,
        ),
    ] = 30.0
    head_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Largest request head; a larger one is answered 431.",
            "Lower it where no client needs large cookies.",
            least=1024,
            most=MIB,
        ),
    ] = 69_000
    url_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Longest request target; a longer one is answered 414.",
            "Raise it for APIs that carry much in the query.",
            least=256,
            most=MIB,
        ),
    ] = 8192


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


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that belongs to the process and not to a service."""

    server: Annotated[Server, About(Kind.GROUP, "The public side.")] = Server()
    admin: Annotated[Admin, About(Kind.GROUP, "The control API.")] = Admin()
    log: Annotated[Log, About(Kind.GROUP, "What is logged, how, and where to.")] = Log()
    metrics: Annotated[
        Metrics,
        About(Kind.GROUP, "Prometheus metrics; the control API's /metrics has them as well."),
    ] = Metrics()
    pool: Annotated[Pool, About(Kind.GROUP, "How many sandboxes a worker can hold at once.")] = (
        Pool()
    )
    compile: Annotated[
        Compile, About(Kind.GROUP, "Bounds of the child process that compiles a module.")
    ] = Compile()
    wasm: Annotated[Wasm, About(Kind.GROUP, "What every guest on this machine sees.")] = Wasm()
    state_dir: Annotated[
        Path,
        About(
            Kind.PATH,
            "Directory for compiled modules, deployed packages and the generated admin token; "
            "made with mode 0700.",
            "Put it on a disk that survives a restart.",
        ),
    ] = Path("var")

"""What an operator can set for the whole process: frozen dataclasses with their own documentation.

Inside the program durations are seconds, sizes are bytes, and `None` stands for the word in
`About.unset`.  Not here: what can be set per service (`edge.model`), and reading any of it from a
document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from edge.settings.about import GIB, MIB, About, IPNetwork, Kind
from edge.settings.platform import (
    DeviceDetection,
    Egress,
    EgressRule,
    Geolocation,
    ShieldSite,
    Storage,
)
from edge.settings.process import (
    AccessLog,
    Admin,
    AdminTls,
    CodeLabel,
    Compile,
    Deploy,
    Level,
    LineFormat,
    Log,
    Metrics,
    Pool,
    Wasm,
)
from edge.settings.server import Connections, Listen, Server, Timeouts

__all__ = [
    "GIB",
    "MIB",
    "About",
    "AccessLog",
    "Admin",
    "AdminTls",
    "CodeLabel",
    "Compile",
    "Connections",
    "Deploy",
    "DeviceDetection",
    "Egress",
    "EgressRule",
    "Geolocation",
    "IPNetwork",
    "Kind",
    "Level",
    "LineFormat",
    "Listen",
    "Log",
    "Metrics",
    "Pool",
    "Server",
    "Settings",
    "ShieldSite",
    "Storage",
    "Timeouts",
    "Wasm",
]


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
    deploy: Annotated[
        Deploy, About(Kind.GROUP, "What developers may deploy through the control API.")
    ] = Deploy()
    wasm: Annotated[Wasm, About(Kind.GROUP, "What every guest on this machine sees.")] = Wasm()
    egress: Annotated[
        Egress, About(Kind.GROUP, "Where backends that a guest or an API makes may lead.")
    ] = Egress()
    storage: Annotated[
        Storage, About(Kind.GROUP, "What guests keep on this machine, and how much of it.")
    ] = Storage()
    geolocation: Annotated[
        Geolocation, About(Kind.GROUP, "What guests are told of where an address is.")
    ] = Geolocation()
    device_detection: Annotated[
        DeviceDetection, About(Kind.GROUP, "What guests are told of the device of a User-Agent.")
    ] = DeviceDetection()
    shielding_sites: Annotated[
        Mapping[str, ShieldSite],
        About(
            Kind.SHIELDS,
            "Shield sites by name: `local` is this one, others are "
            "`{encrypted: URL, unencrypted: URL}`.",
            "When one of several installations stands in front of the origins.",
            example="{paris: local}",
        ),
    ] = field(default_factory=dict)
    state_dir: Annotated[
        Path,
        About(
            Kind.PATH,
            "Directory for what is deployed, KV stores, keys, the first token and compiled "
            "modules, for one server at a time; made with mode 0700.",
            "Put it on a disk that survives a restart.",
        ),
    ] = Path("var")

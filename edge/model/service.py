"""A service as configured, and one loadable version of it; no module bytes and no files here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

from edge.model.acl import AclEntry
from edge.model.backend import Backend
from edge.model.limits import DEFAULT_LIMITS, Limits
from edge.model.route import Route
from edge.model.secret import Secret
from edge.settings import About, Kind


class UnknownImports(Enum):
    """What happens to a module that imports functions we do not have."""

    REFUSE = "refuse"
    TRAP = "trap"


class Family(Enum):
    """Which host interface a program was written for."""

    AUTO = "auto"
    FASTLY = "fastly"
    WASI = "wasi"


@dataclass(frozen=True, slots=True)
class Service:
    """One service.  Mappings are never changed once it is built."""

    name: str
    module: Annotated[
        Path,
        About(
            Kind.PATH,
            "The program: a `.wasm` or `.wat` file, relative to the configuration file.",
            example="services/hello.wat",
        ),
    ]
    routes: Annotated[
        tuple[Route, ...],
        About(
            Kind.ROUTES,
            "The hosts and paths it answers, at least one; the keys of a route are below.",
            example='[{host: "*", path: /}]',
        ),
    ]
    limits: Annotated[
        Limits,
        About(
            Kind.LIMITS,
            "What one of its sandboxes may use: the keys of `limits`, for what differs from there.",
            "See each limit.",
        ),
    ] = DEFAULT_LIMITS
    env: Annotated[
        Mapping[str, str],
        About(
            Kind.TEXT_MAP,
            "Environment variables that its program sees; it sees no others.",
            "Not for secrets: they belong in `secret_stores`.",
            example="{GREETING: hello}",
        ),
    ] = field(default_factory=dict)
    config_stores: Annotated[
        Mapping[str, Mapping[str, str]],
        About(
            Kind.STORES,
            "Config stores by name, each a mapping of keys to text; `dictionaries` is another "
            "spelling, and guests reach both under either interface.",
            example="{flags: {banner: blue}}",
        ),
    ] = field(default_factory=dict)
    secret_stores: Annotated[
        Mapping[str, Mapping[str, Secret]],
        About(
            Kind.SECRETS,
            "Secret stores by name, each a mapping of keys to text, to `{env: NAME}` or to "
            "`{file: PATH}` (one line break at the end of the file is left out).",
            "Prefer `env` and `file`, which keep the values out of this document.",
            example="{keys: {api: {env: API_KEY}}}",
        ),
    ] = field(default_factory=dict, repr=False)
    backends: Annotated[
        Mapping[str, Backend],
        About(
            Kind.BACKENDS,
            "Backends that its program may send requests to, by name; the keys of one are below.",
            example="{origin: {url: https://origin.example.com}}",
        ),
    ] = field(default_factory=dict, repr=False)
    kv_stores: Annotated[
        Mapping[str, str],
        About(
            Kind.KV_STORES,
            "KV stores by the name its program uses. A list of names gives it stores of its own; "
            "`{NAME: SHARED}` opens the store called SHARED, which other services may open too.",
            example="[cart, sessions]",
        ),
    ] = field(default_factory=dict)
    acls: Annotated[
        Mapping[str, tuple[AclEntry, ...]],
        About(
            Kind.ACLS,
            "Access control lists by name, each a list of `{prefix: NETWORK, action: TEXT}` or "
            "`{file: PATH}` with JSON of that form under `entries`.",
            example="{blocked: [{prefix: 203.0.113.0/24, action: BLOCK}]}",
        ),
    ] = field(default_factory=dict)
    log_endpoints: Annotated[
        tuple[str, ...],
        About(
            Kind.NAMES,
            "Names of the log endpoints it may open; empty is any name.",
            "To catch misspelt endpoints.",
            example="[audit]",
        ),
    ] = ()
    family: Annotated[
        Family,
        About(
            Kind.CHOICE,
            "The host interface it was written for; `auto` goes by its imports.",
            "When a module that imports both is taken for the wrong one.",
        ),
    ] = Family.AUTO
    unknown_imports: Annotated[
        UnknownImports,
        About(
            Kind.CHOICE,
            "`refuse` does not load a module that imports functions we do not have; `trap` loads "
            "it and ends a request that calls one.",
            "`trap` for programs that import more than they call.",
        ),
    ] = UnknownImports.REFUSE
    server_timing: Annotated[
        bool,
        About(
            Kind.SWITCH,
            "Add a Server-Timing field with the sandbox's CPU and wall time to its responses.",
            "While measuring; it tells clients how busy the machine is.",
        ),
    ] = False


class Role(Enum):
    """What part of a service's traffic a version gets."""

    ACTIVE = "active"  # what its routes lead to
    CANARY = "canary"  # a share of its clients, in place of the active one
    STAGED = "staged"  # none: it can be invoked through the control API only


@dataclass(frozen=True, slots=True)
class Version:
    """A service with its module settled: what workers serve, or why they cannot.

    Exactly one of `artifact` and `refused` is set.
    """

    service: Service
    number: int  # 1, 2, 3 ... for each service
    sha256: str = ""  # of the module's bytes, in hex
    artifact: Path | None = None  # the compiled module
    refused: str = ""  # one line for the author of the module
    series: int = 0  # position of its counters among the shared ones
    backend_slots: Mapping[str, int] = field(default_factory=dict)  # where each backend is counted
    quarantined: bool = False  # it keeps killing workers
    id: str = ""  # of the service in the catalogue; empty for one of the configuration file
    role: Role = Role.ACTIVE
    share: int = 0  # of a canary: clients in 10,000

    @property
    def label(self) -> str:
        """What tells it from all others of a snapshot: `NAME`, or `NAME@3` beside the active one.

        No service's name has an @.
        """
        name = self.service.name
        return name if self.role is Role.ACTIVE else f"{name}@{self.number}"

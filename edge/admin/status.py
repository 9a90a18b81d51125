"""What the server says about itself: values that composition fills in and the admin app renders."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ServiceState(Enum):
    """Whether a service answers."""

    LOADED = "loaded"
    REFUSED = "refused"  # its module cannot be served; the reason says why
    QUARANTINED = "quarantined"  # it keeps killing workers


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One version of a service as published."""

    name: str
    version: int
    sha256: str
    state: ServiceState
    reason: str = ""
    id: str = ""  # of the service in the catalogue; empty for one of the configuration file
    role: str = "active"  # or canary, staged


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process.  `generation` is that of the snapshot it serves, 0 for none yet."""

    slot: int
    pid: int
    phase: str
    generation: int


@dataclass(frozen=True, slots=True)
class Status:
    """The whole server at one instant."""

    version: str
    ready: bool
    draining: bool
    generation: int
    workers: tuple[WorkerStatus, ...]
    services: tuple[ServiceStatus, ...]

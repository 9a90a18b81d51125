"""What the control API asks of the rest of the server: a Protocol, and the values that cross it.

`edge.rollout` implements it.  Everything durable is in the catalogue, which endpoints use directly;
here is what needs the supervisor: compiling, serving, invoking, watching.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge.catalogue.records import Actor
from edge.errors import Problem
from edge.model.limits import Limits
from edge.model.route import Route


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a module is and needs; `problems` is empty when it can be served."""

    sha256: str
    size: int  # bytes of the module
    imports: tuple[str, ...]  # `module.name`, sorted
    unknown_imports: tuple[str, ...]  # of those, the ones this server does not have
    exports: tuple[str, ...]
    memory_bytes: int  # at the start
    memory_max_bytes: int | None  # that it declares
    table_elements: int
    compile_seconds: float  # 0 when the cache had it
    code_bytes: int  # of the compiled form; 0 when it was not compiled
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Activated:
    """Another version serves in every worker."""

    service: str
    number: int
    previous: int | None
    seconds: float
    generation: int
    share: int = 10_000  # of clients in 10,000; less for a canary
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InvokeRequest:
    """A request for one version, whatever the public routes are."""

    method: str
    target: str  # path and query
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class InvokeAnswer:
    """What the version answered, and how its sandbox ended."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    truncated: bool = False  # there was more of the body than is kept
    outcome: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    request_id: str = ""
    detail: str = ""  # of the outcome
    lines: tuple[Mapping[str, object], ...] = ()  # what its program wrote


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """Counters of a service since its first version was loaded, or of one version."""

    service: str
    version: int | None
    requests: int
    in_flight: int
    by_code: Mapping[str, int]  # "2xx" ...
    by_outcome: Mapping[str, int]
    cpu_seconds: float
    wall_seconds: float
    request_bytes: int
    response_bytes: int
    wall_ms: Mapping[str, float]  # p50, p90, p99 as the histogram knows them
    cpu_ms: Mapping[str, float]
    memory_bytes: Mapping[str, float]
    backends: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # name -> counts


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are wanted; an empty field wants all."""

    service: str = ""
    version: int | None = None
    stream: str = ""  # stdout, stderr, a log endpoint, or `access`
    request: str = ""
    outcome: str = ""  # of access records


@dataclass(frozen=True, slots=True)
class FileService:
    """A service that the configuration file owns."""

    name: str
    number: int
    sha256: str
    state: str  # as in the status
    reason: str
    routes: tuple[str, ...]


Progress = Callable[[str, Mapping[str, object]], None]  # an event's name and its facts; on the loop


def no_progress(event: str, facts: Mapping[str, object]) -> None:
    """For callers that nobody watches."""


class ControlPlane(Protocol):
    """Everything below raises ApiRefused for what the caller did, and changes nothing then."""

    async def inspect(
        self,
        module: bytes,
        *,
        limits: Limits | None = None,
        trap_unknown: bool = False,
        label: str = "",
        progress: Progress = no_progress,
    ) -> Inspection:
        """Compile a module (or find it compiled) and compare it with what we have and allow.

        What is wrong with it is in `problems`; ApiRefused only where it could not be looked at.
        """
        ...

    async def activate(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        reason: str = "activate",
        progress: Progress = no_progress,
    ) -> Activated:
        """Have every worker serve a version, then remember it; all of it or nothing."""
        ...

    async def canary(
        self,
        actor: Actor,
        service_id: str,
        number: int,
        *,
        share: int,
        max_error_rate: float,
        max_limit_rate: float,
        min_requests: int,
    ) -> Activated:
        """Give a share of clients (in 10,000) another version beside the active one.

        10,000 activates it; 0 ends the canary.
        """
        ...

    async def rollback(self, actor: Actor, service_id: str) -> Activated:
        """Activate the version that served before; with a canary, end that instead."""
        ...

    async def deactivate(self, actor: Actor, service_id: str) -> None:
        """Serve it no longer."""
        ...

    async def stage(self, actor: Actor, service_id: str, number: int) -> None:
        """Load a version in every worker, reachable by `invoke` alone."""
        ...

    async def unstage(self, actor: Actor, service_id: str) -> None: ...

    async def refresh(self, actor: Actor, service_id: str) -> None:
        """Serve what the catalogue says of a service, under the name that it has there now.

        ApiRefused as `activate`; workers keep what they have then.
        """
        ...

    async def delete_service(self, actor: Actor, service_id: str, *, force: bool) -> None:
        """Remove a service, its versions, and the packages nobody else has.

        ApiRefused VERSION_ACTIVE while it is served, unless `force`, which deactivates it first.
        """
        ...

    async def stores_changed(self, store_ids: Sequence[str]) -> None:
        """Contents of stores have changed: services linked to them see it soon, without a deploy.

        Returns at once; changes that come together are published together.
        """
        ...

    async def store_deleted(self, store_id: str) -> None:
        """A KV store has gone from the catalogue: its data goes as well."""
        ...

    async def invoke(
        self, actor: Actor, service_id: str, number: int, request: InvokeRequest
    ) -> InvokeAnswer:
        """Run one request in a version, off the public port, under its limits."""
        ...

    def stats(self, service: str, version: int | None = None) -> ServiceStats | None:
        """None for what has never been loaded."""
        ...

    def lines(
        self, wanted: LogFilter, *, recent: int, follow: bool
    ) -> AsyncIterator[Mapping[str, object]]:
        """Log lines as JSON objects: up to `recent` that were kept, then, if asked, new ones.

        A reader that is too slow misses some and is told how many, as `{"dropped": n}`.  Every
        few seconds of silence it yields an empty object.  Close the iterator to end it.
        """
        ...

    def file_services(self) -> tuple[FileService, ...]: ...

    def foreign_hosts(
        self, service_id: str, name: str, routes: Sequence[Route]
    ) -> tuple[Problem, ...]:
        """Of a service's routes, those on hosts that another service answers on now.

        Any thread may ask.
        """
        ...

    def is_loaded(self, service: str, number: int) -> bool:
        """Whether workers serve this version now."""
        ...

    def configuration(self) -> Mapping[str, object]:
        """The effective settings, secrets masked."""
        ...

    def nodes(self) -> Sequence[Mapping[str, object]]:
        """This node (there is one), its workers and what it serves."""
        ...

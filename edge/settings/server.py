"""Settings of the public side: where we listen, and what a client may send."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from edge.settings.about import MIB, About, IPNetwork, Kind


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

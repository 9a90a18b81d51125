"""`fastly_backend`: what a guest may know of its backends, static or made by itself.

Questions about a backend that it does not have are INVAL, but for `exists`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from edge.abi.codec import U16, U32, Choice, Out, Str
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import Failed, InvalidArgument, LimitExceeded, Missing
from edge.model.backend import Backend, TlsVersion

abi = HostModule("fastly_backend", FASTLY)

_OWN = "backends"  # of a sandbox's extras: those that its guest has made
# A sandbox serves one service: whoever needs more hosts than this is a proxy for the world.
MAX_DYNAMIC = 200
BACKEND_COST = 2048  # a Backend and its names, above the certificates it carries


class Tls(IntEnum):
    """`tls_version`."""

    TLS_1_0 = 0
    TLS_1_1 = 1
    TLS_1_2 = 2
    TLS_1_3 = 3


TlsNumber = Annotated[Tls, Choice(Tls)]
TLS_VERSIONS = dict(zip(Tls, TlsVersion, strict=True))
_TLS_NUMBERS = {version: number for number, version in TLS_VERSIONS.items()}


@abi.hostcall
def exists(box: Sandbox, backend: Str) -> U32:
    """Whether there is a backend of that name."""
    return int(_lookup(box, backend) is not None)


@abi.hostcall
def is_healthy(box: Sandbox, backend: Str) -> U32:
    """What its health checks say: 0 unknown, 1 healthy, 2 unhealthy."""
    found = find_backend(box, backend)
    upstream = box.capabilities.upstream
    assert upstream is not None  # or no backend would have been found
    return upstream.health(found).value


@abi.hostcall
def is_dynamic(box: Sandbox, backend: Str) -> U32:
    """Whether a guest made it."""
    return int(find_backend(box, backend).dynamic)


@abi.hostcall
def get_host(box: Sandbox, backend: Str, host: Out) -> None:
    """Its host: a name or an address, without a port."""
    host.fill(find_backend(box, backend).url.host.encode())


@abi.hostcall
def get_override_host(box: Sandbox, backend: Str, host: Out) -> None:
    """The Host field of its requests; NONE when it is the guest's to choose."""
    override = find_backend(box, backend).override_host
    if override is None:
        raise Missing("the backend has no override host")
    host.fill(override.encode())


@abi.hostcall
def get_port(box: Sandbox, backend: Str) -> U16:
    """Its port."""
    return find_backend(box, backend).url.port


@abi.hostcall
def get_connect_timeout_ms(box: Sandbox, backend: Str) -> U32:
    """Milliseconds for name, connection and TLS together."""
    return _milliseconds(find_backend(box, backend).connect_timeout)


@abi.hostcall
def get_first_byte_timeout_ms(box: Sandbox, backend: Str) -> U32:
    """Milliseconds until the response begins."""
    return _milliseconds(find_backend(box, backend).first_byte_timeout)


@abi.hostcall
def get_between_bytes_timeout_ms(box: Sandbox, backend: Str) -> U32:
    """Milliseconds of silence within a response."""
    return _milliseconds(find_backend(box, backend).between_bytes_timeout)


@abi.hostcall
def get_http_keepalive_time(box: Sandbox, backend: Str) -> U32:
    """Milliseconds that an idle connection is kept; 0: none is."""
    return _milliseconds(find_backend(box, backend).keep_alive)


@abi.hostcall
def get_tcp_keepalive_enable(box: Sandbox, backend: Str) -> U32:
    """Whether TCP asks a silent peer if it is there."""
    return int(find_backend(box, backend).tcp_keep_alive > 0)


@abi.hostcall
def get_tcp_keepalive_interval(box: Sandbox, backend: Str) -> U32:
    """Seconds between two such questions; 0: as the system has it."""
    return round(find_backend(box, backend).tcp_keep_alive_interval)


@abi.hostcall
def get_tcp_keepalive_probes(box: Sandbox, backend: Str) -> U32:
    """How many of them go unanswered before it gives up; 0: as the system has it."""
    return find_backend(box, backend).tcp_keep_alive_probes


@abi.hostcall
def get_tcp_keepalive_time(box: Sandbox, backend: Str) -> U32:
    """Seconds of silence before the first; 0: none is asked."""
    return round(find_backend(box, backend).tcp_keep_alive)


@abi.hostcall
def is_ssl(box: Sandbox, backend: Str) -> U32:
    """Whether it is reached through TLS."""
    return int(find_backend(box, backend).url.tls)


@abi.hostcall
def get_ssl_min_version(box: Sandbox, backend: Str) -> TlsNumber:
    """Its oldest TLS; NONE when that is left to us."""
    return _tls(find_backend(box, backend).min_tls)


@abi.hostcall
def get_ssl_max_version(box: Sandbox, backend: Str) -> TlsNumber:
    """Its newest TLS; NONE when that is left to us."""
    return _tls(find_backend(box, backend).max_tls)


def _tls(version: TlsVersion | None) -> Tls:
    if version is None:
        raise Missing("the backend names no such version")
    return _TLS_NUMBERS[version]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def find_backend(box: Sandbox, name: str) -> Backend:
    """A backend by name.  Raises InvalidArgument, naming it, when there is none."""
    found = _lookup(box, name)
    if found is None:
        raise InvalidArgument(f"no backend {name[:64]!r} in this service")
    return found


def add_backend(box: Sandbox, backend: Backend, carried: int) -> None:
    """Let the guest use a backend of its own, which carries so many bytes of certificates.

    Raises Failed when the name is taken, LimitExceeded.
    """
    if _lookup(box, backend.name) is not None:
        raise Failed(f"a backend {backend.name[:64]!r} exists already")
    own: dict[str, Backend] = box.extras.setdefault(_OWN, {})
    if len(own) >= MAX_DYNAMIC:
        raise LimitExceeded(f"{MAX_DYNAMIC} backends made by one sandbox", limit="")
    box.hold(BACKEND_COST + carried)
    own[backend.name] = backend


def _lookup(box: Sandbox, name: str) -> Backend | None:
    capabilities = box.capabilities
    if capabilities.upstream is None:
        return None  # nobody would send to it
    found = capabilities.backends.get(name)
    if found is None and box.extras:
        found = box.extras.get(_OWN, {}).get(name)
    return found

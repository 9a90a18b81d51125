"""What one sandbox of a service may use, and the ceilings no service may exceed; numbers only.

Limits are amounts allowed; what is left of them during a request is a *budget* and lives with the
request.  Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edge.model.documented import documented
from edge.settings import GIB, MIB, About, Kind


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one service."""

    cpu: Annotated[
        float,
        About(
            Kind.DURATION,
            "CPU time of one request, the guest's and what its hostcalls cost us.",
            "Raise it for services that really compute.",
            least=0.001,
            most=3600,
        ),
    ] = 0.05
    wall: Annotated[
        float,
        About(
            Kind.DURATION,
            "Time from the start of the sandbox to its end, waiting included.",
            "Raise it for long downloads and event streams.",
            least=0.001,
            most=86400,
        ),
    ] = 120.0
    memory: Annotated[
        int,
        About(
            Kind.BYTES,
            "Linear memory of one sandbox. It also bounds how long one bulk instruction can run "
            "(57 ms for filling 128 MiB), which nothing can interrupt.",
            "Lower it wherever programs are small; raise it for large heaps.",
            least=64 * 1024,
            most=4 * GIB,
        ),
    ] = 128 * MIB
    host_memory: Annotated[
        int,
        About(
            Kind.BYTES,
            "Memory that we hold for one sandbox: bodies, heads, secrets, values.",
            "Raise it for services that buffer large bodies.",
            least=MIB,
            most=16 * GIB,
        ),
    ] = 64 * MIB
    head_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Size of a request or response head that the guest builds.",
            "Raise it for very large header sets.",
            least=1024,
            most=MIB,
        ),
    ] = 69_000
    head_fields: Annotated[
        int,
        About(
            Kind.COUNT,
            "Number of fields in a head that the guest builds.",
            "Hardly ever.",
            least=16,
            most=10_000,
        ),
    ] = 512
    table_elements: Annotated[
        int,
        About(
            Kind.COUNT,
            "Elements of the module's table, where function pointers live.",
            "Raise it for a program that is refused for its table.",
            least=1,
            most=10_000_000,
        ),
    ] = 98_765
    request_body: Annotated[
        int,
        About(
            Kind.BYTES,
            "Bytes of request body; more is answered 413. Bodies stream, so this costs no memory.",
            "Raise it for large uploads.",
            least=0,
            most=1024 * GIB,
        ),
    ] = GIB
    response: Annotated[
        int,
        About(
            Kind.BYTES,
            "Bytes of response body; after that the response is cut off.",
            "Raise it for large downloads.",
            least=0,
            most=1024 * GIB,
        ),
    ] = GIB
    subrequests: Annotated[
        int,
        About(
            Kind.COUNT,
            "Requests that one sandbox may send to backends.",
            "Raise it for services that gather many answers.",
            least=0,
            most=100_000,
        ),
    ] = 32
    handles: Annotated[
        int,
        About(
            Kind.COUNT,
            "Handles of all kinds open at once in one sandbox.",
            "Hardly ever; a service that needs more leaks them.",
            least=16,
            most=1_000_000,
        ),
    ] = 10_000
    log_bytes: Annotated[
        int,
        About(
            Kind.BYTES,
            "Bytes that one request may log; more is dropped and counted.",
            "Raise it while debugging a talkative service.",
            least=0,
            most=GIB,
        ),
    ] = MIB
    reuse_requests: Annotated[
        int,
        About(
            Kind.COUNT,
            "Further requests that one sandbox may serve, if its program asks for them; 0 gives "
            "every request a fresh one, whatever the program asks.",
            "Raise it for trusted programs that start slowly; set it to 0 where no request may see "
            "what another one left.",
            least=0,
            most=1_000_000,
        ),
    ] = 5
    reuse_age: Annotated[
        float,
        About(
            Kind.DURATION,
            "Age from which a sandbox gets no further request.",
            "Raise it with reuse_requests, for programs that keep their memory in order.",
            least=0.001,
            most=86400,
        ),
    ] = 60.0
    slots: Annotated[
        float,
        About(
            Kind.SHARE,
            "Share of a worker's sandbox slots that this service may hold at once.",
            "Raise it on a machine with one service; lower it for a tenant that crowds others.",
            least=0.001,
            most=1,
        ),
    ] = 0.5
    queue_wait: Annotated[
        float,
        About(
            Kind.DURATION,
            "How long a request may wait for a slot before it is answered 503.",
            "Lower it where a quick refusal is better than a late answer.",
            least=0,
            most=60,
        ),
    ] = 1.0


DEFAULT_LIMITS = Limits()

# Generous, but none of them lets one service hold a machine for ever.  An operator who deploys
# only his own programs raises them; one who takes strangers' programs lowers them.
DEFAULT_CEILINGS = Limits(
    cpu=30.0,
    wall=3600.0,
    memory=GIB,
    host_memory=GIB,
    head_bytes=MIB,
    head_fields=10_000,
    table_elements=1_000_000,
    request_body=1024 * GIB,
    response=1024 * GIB,
    subrequests=1000,
    handles=100_000,
    log_bytes=64 * MIB,
    reuse_requests=10_000,
    reuse_age=3600.0,
    slots=1.0,
    queue_wait=30.0,
)


def above_ceiling(limits: Limits, ceilings: Limits) -> list[str]:
    """Names of the limits that exceed their ceiling, in the order they are documented."""
    return [
        item.name
        for item in documented(Limits)
        if getattr(limits, item.name) > getattr(ceilings, item.name)
    ]

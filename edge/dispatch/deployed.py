"""One service version as a worker serves it: its template, its counters, and who waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge.abi.capabilities import NO_CAPABILITIES
from edge.abi.sandbox import Sandbox
from edge.http.message import Downstream
from edge.model.service import Family, Service, Version
from edge.runtime.template import Template
from edge.telemetry.service_block import ServiceBlock

if TYPE_CHECKING:
    from edge.dispatch.canary import Canary
    from edge.dispatch.succession import Succession
    from edge.dispatch.visit import Visit

_LEGACY_MODULE = "env"


class Tenant:
    """What the versions of one service hold together, those on their way out included."""

    __slots__ = ("__weakref__", "active")

    def __init__(self) -> None:
        self.active = 0  # sandboxes that hold a slot


class Deployed:
    """Made when a snapshot is prepared; later ones that say the same of this version keep it.

    It outlives the last of them until the last request of this version ends.
    """

    __slots__ = (
        "active",
        "block",
        "canary",
        "cap",
        "idle",
        "is_cgi",
        "limits",
        "make_sandbox",
        "name",
        "number",
        "runs",
        "serves",
        "service",
        "template",
        "tenant",
        "timing",
        "version",
        "waiting",
    )

    def __init__(
        self,
        version: Version,
        template: Template | None,
        block: ServiceBlock,
        slots: int,
        make_sandbox: Callable[[Downstream], Sandbox],
        tenant: Tenant,
    ) -> None:
        self.version = version
        self.template = template  # None: refused, and nothing of it can run
        self.runs = template is not None and not version.quarantined
        self.serves = True  # False from when a newer snapshot has taken its place
        self.canary: Canary | None = None  # of the snapshot that is served
        self.block = block
        self.make_sandbox = make_sandbox
        self.service: Service = version.service
        self.name = version.service.name
        self.number = str(version.number)
        self.limits = version.service.limits
        self.timing = version.service.server_timing
        self.tenant = tenant
        # Of all versions together, so that deploying again and again takes no more slots than one
        # service may have.  A share that rounds to nothing would refuse everything.
        self.cap = max(1, int(slots * self.limits.slots))
        self.active = 0  # sandboxes of this version that hold a slot
        self.waiting: deque[Visit] = deque()  # in order of arrival, so in order of deadline
        self.idle: list[Succession] = []  # of those sandboxes, the ones that wait for a request
        self.is_cgi = template is not None and _is_cgi(version.service.family, template)

    def take_slot(self) -> None:
        """A sandbox of this version is about to start."""
        self.active += 1
        self.tenant.active += 1

    def let_go(self) -> None:
        """Its last request has ended: nothing is kept of what its guests could reach.

        Sandboxes of a version have a class of their own, and a class is freed by a collection
        alone, which may be hours away: the contents of its stores must not wait for that.
        """
        made: Any = self.make_sandbox
        made.service = Service(self.name, self.service.module, (), self.limits)
        made.capabilities = NO_CAPABILITIES

    def setting(self, name: str) -> str:
        """The setting that raises a limit, as the operator would write it."""
        return f"services.{self.name}.limits.{name}"


def _is_cgi(family: Family, template: Template) -> bool:
    """Whether stdout is the response: a plain WASI program, by its word or by its imports."""
    if family is not Family.AUTO:
        return family is Family.WASI
    return not any(
        name.startswith("fastly_") or name == _LEGACY_MODULE for name in template.imports_from
    )

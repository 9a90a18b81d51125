"""Sandboxes for tests: a service, limits, a fake client, a log that is a list."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.abi.capabilities import Capabilities
from edge.abi.sandbox import Sandbox
from edge.http.body import Account, Ledger
from edge.model.limits import Limits
from edge.model.service import Service
from tests.support.fake_downstream import FakeDownstream

LogLines = list[tuple[str, bytes, int]]


@dataclass
class FakeMeter:
    """Figures that a test sets."""

    cpu: int = 0
    memory: int = 0

    def cpu_ns(self) -> int:
        return self.cpu

    def memory_bytes(self) -> int:
        return self.memory


@dataclass
class Made:
    """A sandbox and everything around it that a test may look at."""

    box: Sandbox
    client: FakeDownstream
    account: Account
    meter: FakeMeter
    log: LogLines = field(default_factory=list)


def make_service(**parts: object) -> Service:
    """A service called `shop`; `parts` are fields of `Service`."""
    return Service(name="shop", module=Path("shop.wasm"), routes=(), **parts)  # type: ignore[arg-type]


def make_sandbox(
    *,
    client: FakeDownstream | None = None,
    service: Service | None = None,
    limits: Limits | None = None,
    capabilities: Capabilities | None = None,
) -> Made:
    """A sandbox of `service` that serves `client`."""
    limits = limits or Limits()
    client = client or FakeDownstream()
    account = Account(Ledger(), limits.host_memory)
    log: LogLines = []
    box = Sandbox(
        service=service or make_service(),
        version=1,
        limits=limits,
        downstream=client,
        account=account,
        log_line=lambda box, stream, text, cut: log.append((stream, text, cut)),
    )
    if capabilities is not None:
        box.capabilities = capabilities
    meter = FakeMeter()
    box.meter = meter
    return Made(box, client, account, meter, log)

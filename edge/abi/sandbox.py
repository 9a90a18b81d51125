"""Sandbox: everything the host holds on behalf of one guest while it serves a request.

It knows no dialect: what a guest can name stands in one table of handles, `items`, and a family of
hostcalls that keeps more than that puts it into `extras`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from edge.abi.capabilities import NO_CAPABILITIES, Capabilities
from edge.abi.further import Further, Source
from edge.abi.handles import HandleTable
from edge.abi.memory import NO_MEMORY, GuestMemory
from edge.errors import LimitExceeded
from edge.http.body import Account, Body, Ledger
from edge.http.message import Downstream
from edge.model.limits import Limits
from edge.model.service import Service


class GuestExit(Exception):
    """The guest asked to end (`proc_exit`): an ending, no error.  0 is a success."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit {code}")
        self.code = code


class Meter(Protocol):
    """What the engine knows of a guest that runs."""

    def cpu_ns(self) -> int:
        """Thread time this guest has used, its hostcalls included, in nanoseconds."""
        ...

    def memory_bytes(self) -> int:
        """Size of its linear memory now."""
        ...


LogLine = Callable[["Sandbox", str, bytes, int], None]  # sandbox, stream, text, bytes cut off


# Handles are paid for in lots of so many; an empty body or head takes about so much of our memory
# (measured: 10 to 13 MB for 10,000).
HANDLE_LOT = 64
HANDLE_COST = 1536


class Sandbox:
    """One guest's state.  `memory` is set once the instance exists."""

    # Class-level: a sandbox is made for every request and changes few of these.
    service: Service
    version: int
    service_id = ""  # the catalogue's; empty: the service's name stands in its place
    staged = False  # no client reaches it
    limits: Limits
    log_line: LogLine
    clock_resolution_ns: int
    downstream: Downstream
    account: Account
    meter: Meter
    capabilities: Capabilities = NO_CAPABILITIES
    memory: GuestMemory = NO_MEMORY
    calls = 0  # hostcalls made
    held = 0  # bytes of the account that `hold` charged: heads, names, secrets
    log_bytes = 0  # written so far, for the log limit
    log_dropped = 0  # lines dropped by it
    subrequests = 0  # requests sent to backends, for their limit
    client_handles: tuple[int, int] | None = None  # the client's request and its body
    requests: Source | None = None  # of further requests; None: there are none
    further: Further | None = None  # the promise of one that the guest holds
    limits_hit: dict[str, int]  # setting -> refusals the guest was told of
    extras: dict[str, Any]  # a dialect's own small state
    # One number space for everything a guest holds: what `select` takes must share one anyway
    # (ABI page, section 2), and three tables cost a hello world 0.9 us more than one.
    items: HandleTable[Any]

    def __init__(
        self,
        *,
        service: Service,
        version: int,
        limits: Limits,
        downstream: Downstream,
        account: Account,
        log_line: LogLine,
        clock_resolution_ns: int = 1000,
    ) -> None:
        self.service = service
        self.version = version
        self.limits = limits
        self.log_line = log_line
        self.clock_resolution_ns = clock_resolution_ns
        self.downstream = downstream
        self.account = account
        self.limits_hit = {}
        self.extras = {}
        self.items = HandleTable(min(HANDLE_LOT, limits.handles))

    def new_body(self) -> Body:
        """An empty body whose bytes are charged to this sandbox."""
        return Body(self.account)

    def hold(self, count: int) -> None:
        """Charge `count` bytes of heads, names and values (negative: give them back).

        What is still held goes back when the sandbox closes.  Raises LimitExceeded.
        """
        if count > 0:
            self.account.charge(count)
        else:
            self.account.release(-count)
        self.held += count

    def insert(self, item: object) -> int:
        """A handle for `item`.  Raises LimitExceeded."""
        if len(self.items) >= self.items.ceiling:
            self.make_room()
        return self.items.insert(item)

    def make_room(self) -> None:
        """Pay for the next lot of handles.  Raises LimitExceeded when there may be no more.

        The first lot is free, so that most guests never pay; what is paid comes back at the end.
        """
        items, most = self.items, self.limits.handles
        if items.ceiling >= most:
            raise LimitExceeded(f"{most} handles are open", limit="limits.handles")
        lot = min(HANDLE_LOT, most - items.ceiling)
        self.hold(lot * HANDLE_COST)
        items.ceiling += lot

    def log(self, stream: str, text: bytes, cut: int) -> None:
        """Hand on one line, of which `cut` bytes were left out; over the limit it is dropped."""
        if self.log_bytes + len(text) > self.limits.log_bytes:
            self.log_dropped += 1
            return
        self.log_bytes += len(text)
        self.log_line(self, stream, text, cut)

    def begin(self, downstream: Downstream, told: int) -> None:
        """Serve a further request: what is counted for one begins anew, what is held stays.

        `told`: the hostcalls that were counted with the last one.  Its client's handles are gone
        from here on, so that none of them can come to name the new client's request.
        """
        if self.client_handles is not None:
            request, body = self.client_handles
            head = self.items.pop(request, None)
            if head is not None:
                head.release(self)
            if self.items.get(body) is self.downstream.body:
                del self.items[body]
            self.client_handles = None
        self.downstream = downstream
        self.calls -= told
        self.log_bytes = self.log_dropped = self.subrequests = 0
        self.limits_hit = {}
        self.account.peak = self.account.held
        self.account.exceeded = False

    def close(self, *, well: bool = False) -> None:
        """The guest is gone: nothing may reach its memory, nobody holds bytes for it.

        `well`: it ended by itself, so that what it sent for its effect alone may still be sent.
        """
        give_up = "leave" if well else "abandon"
        self.memory.close()
        if self.items:
            for item in self.items.values():
                if type(item) is Body:
                    if item is not self.downstream.body:  # the connection's own, it reads on
                        item.discard()
                elif (abandon := getattr(item, give_up, None)) is not None:
                    abandon()
            self.items.clear()
        if self.held:
            self.hold(-self.held)


def sandbox_maker(
    *,
    service: Service,
    version: int,
    limits: Limits,
    ledger: Ledger,
    log_line: LogLine,
    clock_resolution_ns: int,
    capabilities: Capabilities = NO_CAPABILITIES,
    service_id: str = "",
    staged: bool = False,
) -> Callable[[Downstream], Sandbox]:
    """Makes sandboxes of one service version, which share what does not change between them.

    A class of its own holds the constants, so that each sandbox stores four values and not nine
    (measured: 0.4 us instead of 0.8, its account and its table included).
    """
    host_memory = limits.host_memory

    class Items(HandleTable[Any]):
        ceiling = min(HANDLE_LOT, limits.handles)

        def __init__(self) -> None:
            """The ceiling stands in the class."""

    class VersionSandbox(Sandbox):
        def __init__(self, downstream: Downstream) -> None:
            self.downstream = downstream
            self.account = Account(ledger, host_memory)
            self.limits_hit = {}
            self.extras = {}
            self.items = Items()

    VersionSandbox.service = service
    VersionSandbox.version = version
    VersionSandbox.service_id = service_id
    VersionSandbox.staged = staged
    VersionSandbox.limits = limits
    VersionSandbox.log_line = staticmethod(log_line)
    VersionSandbox.clock_resolution_ns = clock_resolution_ns
    VersionSandbox.capabilities = capabilities
    return VersionSandbox

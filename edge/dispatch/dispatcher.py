"""Dispatcher: routes a request, admits it, and swaps snapshots under running traffic.

Admission is a sandbox that waits for a further request, a slot for a fresh one, a place in a
bounded queue, or a 503: a service may hold its share of the worker's slots, everybody together all
of them, and nobody waits longer than the service allows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter_ns, time

from edge.abi.sandbox import Sandbox
from edge.dispatch import pages, pressure
from edge.dispatch.canary import place_canaries
from edge.dispatch.deployed import Deployed
from edge.dispatch.idle import Idle
from edge.dispatch.linking import (
    EMPTY,
    ArtifactCheck,
    Equip,
    Linker,
    Prepared,
    no_equipment,
    template_in_use,
)
from edge.dispatch.reports import Reports
from edge.dispatch.visit import Visit
from edge.http import cdn_loop
from edge.http.body import Ledger
from edge.model.route import Miss
from edge.model.service import Version
from edge.model.snapshot import Snapshot
from edge.model.units import write_bytes, write_duration
from edge.outcome import Ending, Outcome
from edge.runtime.driver import Runtime
from edge.runtime.guest import Guest
from edge.server.exchange import Exchange
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.layout import (
    NO_SERVICE_BLOCK,
    Gauge,
    Rejection,
    Total,
    ending_index,
    method_index,
)
from edge.telemetry.shared import WorkerCells

log = logging.getLogger("edge.dispatch")

SWEEP_SECONDS = 0.02  # how late a queued request may learn that it waited too long


class Dispatcher:
    """One per worker.  `handle` is the handler that connections are given."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        cells: WorkerCells,
        access: AccessLog,
        guest_log: GuestLog,
        loop: asyncio.AbstractEventLoop,
        memory_budget: int,
        exact_codes: bool = False,
        equip: Equip = no_equipment,
    ) -> None:
        """`memory_budget`: bytes that all sandboxes of this worker may hold together.

        `equip` tells what guests of a version can reach besides their client.
        """
        self.runtime = runtime
        self.access = access
        self.ledger = Ledger()
        self.generation = 0
        self.loop = loop
        self.idle = Idle(self)
        self.streaming: dict[Visit, None] = {}  # whose guests have ended, and responses have not
        self._draining = False
        self.reports = Reports(loop.time)
        self._cells = cells
        self._guest_log = guest_log
        self.memory_budget = memory_budget
        self._linker = Linker(self, cells, equip, exact_codes=exact_codes)
        self._slots = runtime.pool.slots
        self._no_service = cells.block(NO_SERVICE_BLOCK, exact_codes=exact_codes)
        self._served = EMPTY
        self._routes = EMPTY.routes  # of that, for every request
        self._deployed = EMPTY.deployed
        self._retired: list[Deployed] = []  # until requests that began in an older snapshot end
        self._queues: dict[Deployed, None] = {}  # those with waiting visits, in turn
        self._queue_depth = 0
        self._sweep: asyncio.TimerHandle | None = None
        runtime.on_memory = self.relieve_memory

    # Snapshots ------------------------------------------------------------------------------

    def prepare(
        self, snapshot: Snapshot, artifact_of: ArtifactCheck, *, keep: bool = False
    ) -> Prepared:
        """Load and link what is new of a snapshot.  Raises ConfigError; the old one serves on.

        `keep`: see `Linker.link`.
        """
        return self._linker.link(snapshot, artifact_of, self._served, keep=keep)

    def needs_artifact(self, version: Version) -> bool:
        """Whether `prepare` would ask for the compiled module of a version."""
        return not version.refused and template_in_use(version, self._served) is None

    def commit(self, prepared: Prepared) -> None:
        """Swap one reference.  Requests under way end in the version they began in."""
        kept = set(prepared.deployed)
        self._retired += [deployed for deployed in self._deployed if deployed not in kept]
        before, self._deployed = self._deployed, prepared.deployed
        self._served = prepared
        self._routes = prepared.routes
        place_canaries(prepared.deployed)
        for deployed in before:
            if deployed not in kept:
                deployed.serves = False
                self.idle.dismiss(deployed)
        self.publish()
        self.generation = prepared.generation
        self._cells.set(Gauge.GENERATION, prepared.generation)

    # Requests -------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        """Take one request whose head is complete.  Never raises for what a client can cause."""
        found = self._routes.match(exchange.host, exchange.path)
        if isinstance(found, Miss):
            self._no_route(exchange, found)
            return
        deployed = self._deployed[found]
        if deployed.canary is not None and deployed.canary.takes(exchange.client_address):
            deployed = deployed.canary.deployed
        visit = Visit(self, exchange, deployed)
        if not deployed.runs:
            visit.refuse(self._why_not(deployed))
        elif exchange.cdn_loop and cdn_loop.is_loop(exchange.cdn_loop, deployed.name.encode()):
            visit.refuse(Outcome(Ending.LOOP, "the request has passed this service too often"))
        elif deployed.idle and self._hand_over(visit):
            pass
        elif (  # `_has_slot`, spelt out
            (tenant := deployed.tenant).active < deployed.cap
            and (runtime := self.runtime).live < self._slots
            and runtime.memory_bytes + self.ledger.held <= self.memory_budget
        ):
            tenant.active += 1
            deployed.active += 1
            self._start(visit)
        else:
            self._admit(visit)

    def handle_invoke(self, exchange: Exchange, service: str, number: int) -> bool:
        """Take one request for a version, whatever its routes and its role are.

        False, with nothing done, when this worker does not serve that version.
        """
        deployed = self._served.by_number.get((service, number))
        if deployed is None:
            return False
        visit = Visit(self, exchange, deployed)
        if not deployed.runs:
            visit.refuse(self._why_not(deployed))
        elif exchange.cdn_loop and cdn_loop.is_loop(exchange.cdn_loop, deployed.name.encode()):
            visit.refuse(Outcome(Ending.LOOP, "the request has passed this service too often"))
        else:
            self._admit(visit)  # always a sandbox of its own
        return True

    def _hand_over(self, visit: Visit) -> bool:
        """Give a request to a sandbox that waits for one; True when it needs no other."""
        if not visit.accept() or self.idle.take(visit.deployed).give(visit):
            return True
        visit.given = None
        return False

    def _admit(self, visit: Visit) -> None:
        """A fresh sandbox, now or when there is a slot: those that are idle leave theirs."""
        deployed = visit.deployed
        if self.is_pressed:
            self.relieve_memory()
        while self.idle and not self._has_slot(deployed):
            # Over its share, a service gets room from its own other versions alone.
            tenant = deployed.tenant if deployed.tenant.active >= deployed.cap else None
            if not self.idle.make_room(tenant):
                break
        if self._has_slot(deployed):
            deployed.take_slot()
            self._start(visit)
        else:
            self._queue(visit)

    def readmit(self, visit: Visit) -> None:
        """A request that was given to a sandbox and not taken: a fresh one is to serve it."""
        self.loop.call_soon(self._readmit, visit)

    def _readmit(self, visit: Visit) -> None:
        if visit.outcome is None:  # else its client has left
            visit.given = None
            self._safely(self._admit, visit)

    def _start(self, visit: Visit) -> None:
        """Start a visit whose slot has been counted; a fault of ours gives the slot back."""
        try:
            visit.start()
        except BaseException:
            if visit.guest is None and visit.outcome is None:
                self.release(visit.deployed)
            raise

    def _has_slot(self, deployed: Deployed) -> bool:
        runtime = self.runtime
        return (
            deployed.tenant.active < deployed.cap
            and runtime.live < self._slots
            and runtime.memory_bytes + self.ledger.held <= self.memory_budget
        )

    def _why_not(self, deployed: Deployed) -> Outcome:
        if deployed.version.quarantined:
            self._cells.add(Rejection.QUARANTINED)
            return Outcome(Ending.QUARANTINED, "this version ended several workers")
        return Outcome(Ending.UNAVAILABLE, deployed.version.refused)

    def release(self, deployed: Deployed) -> None:
        """A sandbox of `deployed` has ended: its slot goes to the next that waits."""
        deployed.active -= 1
        deployed.tenant.active -= 1
        if self._queues:
            self.loop.call_soon(self._admit_waiting)

    def log_line(self, box: Sandbox, stream: str, text: bytes, cut: int) -> None:
        """A line that a guest wrote, `cut` bytes of it left out."""
        self._guest_log.line(
            time(), box.service.name, str(box.version), box.downstream.request_id, stream, text
        )

    # Waiting for a slot ---------------------------------------------------------------------

    def _queue(self, visit: Visit) -> None:
        deployed = visit.deployed
        if self._queue_depth >= self._slots or len(deployed.waiting) >= deployed.cap:
            self._cells.add(Rejection.QUEUE_FULL)
            visit.refuse(self._overload(deployed, "the queue for a sandbox is full"))
            return
        visit.queued_at = perf_counter_ns()
        visit.deadline = self.loop.time() + deployed.limits.queue_wait
        visit.exchange.on_gone = visit.client_gone
        visit.exchange.on_end = visit.exchange_ended
        deployed.waiting.append(visit)
        self._queues[deployed] = None
        self._queue_depth += 1
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP_SECONDS, self._expire_waiting)

    def forget(self, visit: Visit) -> None:
        """A visit that waits will not be started."""
        self._queue_depth -= 1
        visit.deployed.waiting.remove(visit)
        if not visit.deployed.waiting:
            self._queues.pop(visit.deployed, None)

    def _admit_waiting(self) -> None:
        """Give free slots away, one service after the other."""
        progress = True
        while progress and self._queues:
            progress = False
            for deployed in list(self._queues):
                if deployed.waiting and self._has_slot(deployed):
                    visit = self._next_in_line(deployed)
                    deployed.take_slot()
                    self._safely(self._start, visit)
                    progress = True

    def _next_in_line(self, deployed: Deployed) -> Visit:
        visit = deployed.waiting[0]
        self.forget(visit)
        visit.queue_ns += perf_counter_ns() - visit.queued_at
        visit.queued_at = 0
        return visit

    def _safely(self, act: Callable[[Visit], None], visit: Visit) -> None:
        """Do it with a request that had waited: no connection is on the stack to catch a fault."""
        try:
            act(visit)
        except Exception:
            self._cells.add(Total.FAULTS)
            log.exception("starting a request that had waited failed")
            visit.exchange.respond_error(500, "The server failed.", Ending.FAULT.value)

    def next_waiting(self, deployed: Deployed) -> Visit | None:
        """The request that has waited longest for a sandbox of this version, no longer queued."""
        while deployed.waiting:
            visit = self._next_in_line(deployed)
            if visit.accept():
                return visit
        return None

    def others_wait(self, deployed: Deployed) -> bool:
        """Whether another version or service would get the slot of a sandbox of this version."""
        mine = deployed.tenant
        return any(
            other is not deployed and (other.tenant is mine or other.tenant.active < other.cap)
            for other in self._queues
        )

    def _expire_waiting(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for deployed in list(self._queues):
            while deployed.waiting and deployed.waiting[0].deadline <= now:
                visit = self._next_in_line(deployed)
                self._cells.add(Rejection.QUEUE_TIMEOUT)
                visit.refuse(
                    self._overload(deployed, "no sandbox became free in time", visit.queue_ns)
                )
        self._admit_waiting()
        if self._queues:
            self._sweep = self.loop.call_later(SWEEP_SECONDS, self._expire_waiting)

    def _overload(self, deployed: Deployed, detail: str, waited_ns: int = 0) -> Outcome:
        if deployed.tenant.active >= deployed.cap:
            return Outcome(
                Ending.OVERLOAD, detail, f"{deployed.tenant.active} sandboxes", f"{deployed.cap}",
                deployed.setting("slots"),
            )  # fmt: skip
        if self.runtime.live >= self._slots:
            return Outcome(
                Ending.OVERLOAD, detail, f"{self.runtime.live} sandboxes", f"{self._slots}",
                "pool.slots",
            )  # fmt: skip
        held = self.runtime.memory_bytes + self.ledger.held
        if held > self.memory_budget:
            return Outcome(
                Ending.OVERLOAD, detail, write_bytes(held), write_bytes(self.memory_budget),
                "pool.memory_share",
            )  # fmt: skip
        return Outcome(
            Ending.OVERLOAD,
            detail,
            write_duration(waited_ns / 1e9),
            write_duration(deployed.limits.queue_wait),
            deployed.setting("queue_wait"),
        )

    # The rest -------------------------------------------------------------------------------

    def _no_route(self, exchange: Exchange, miss: Miss) -> None:
        outcome = Outcome(
            Ending.NO_ROUTE,
            "no service for this path" if miss is Miss.PATH else "no service for this host",
        )
        exchange.on_end = lambda: self._record_unserved(exchange, outcome)
        pages.answer_no_route(exchange, host_known=miss is Miss.PATH)

    def _record_unserved(self, exchange: Exchange, outcome: Outcome) -> None:
        wall_ns = perf_counter_ns() - exchange.started_ns
        start = exchange.response_start_ns
        self._no_service.record(
            method_index(exchange.method), exchange.status, ending_index(outcome.ending), wall_ns,
            start - exchange.started_ns if start else 0, 0, 0, 0,
            exchange.bytes_in, exchange.bytes_out, 0, 0,
        )  # fmt: skip
        if self.access.enabled:
            self.access.record(
                time(), exchange.request_id, pages.address_text(exchange.client_address), "", "",
                exchange.method, exchange.host, exchange.target, exchange.status, outcome,
                0, wall_ns, 0, exchange.bytes_in, exchange.bytes_out, 0, 0,
            )  # fmt: skip

    def publish(self) -> None:
        """Write this worker's gauges to the shared cells; called by a timer."""
        cells, runtime = self._cells, self.runtime
        cells.fold()
        cells.set(Gauge.SANDBOXES_LIVE, runtime.live)
        cells.set(Gauge.SANDBOXES_PARKED, runtime.parked)
        cells.set(Gauge.QUEUE_DEPTH, self._queue_depth)
        cells.set(Gauge.GUEST_MEMORY_BYTES, runtime.memory_bytes)
        cells.set(Gauge.HOST_BYTES, self.ledger.held)
        in_flight: dict[int, int] = {}
        # By series: a new limit makes a new `Deployed` that counts in the same block.
        for deployed in (*self._retired, *self._deployed):
            series = deployed.version.series
            busy = deployed.active - len(deployed.idle) + len(deployed.waiting)
            in_flight[series] = in_flight.get(series, 0) + busy
        for series, count in in_flight.items():
            self._cells.block(series).set_in_flight(count)
        for deployed in [d for d in self._retired if not d.active and not d.waiting]:
            self._retired.remove(deployed)
            deployed.let_go()

    @property
    def draining(self) -> bool:
        """True from when the worker is to end: no sandbox is kept for a further request."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        if draining:
            self.idle.dismiss()

    @property
    def is_pressed(self) -> bool:
        """True while all sandboxes together hold more than they may."""
        return self.runtime.memory_bytes + self.ledger.held > self.memory_budget

    def relieve_memory(self) -> None:
        """Over the budget: end what is idle, then the largest of the service that holds most.

        That is a guest, or a response that its client takes slowly after the guest has ended.
        """
        while self.idle and self.is_pressed and self.idle.make_room():
            pass
        while self.is_pressed:
            holders: list[Guest | Visit] = [*self.runtime.lasting]
            holders += [visit for visit in self.streaming if visit.memory_held]
            victim = pressure.largest(holders)
            if victim is None:
                return
            self._cells.add(Rejection.MEMORY)
            held = self.runtime.memory_bytes + self.ledger.held
            outcome = pressure.outcome(held, self.memory_budget)
            if isinstance(victim, Visit):
                victim.break_off(outcome)
            else:
                self.runtime.end(victim, outcome)

    def shut_down(self) -> None:
        """The drain deadline has passed: end every guest that is left."""
        for guest in list(self.runtime.lasting):
            self.runtime.end(guest, Outcome(Ending.SHUTDOWN, "the server is going away"))

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

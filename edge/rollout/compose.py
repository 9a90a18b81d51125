"""Puts the control plane together from its parts.  It starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge.admin.status import Status
from edge.catalogue.tidy import Tidier
from edge.clock import SystemClock
from edge.rollout.baselines import Baselines
from edge.rollout.canaries import Canaries
from edge.rollout.changes import Changes
from edge.rollout.eraser import Eraser
from edge.rollout.errands import Errands
from edge.rollout.inspector import Inspector
from edge.rollout.invoke import Invoker
from edge.rollout.lines import LineBook
from edge.rollout.loader import Loader
from edge.rollout.plane import Plane
from edge.rollout.publisher import Publisher
from edge.rollout.refresher import Refresher
from edge.rollout.retention import Retention
from edge.rollout.stats import Stats
from edge.rollout.storage import Storage
from edge.runtime.compile import Compiler
from edge.stores.kv import KvEngine
from edge.supervisor.breaker import Breaker
from edge.supervisor.fleet import Fleet
from edge.supervisor.watching import WatchPorts
from edge.supervisor.world import WorldBuilder
from edge.telemetry.directory import BlockDirectory
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of the supervisor that a control plane stands on."""

    fleet: Fleet
    breaker: Breaker
    builder: WorldBuilder
    compiler: Compiler
    cells: SharedCells
    directory: BlockDirectory
    watch: WatchPorts
    counters: SupervisorCounters
    kv: KvEngine
    known_imports: Mapping[tuple[str, str], str]
    report: Callable[[], Status]


def control_plane(storage: Storage, loader: Loader, server: Server) -> tuple[Plane, Publisher]:
    """The plane, and what the first world is made with."""
    catalogue, fleet = storage.catalogue, server.fleet
    publisher = Publisher(
        catalogue, storage.packages, loader, server.builder, fleet, server.breaker
    )
    errands = Errands()
    baselines = Baselines(server.cells)
    retention = Retention(Tidier(catalogue, storage.packages))
    storage.packages.on_left = retention.pruned
    eraser = Eraser(catalogue, server.kv)

    def pruned() -> None:
        retention.pruned()
        eraser.wake()

    changes = Changes(
        catalogue,
        publisher,
        fleet,
        errands,
        baselines,
        server.counters,
        keep_versions=loader.config.settings.deploy.keep_versions,
        pruned=pruned,
    )
    book = LineBook(server.watch.follow)
    server.watch.on_batch = book.take
    plane = Plane(
        fleet=fleet,
        loader=loader,
        errands=errands,
        changes=changes,
        canaries=Canaries(catalogue, changes, fleet, baselines, server.counters),
        refresher=Refresher(catalogue, publisher, errands),
        retention=retention,
        eraser=eraser,
        inspector=Inspector(server.compiler, server.known_imports, lambda: loader.config.limits),
        invoker=Invoker(
            catalogue,
            fleet,
            publisher,
            errands,
            server.watch,
            server.cells,
            book,
            SystemClock().monotonic,
        ),
        book=book,
        stats=Stats(server.cells, server.directory),
        report=server.report,
    )
    return plane, publisher

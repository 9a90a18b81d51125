"""Starts the worker of a slot with what is its own: sockets, counters, log and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.control import Inherited, Init, Sizing
from edge.settings import Settings
from edge.supervisor.process import WorkerProcess
from edge.supervisor.sockets import PublicSockets
from edge.supervisor.watching import WatchPorts
from edge.telemetry.shared import SharedCells


@dataclass(frozen=True, slots=True)
class Launch:
    """What all workers have in common."""

    workers: int
    sockets: PublicSockets
    cells: SharedCells
    log_fd: int
    sizing: Sizing
    rates: Path
    own_addresses: tuple[str, ...]
    watch: WatchPorts

    async def start(self, worker: WorkerProcess, settings: Settings) -> None:
        """Start the process.  OSError when there can be none."""
        rows = self.sockets.slots[worker.slot]
        listeners = tuple(
            Inherited(sock.fileno(), str(listen), listen.proxy_protocol)
            for sock, listen in zip(rows, self.sockets.addresses, strict=True)
        )
        theirs = self.watch.open(worker.slot)
        init = Init(
            slot=worker.slot,
            workers=self.workers,
            blocks=self.cells.blocks,
            cells_fd=self.cells.fd,
            log_fd=self.log_fd,
            listeners=listeners,
            sizing=self.sizing,
            settings=settings,
            rates=self.rates,
            own_addresses=self.own_addresses,
            watch_fd=theirs.fileno(),
        )
        inherit = [
            *(self.cells.fd, self.log_fd, theirs.fileno()),
            *(item.fd for item in listeners),
        ]
        try:
            await worker.start(init, inherit)
        finally:
            theirs.close()

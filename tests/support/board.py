"""Two workers' counters with everything that renders them, for tests of what a scraper reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as parse

from edge.telemetry.collector import EdgeCollector
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.exposition import Exposition
from edge.telemetry.process_stats import ProcessStats
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Board:
    """Two workers, a directory and an exposition."""

    def __init__(self, blocks: int = 8, *, exact_codes: bool = False) -> None:
        self.cells = SharedCells.create(2, blocks)
        self.directory = BlockDirectory(self.cells)
        self.supervisor = SupervisorCounters()
        self.exposition = Exposition(
            EdgeCollector(
                self.cells,
                self.directory,
                self.supervisor,
                build={"version": "1.2", "wasmtime": "50", "python": "3.11"},
                exact_codes=exact_codes,
                monotonic_ns=lambda: 5_000_000_000,
                read_process=lambda pid: ProcessStats(1000 + pid, 2.5, 12) if pid == 71 else None,
            )
        )
        self.exact_codes = exact_codes

    def count(self, slot: int, series: Series, status: int = 200, memory: int = 65536) -> None:
        block = self.cells.worker(slot).block(
            self.directory.assign(series), exact_codes=self.exact_codes
        )
        block.record(0, status, 0, 20_000, 15_000, 10_000, 9_000, memory, 3, 11, 7, 0)

    def release(self, series: Series) -> None:
        for slot in range(self.cells.workers):  # as a worker does before it is done with a version
            self.cells.worker(slot).fold()
        self.directory.release(series)

    def samples(self) -> Samples:
        text, content_type = self.exposition.render()
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(text.decode())
            for sample in family.samples
        }


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))

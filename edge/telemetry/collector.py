"""Turns the shared cells into Prometheus families when somebody scrapes.  Holds no numbers itself.

Runs in the supervisor.  With 254 services it takes tenths of a second: call it from a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from edge.outcome import Ending
from edge.telemetry import layout, metrics
from edge.telemetry.directory import BlockDirectory, Series
from edge.telemetry.histogram import buckets
from edge.telemetry.layout import Gauge, Refusal, Rejection, SoftLimit, Total, WorkerState
from edge.telemetry.metrics import Kind, Metric
from edge.telemetry.process_stats import ProcessStats, read_process
from edge.telemetry.shared import SharedCells
from edge.telemetry.supervisor_counters import SupervisorCounters

_LIMIT_OF_ENDING = {  # endings that are a limit reached, and the limit's label
    Ending.CPU_LIMIT: "cpu",
    Ending.WALL_LIMIT: "wall",
    Ending.MEMORY_LIMIT: "memory",
    Ending.MEMORY_PRESSURE: "memory_pressure",
    Ending.STACK_LIMIT: "stack",
    Ending.TABLE_LIMIT: "table",
    Ending.OUTPUT_LIMIT: "output",
    Ending.BODY_LIMIT: "body",
}
_ENDING_LIMITS = [
    (layout.OUTCOMES + layout.ending_index(ending), label)
    for ending, label in _LIMIT_OF_ENDING.items()
]
_CLASS_LABELS = ("none", "1xx", "2xx", "3xx", "4xx", "5xx", "5xx", "5xx", "5xx", "5xx")

_BACKEND_LABELS = ("failed", "1xx", "2xx", "3xx", "4xx", "5xx")

_WORKER_GAUGES: Mapping[Gauge, Metric] = {
    Gauge.CONNECTIONS: metrics.CONNECTIONS,
    Gauge.REQUESTS_IN_FLIGHT: metrics.WORKER_REQUESTS,
    Gauge.QUEUE_DEPTH: metrics.QUEUE_DEPTH,
    Gauge.SLOTS: metrics.SLOTS,
    Gauge.SANDBOXES_LIVE: metrics.SANDBOXES,
    Gauge.SANDBOXES_PARKED: metrics.PARKED,
    Gauge.GUEST_MEMORY_BYTES: metrics.GUEST_BYTES,
    Gauge.HOST_BYTES: metrics.HOST_BYTES,
    Gauge.GENERATION: metrics.GENERATION,
}
_SERVICE_SUMS: tuple[tuple[Metric, int, float], ...] = (
    (metrics.REQUEST_BYTES, layout.BYTES_IN, 1),
    (metrics.RESPONSE_BYTES, layout.BYTES_OUT, 1),
    (metrics.GUEST_CPU_TOTAL, layout.CPU_SUM, 1e9),
    (metrics.HOSTCALLS, layout.HOSTCALLS, 1),
    (metrics.LOG_BYTES_DROPPED, layout.LOG_BYTES_DROPPED, 1),
)
_SERVICE_HISTOGRAMS: tuple[tuple[Metric, int, int, int, float], ...] = (
    (metrics.REQUEST_DURATION, layout.DURATION, layout.TIME_CELLS, layout.DURATION_SUM, 1e9),
    (metrics.RESPONSE_START, layout.START, layout.TIME_CELLS, layout.START_SUM, 1e9),
    (
        metrics.BACKEND_START,
        layout.BACKEND_START,
        layout.TIME_CELLS,
        layout.BACKEND_START_SUM,
        1e9,
    ),
    (metrics.QUEUE_WAIT, layout.QUEUE, layout.TIME_CELLS, layout.QUEUE_SUM, 1e9),
    (metrics.REQUEST_CPU, layout.CPU, layout.TIME_CELLS, layout.CPU_SUM, 1e9),
    (metrics.GUEST_MEMORY, layout.MEMORY, layout.MEMORY_CELLS, layout.MEMORY_SUM, 1),
)

Rows = Mapping[str, list[int]]


class EdgeCollector(Collector):
    """The one collector of this server; register it in a registry of its own."""

    def __init__(
        self,
        cells: SharedCells,
        directory: BlockDirectory,
        supervisor: SupervisorCounters,
        *,
        build: Mapping[str, str],
        exact_codes: bool = False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        read_process: Callable[[int], ProcessStats | None] = read_process,
    ) -> None:
        """`build` has the labels of `edge_build_info`: version, wasmtime, python."""
        self._cells = cells
        self._directory = directory
        self._supervisor = supervisor
        self._build = build
        self._exact_codes = exact_codes
        self._monotonic_ns = monotonic_ns
        self._read_process = read_process

    def collect(self) -> Iterator[Family]:
        """All families, from the numbers of this instant."""
        assigned = self._directory.assigned
        yield from self._services(assigned)
        yield from self._workers()
        yield from self._of_supervisor()
        yield _family(
            metrics.SERVICE_INFO,
            ((labels, 1) for labels in {(s.service, s.version, s.sha256): None for s in assigned}),
        )
        yield _family(
            metrics.SERIES,
            ((("used",), len(assigned)), (("limit",), self._directory.capacity)),
        )
        yield _family(metrics.SERIES_FOLDED, [((), self._directory.folded)])

    def _services(self, assigned: dict[Series, int]) -> Iterator[Family]:
        blocks = {series: block for block, series in self._directory.reserved.items()} | assigned
        # By their labels: services of one name, one going and one coming, are counted together.
        versions: dict[tuple[str, str], list[int]] = {}
        owners: set[tuple[str, str]] = set()
        services: dict[str, list[int]] = {}
        in_flight: dict[str, int] = {}
        for series, block in blocks.items():
            row = self._cells.block_sum(block, exact_codes=self._exact_codes)
            if series not in assigned and not any(row):
                continue  # nothing was ever refused or folded
            label = series.service, series.version
            versions[label] = _sum(row, versions.get(label))
            if series.owner not in owners:
                owners.add(series.owner)
                row = _sum(row, self._directory.retired(*series.owner))
            services[series.service] = _sum(row, services.get(series.service))
            for slot in range(self._cells.workers):
                index = self._cells.base(slot) + layout.IN_FLIGHT + block
                in_flight[series.service] = (
                    in_flight.get(series.service, 0) + self._cells.cells[index]
                )
        yield _family(metrics.REQUESTS, _requests(services))
        if self._exact_codes:
            yield _family(
                metrics.RESPONSES,
                (
                    ((service, f"{code:03d}" if code else "none"), count)
                    for service, row in services.items()
                    for code, count in enumerate(row[layout.CODES :])
                    if count
                ),
            )
        yield _family(
            metrics.OUTCOME,
            (
                ((*label, ending.value), row[layout.OUTCOMES + index])
                for label, row in versions.items()
                for index, ending in enumerate(layout.ENDINGS)
                if row[layout.OUTCOMES + index]
            ),
        )
        yield _family(metrics.LIMIT_HITS, _limit_hits(services))
        yield _family(metrics.BACKEND_REQUESTS, self._backend_requests(services))
        yield _family(metrics.BACKEND_FAILURES, _backend_failures(services))
        yield _family(metrics.KV_OPERATIONS, _kv_operations(services))
        yield _family(metrics.IN_FLIGHT, (((name,), n) for name, n in in_flight.items()))
        for metric, cell, scale in _SERVICE_SUMS:
            yield _family(metric, (((name,), row[cell] / scale) for name, row in services.items()))
        for metric, start, size, total, scale in _SERVICE_HISTOGRAMS:
            family = _histogram(metric)
            for name, row in services.items():
                cells = row[start : start + size]
                if metric is metrics.QUEUE_WAIT:  # only waits are recorded: the rest are zeros
                    requests = sum(row[layout.REQUESTS : layout.OUTCOMES])
                    cells[0] += max(requests - sum(cells), 0)
                family.add_metric((name,), buckets(cells, metric.bounds), row[total] / scale)
            yield family

    def _backend_requests(self, services: Rows) -> Iterator[tuple[tuple[str, ...], int]]:
        for service, row in services.items():
            for slot, name in self._directory.backend_names(service).items():
                start = layout.BACKENDS + slot * layout.BACKEND_CLASSES
                for code, label in enumerate(_BACKEND_LABELS):
                    if row[start + code]:
                        yield (service, name, label), row[start + code]

    def _workers(self) -> Iterator[Family]:
        workers = [self._cells.worker(slot) for slot in range(self._cells.workers)]
        living = [worker for worker in workers if worker.get(Gauge.PID)]
        for gauge, metric in _WORKER_GAUGES.items():
            yield _family(metric, (((str(w.slot),), w.get(gauge)) for w in living))
        yield _family(
            metrics.WORKER_READY,
            (((str(w.slot),), w.get(Gauge.STATE) == WorkerState.READY) for w in workers),
        )
        now = self._monotonic_ns()
        yield _family(
            metrics.HEARTBEAT_AGE,
            (
                ((str(w.slot),), max(now - w.get(Gauge.HEARTBEAT_NS), 0) / 1e9)
                for w in living
                if w.get(Gauge.HEARTBEAT_NS)
            ),
        )
        found = {str(w.slot): self._read_process(w.get(Gauge.PID)) for w in living}
        stats = {slot: stat for slot, stat in found.items() if stat is not None}
        yield _family(metrics.WORKER_RSS, (((n,), s.resident_bytes) for n, s in stats.items()))
        yield _family(metrics.WORKER_CPU, (((n,), s.cpu_seconds) for n, s in stats.items()))
        yield _family(metrics.WORKER_FDS, (((n,), s.open_fds) for n, s in stats.items()))

        lag = _histogram(metrics.LOOP_LAG)
        instantiate = [0] * (layout.TIME_CELLS + 1)
        for worker in workers:
            cells = worker.histogram(layout.LOOP_LAG, layout.TIME_CELLS + 1)
            shown = buckets(cells[:-1], metrics.LOOP_LAG.bounds)
            lag.add_metric((str(worker.slot),), shown, cells[-1] / 1e9)
            cells = worker.histogram(layout.INSTANTIATE, layout.TIME_CELLS + 1)
            instantiate = [a + b for a, b in zip(instantiate, cells, strict=True)]
        yield lag
        family = _histogram(metrics.INSTANTIATE)
        shown = buckets(instantiate[:-1], metrics.INSTANTIATE.bounds)
        family.add_metric((), shown, instantiate[-1] / 1e9)
        yield family

        def total(cell: Total | Rejection | Refusal) -> int:
            return sum(worker.get(cell) for worker in workers)

        yield _family(metrics.REJECTED, (((cell.label,), total(cell)) for cell in Rejection))
        yield _family(
            metrics.CONNECTIONS_REFUSED, (((cell.label,), total(cell)) for cell in Refusal)
        )
        yield _family(
            metrics.UPSTREAM_CONNECTIONS,
            (
                ((str(w.slot), state), w.get(gauge))
                for w in living
                for state, gauge in (
                    ("open", Gauge.UPSTREAM_OPEN),
                    ("idle", Gauge.UPSTREAM_IDLE),
                )
            ),
        )

        def newest(gauge: Gauge) -> int:
            return max((worker.get(gauge) for worker in living), default=0)

        yield _family(
            metrics.RATE_ENTRIES,
            [
                (("used",), newest(Gauge.RATE_ENTRIES)),
                (("limit",), newest(Gauge.RATE_CAPACITY)),
            ],
        )
        yield _family(metrics.RATE_EVICTED, [((), newest(Gauge.RATE_EVICTED))])
        yield _family(metrics.UPSTREAM_OPENED, [((), total(Total.UPSTREAM_OPENED))])
        yield _family(metrics.UPSTREAM_REUSED, [((), total(Total.UPSTREAM_REUSED))])
        yield _family(metrics.CONNECTIONS_ACCEPTED, [((), total(Total.CONNECTIONS_ACCEPTED))])
        yield _family(metrics.FAULTS, [((), total(Total.FAULTS))])
        yield _family(
            metrics.LOG_LINES_DROPPED,
            (
                (("full",), total(Total.LOG_LINES_DROPPED)),
                (("failed",), total(Total.LOG_LINES_FAILED)),
            ),
        )

    def _of_supervisor(self) -> Iterator[Family]:
        own = self._supervisor
        # Copies: the supervisor's loop may add a key while a thread renders these.
        yield _family(metrics.RESTARTS, dict(own.restarts.values).items())
        yield _family(metrics.QUARANTINES, dict(own.quarantines.values).items())
        yield _family(metrics.DEPLOYS, dict(own.deploys.values).items())
        yield _family(metrics.ACTIVATIONS, dict(own.activations.values).items())
        yield _family(metrics.CANARY_ROLLBACKS, dict(own.canary_rollbacks.values).items())
        writes, seconds = own.catalogue()
        yield _family(metrics.CATALOGUE_WRITES, [((), writes)])
        yield _family(metrics.CATALOGUE_WRITE_SECONDS, [((), seconds)])
        yield _family(metrics.RELOADS, dict(own.reloads.values).items())
        yield _family(metrics.RELOAD_OK, [((), own.last_reload_ok)])
        yield _family(metrics.RELOAD_TIME, [((), own.last_reload_ok_at)])
        family = _histogram(metrics.COMPILE)
        shown = buckets(own.compile.cells, metrics.COMPILE.bounds)
        family.add_metric((), shown, own.compile.sum_ns / 1e9)
        yield family
        labels = tuple(self._build.get(name, "") for name in metrics.BUILD_INFO.labels)
        yield _family(metrics.BUILD_INFO, [(labels, 1)])


def _sum(row: list[int], other: list[int] | None) -> list[int]:
    """As long as `row`: that of retired versions has the cells of exact codes, always."""
    return [a + b for a, b in zip(row, other, strict=False)] if other else row


def _family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric) -> HistogramMetricFamily:
    return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _requests(services: Rows) -> Iterator[tuple[tuple[str, ...], int]]:
    for service, row in services.items():
        for method, label in enumerate(layout.METHOD_LABELS):
            start = layout.REQUESTS + method * layout.CLASSES
            classes: dict[str, int] = {}
            for name, count in zip(_CLASS_LABELS, row[start : start + layout.CLASSES], strict=True):
                classes[name] = classes.get(name, 0) + count
            for name, count in classes.items():
                if count:
                    yield (service, name, label), count


def _backend_failures(services: Rows) -> Iterator[tuple[tuple[str, ...], int]]:
    for service, row in services.items():
        for cell, cause in enumerate(layout.BACKEND_CAUSES, layout.CAUSES):
            if row[cell]:
                yield (service, cause), row[cell]


def _kv_operations(services: Rows) -> Iterator[tuple[tuple[str, ...], int]]:
    for service, row in services.items():
        for operation in layout.KvOp:
            for result in layout.KvResult:
                count = row[layout.KV + operation * layout.KV_RESULTS + result]
                if count:
                    yield (service, operation.label, result.label), count


def _limit_hits(services: Rows) -> Iterator[tuple[tuple[str, ...], int]]:
    for service, row in services.items():
        for cell, label in _ENDING_LIMITS:
            if row[cell]:
                yield (service, label), row[cell]
        for limit in SoftLimit:
            if row[layout.LIMITS + limit]:
                yield (service, limit.label), row[layout.LIMITS + limit]

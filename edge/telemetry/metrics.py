"""Every metric of this server, declared once: names, kinds, labels, meaning.  No values here.

Prefix `edge_`, base units, `_total` for counters.  Label values come from the configuration or from
closed lists, never from the wire, so a client cannot grow a series.  `docs/metrics.md` is written
from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from edge.telemetry.histogram import memory_bounds, time_bounds

NO_SERVICE = "_none"
OTHER_SERVICES = "_other"
DYNAMIC_BACKENDS = "_dynamic"
OTHER_BACKENDS = "_other"


class Kind(Enum):
    """Prometheus types we use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric; `bounds` are a histogram's finite upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()


C, G, H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

# Requests, by service ---------------------------------------------------------------------------
REQUESTS = Metric(
    "edge_requests_total", C,
    "Requests finished. code is a class (2xx) or none when no response was sent.",
    ("service", "code", "method"),
)  # fmt: skip
RESPONSES = Metric(
    "edge_responses_total", C,
    "Responses by exact status code; only when the operator asks for exact codes.",
    ("service", "code"),
)  # fmt: skip
REQUEST_DURATION = Metric(
    "edge_request_duration_seconds", H, "From the request's head to the response's last byte.",
    ("service",), time_bounds(26),
)  # fmt: skip
RESPONSE_START = Metric(
    "edge_response_start_seconds", H, "From the request's head to the response's head.",
    ("service",), time_bounds(26),
)  # fmt: skip
QUEUE_WAIT = Metric(
    "edge_queue_wait_seconds", H, "Time a request waited for a sandbox slot; most wait not at all.",
    ("service",), time_bounds(20),
)  # fmt: skip
IN_FLIGHT = Metric(
    "edge_requests_in_flight", G, "Requests running or waiting, as last published by the workers.",
    ("service",),
)  # fmt: skip
OUTCOME = Metric(
    "edge_request_outcome_total", C,
    "How requests ended. A retired version's series go away.",
    ("service", "version", "outcome"),
)  # fmt: skip
LIMIT_HITS = Metric(
    "edge_limit_hits_total", C,
    "Limits reached: those that ended a request, and those that refused one act of a guest.",
    ("service", "limit"),
)  # fmt: skip
REQUEST_BYTES = Metric(
    "edge_request_body_bytes_total", C, "Request body bytes read from clients.", ("service",)
)
RESPONSE_BYTES = Metric(
    "edge_response_body_bytes_total", C, "Response body bytes sent to clients.", ("service",)
)
LOG_BYTES_DROPPED = Metric(
    "edge_guest_log_bytes_dropped_total", C, "Guest log bytes over the service's limit.",
    ("service",),
)  # fmt: skip

# Guests -----------------------------------------------------------------------------------------
REQUEST_CPU = Metric(
    "edge_request_cpu_seconds", H, "CPU time of one sandbox, its hostcalls included.",
    ("service",), time_bounds(22),
)  # fmt: skip
GUEST_CPU_TOTAL = Metric(
    "edge_guest_cpu_seconds_total", C, "CPU time of all sandboxes, their hostcalls included.",
    ("service",),
)  # fmt: skip
GUEST_MEMORY = Metric(
    "edge_guest_memory_peak_bytes", H, "Largest linear memory of one sandbox.",
    ("service",), memory_bounds(17),
)  # fmt: skip
HOSTCALLS = Metric("edge_hostcalls_total", C, "Calls from guests into the host.", ("service",))
INSTANTIATE = Metric(
    "edge_instantiate_seconds", H, "Time to make a fresh sandbox from its template.",
    (), time_bounds(18),
)  # fmt: skip

# What guests reach -------------------------------------------------------------------------------
BACKEND_REQUESTS = Metric(
    "edge_backend_requests_total", C,
    "Requests to backends. code is the class of the response, or failed without one.",
    ("service", "backend", "code"),
)  # fmt: skip
BACKEND_FAILURES = Metric(
    "edge_backend_failures_total", C, "Requests to backends without a response, by cause.",
    ("service", "cause"),
)  # fmt: skip
BACKEND_START = Metric(
    "edge_backend_response_start_seconds", H,
    "From a guest's request to a backend to the head of its response.",
    ("service",), time_bounds(26),
)  # fmt: skip
KV_OPERATIONS = Metric(
    "edge_kv_operations_total", C,
    "Operations on KV stores: refused is the guest's doing, error is ours.",
    ("service", "operation", "result"),
)  # fmt: skip
RATE_ENTRIES = Metric(
    "edge_rate_entries", G, "Rate counters and penalties that are kept (state used), and room for "
    "them (state limit).", ("state",),
)  # fmt: skip
RATE_EVICTED = Metric(
    "edge_rate_entries_evicted_total", C,
    "Rate counters and penalties that were dropped while they still counted: the room was full.",
)  # fmt: skip
UPSTREAM_CONNECTIONS = Metric(
    "edge_upstream_connections", G, "Connections to backends (state open) and unused ones (idle).",
    ("worker", "state"),
)  # fmt: skip
UPSTREAM_OPENED = Metric(
    "edge_upstream_connections_opened_total", C, "Connections made to backends."
)
UPSTREAM_REUSED = Metric(
    "edge_upstream_connections_reused_total", C, "Requests to backends on a connection in place."
)

# Admission, connections and workers -------------------------------------------------------------
REJECTED = Metric("edge_rejected_total", C, "Requests that admission turned away.", ("reason",))
CONNECTIONS = Metric("edge_connections", G, "Open client connections.", ("worker",))
CONNECTIONS_ACCEPTED = Metric("edge_connections_accepted_total", C, "Connections accepted.")
CONNECTIONS_REFUSED = Metric(
    "edge_connections_refused_total", C, "Connections closed before their first request.",
    ("reason",),
)  # fmt: skip
LOOP_LAG = Metric(
    "edge_loop_lag_seconds", H, "By how much a worker's event loop was late for a timer.",
    ("worker",), time_bounds(20),
)  # fmt: skip
WORKER_REQUESTS = Metric(
    "edge_worker_requests_in_flight", G, "Requests running or waiting.", ("worker",)
)
QUEUE_DEPTH = Metric("edge_queue_depth", G, "Requests waiting for a slot.", ("worker",))
SLOTS = Metric("edge_sandbox_slots", G, "Sandboxes a worker can hold at once.", ("worker",))
SANDBOXES = Metric("edge_sandboxes", G, "Sandboxes that exist now.", ("worker",))
PARKED = Metric("edge_sandboxes_parked", G, "Sandboxes waiting in a hostcall.", ("worker",))
GUEST_BYTES = Metric("edge_guest_memory_bytes", G, "Linear memory of live sandboxes.", ("worker",))
HOST_BYTES = Metric(
    "edge_guest_host_bytes", G, "Bytes the host holds for live sandboxes.", ("worker",)
)
HEARTBEAT_AGE = Metric(
    "edge_worker_heartbeat_age_seconds", G, "Time since a worker's loop last said it turns.",
    ("worker",),
)  # fmt: skip
WORKER_READY = Metric("edge_worker_ready", G, "1 while the worker serves.", ("worker",))
GENERATION = Metric(
    "edge_worker_snapshot_generation", G, "Number of the snapshot a worker serves.", ("worker",)
)
WORKER_RSS = Metric(
    "edge_worker_resident_memory_bytes", G, "Resident memory of a worker.", ("worker",)
)
WORKER_CPU = Metric(
    "edge_worker_cpu_seconds_total", C, "CPU time of a worker process; restarts from 0 with it.",
    ("worker",),
)  # fmt: skip
WORKER_FDS = Metric("edge_worker_open_fds", G, "Open descriptors of a worker.", ("worker",))
FAULTS = Metric("edge_faults_total", C, "Bugs of this server that were caught. Please report.")
LOG_LINES_DROPPED = Metric(
    "edge_log_lines_dropped_total", C, "Log lines lost: the ring was full, or the write failed.",
    ("reason",),
)  # fmt: skip

# The supervisor ---------------------------------------------------------------------------------
RESTARTS = Metric("edge_worker_restarts_total", C, "Workers replaced.", ("worker", "reason"))
QUARANTINES = Metric(
    "edge_quarantines_total", C, "Times a version was set aside for killing workers.",
    ("service", "version"),
)  # fmt: skip
RELOADS = Metric("edge_config_reloads_total", C, "Configuration reloads.", ("result",))
RELOAD_OK = Metric(
    "edge_config_last_reload_successful", G, "1 when the last load of the configuration was good."
)
RELOAD_TIME = Metric(
    "edge_config_last_reload_success_timestamp_seconds", G, "When the configuration was last good."
)
DEPLOYS = Metric("edge_deploys_total", C, "Deployments asked for.", ("service", "result"))
ACTIVATIONS = Metric(
    "edge_activations_total", C,
    "Times that other versions of deployed services began to serve, by what led to it.",
    ("reason",),
)  # fmt: skip
CANARY_ROLLBACKS = Metric(
    "edge_canary_rollbacks_total", C, "Canaries taken back for breaching their bounds.",
    ("service",),
)  # fmt: skip
CATALOGUE_WRITES = Metric(
    "edge_catalogue_writes_total",
    C,
    "Transactions that changed, or tried to change, the catalogue.",
)
CATALOGUE_WRITE_SECONDS = Metric(
    "edge_catalogue_write_seconds_total", C, "Time they took, until they were on the disk."
)
COMPILE = Metric(
    "edge_compile_seconds", H, "Time to compile a module, in a child process.", (), time_bounds(26)
)
BUILD_INFO = Metric("edge_build_info", G, "Always 1.", ("version", "wasmtime", "python"))
SERVICE_INFO = Metric(
    "edge_service_info", G, "1 for each version that is loaded.", ("service", "version", "sha256")
)
SERIES = Metric(
    "edge_service_series", G, "Service versions with series of their own (state used) and room "
    "for them (state limit).", ("state",),
)  # fmt: skip
SERIES_FOLDED = Metric(
    "edge_service_series_folded", G,
    'Versions beyond that room, counted together as service "_other".',
)  # fmt: skip

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def reference() -> str:
    """The whole of `docs/metrics.md`."""
    lines = [
        "# Metrics", "",
        "Written from `edge/telemetry/metrics.py` by `python -m edge.telemetry.metrics`; a test "
        "compares.", "",
        "`GET /metrics` answers Prometheus text 0.0.4, or OpenMetrics when the Accept header asks",
        "for it. Counts are exact sums over all workers and survive a killed worker. Besides these",
        "there are the usual `process_*` metrics, for the supervisor.", "",
        "* `service`, `version`: from the configuration. Requests that no route led anywhere are",
        f"  `{NO_SERVICE}`; versions beyond the bound on series share `{OTHER_SERVICES}`.",
        "* `code`: `1xx` to `5xx`, or `none`. `method`: one of the nine standard methods or",
        "  `OTHER`.",
        "* A service's counters go on from version to version; `edge_request_outcome_total` has",
        "  the version and ends with it. Removing a service ends all of its series.",
        "* `backend`: the first 30 that a service ever had by name, all dynamic ones together as",
        f"  `{DYNAMIC_BACKENDS}`, and what is beyond as `{OTHER_BACKENDS}`.",
        "* Buckets are powers of two: times from 5 µs, memory from 64 KiB.", "",
        "| metric | type | labels | meaning |", "|---|---|---|---|",
    ]  # fmt: skip
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())

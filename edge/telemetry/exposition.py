"""The text that a scraper reads: one registry, one function.  HTTP is somebody else's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from edge.telemetry.collector import EdgeCollector


class Exposition:
    """Our collector and the supervisor's own `process_*`, in a registry of their own.

    Not the library's global registry: what other packages put there is not ours to publish.
    """

    def __init__(self, collector: EdgeCollector) -> None:
        """Registers; nothing is read before `render`."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Body and Content-Type: OpenMetrics when `accept` asks for it, else text 0.0.4."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

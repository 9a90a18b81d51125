"""What a service under test did: finished requests and written lines, told on the server's thread
and read on the test's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.local.seen import Seen
from edge.server.exchange import Exchange

# Tells our own requests apart; it is taken out before any guest sees a request.
MARK: Final = b"x-edge-testing-request"
WAIT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a guest wrote; `stream` is stdout, stderr or the name of a log endpoint."""

    service: str
    request_id: str
    stream: str
    text: str


class Records:
    """Implements `edge.local.seen.Watcher`; not bounded, for a test ends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all of the following
        self._seen: list[Seen] = []
        self._lines: list[LogLine] = []
        self._ids: dict[str, str] = {}  # our mark -> the request's id

    # Told by the server -----------------------------------------------------------------------

    def line(self, service: str, request_id: str, stream: str, text: bytes) -> None:
        shown = text.decode("utf-8", "backslashreplace")
        with self._changed:
            self._lines.append(LogLine(service, request_id, stream, shown))

    def finished(self, seen: Seen) -> None:
        with self._changed:
            self._seen.append(seen)
            self._changed.notify_all()

    def begins(self, exchange: Exchange) -> None:
        """For `LocalOptions.on_request`."""
        mark = exchange.request_header(MARK)
        if mark is None:
            return
        head = exchange.head
        head.headers[:] = [item for item in head.headers if item[0] != MARK]
        head.original_names[:] = [name for name in head.original_names if name.lower() != MARK]
        with self._changed:
            self._ids[mark.decode()] = exchange.request_id

    # Read by the test -------------------------------------------------------------------------

    def all_seen(self) -> tuple[Seen, ...]:
        with self._changed:
            return tuple(self._seen)

    def lines(self, request_id: str | None = None) -> tuple[LogLine, ...]:
        """Those of one request, or all."""
        with self._changed:
            return tuple(line for line in self._lines if request_id in (None, line.request_id))

    def wait_for(self, mark: str) -> Seen:
        """What is known of one of our own requests, once it is over."""
        found: list[Seen] = []

        def over() -> bool:
            request_id = self._ids.get(mark)
            found[:] = [seen for seen in self._seen if seen.request_id == request_id]
            return bool(found)

        self.wait_until(over, "the request is not over")
        return found[0]

    def wait_until(self, holds: Callable[[], object], complaint: str) -> None:
        """Wait until it holds; asked whenever a request has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(holds()), WAIT_SECONDS), complaint

"""What is seen of requests in a local server: one record each, and every line that guests write.

The dispatcher tells its logs what it tells them in a worker; here they keep it as values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge.abi.hostcall import Hostcall
from edge.abi.sandbox import Sandbox
from edge.http.message import Downstream
from edge.outcome import Outcome
from edge.telemetry.access_log import AccessLog
from edge.telemetry.guest_log import GuestLog
from edge.telemetry.log_sink import LogSink

# A guest in a loop makes a million hostcalls a second; what it began with is what one looks for.
MAX_CALLS = 10_000


@dataclass(frozen=True, slots=True)
class Call:
    """One hostcall that has its status, in the numbers of the guest's own interface."""

    name: str  # `fastly_http_req.send`
    status: int  # 0 is success


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that is over, and its guest's work for it too.  Times in ns, sizes in bytes."""

    request_id: str
    service: str  # "" when no service was found for it
    method: str
    host: str
    target: str  # with its query
    status: int  # 0: nothing was sent
    outcome: Outcome
    cpu_ns: int
    wall_ns: int
    memory: int
    bytes_in: int
    bytes_out: int
    hostcalls: int
    subrequests: int
    backtrace: str  # of a trap, with the names of functions where the module has them
    calls: tuple[Call, ...]  # when hostcalls are traced
    calls_left_out: int


class Watcher(Protocol):
    """Who is told, on the loop that runs the guests; must not wait."""

    def line(self, service: str, request_id: str, stream: str, text: bytes) -> None:
        """A line that a guest wrote; `stream` is stdout, stderr or a log endpoint."""
        ...

    def finished(self, seen: Seen) -> None:
        """A request is over."""
        ...


@dataclass(slots=True)
class _Notes:
    """What the access record does not have, of one request under way."""

    box: Sandbox
    subrequests: int | None = None  # set when its sandbox turns to another request
    backtrace: str = ""
    calls: list[Call] = field(default_factory=list)
    left_out: int = 0


class Notes:
    """Notes on the requests under way, by their ids; each goes when its record comes."""

    def __init__(self) -> None:
        self._open: dict[str, _Notes] = {}

    def __len__(self) -> int:
        return len(self._open)

    def began(self, box: Sandbox) -> None:
        self._open[box.downstream.request_id] = _Notes(box)

    def turns(self, box: Sandbox) -> None:
        """A sandbox is about to serve a further request, and counts anew."""
        notes = self._open.get(box.downstream.request_id)
        if notes is not None:
            notes.subrequests = box.subrequests

    def trapped(self, box: Sandbox, backtrace: str) -> None:
        notes = self._open.get(box.downstream.request_id)
        if notes is not None:
            notes.backtrace = backtrace

    def called(self, box: Sandbox, hostcall: Hostcall, status: int) -> None:
        """For `ObservedRuntime.trace`."""
        notes = self._open.get(box.downstream.request_id)
        if notes is None:
            return
        if len(notes.calls) < MAX_CALLS:
            notes.calls.append(Call(f"{hostcall.module}.{hostcall.name}", int(status)))
        else:
            notes.left_out += 1

    def close(self, request_id: str) -> _Notes | None:
        return self._open.pop(request_id, None)

    def watched(self, make_sandbox: Callable[[Downstream], Sandbox]) -> type[Sandbox]:
        """The class that makes a version's sandboxes, telling us of each."""
        notes = self
        base: Any = make_sandbox  # `sandbox_maker` gives a class

        class WatchedSandbox(base):  # type: ignore[misc]  # known at run time alone
            def __init__(self, downstream: Downstream) -> None:
                super().__init__(downstream)
                notes.began(self)

            def begin(self, downstream: Downstream, told: int) -> None:
                notes.turns(self)
                super().begin(downstream, told)
                notes.began(self)

        return WatchedSandbox


class SeenRequests(AccessLog):
    """An access log that makes values."""

    def __init__(self, sink: LogSink, notes: Notes, watcher: Watcher) -> None:
        super().__init__("text", sink)
        self._notes = notes
        self._watcher = watcher

    def record(
        self,
        wall: float,
        request: str,
        client: str,
        service: str,
        version: str,
        method: bytes,
        host: bytes,
        target: bytes,
        status: int,
        outcome: Outcome,
        cpu_ns: int,
        wall_ns: int,
        memory_peak: int,
        bytes_in: int,
        bytes_out: int,
        hostcalls: int,
        queue_ns: int,
    ) -> None:
        notes = self._notes.close(request)
        subrequests, left_out, backtrace = 0, 0, ""
        calls: tuple[Call, ...] = ()
        if notes is not None:
            counted = notes.subrequests
            subrequests = notes.box.subrequests if counted is None else counted
            calls, left_out, backtrace = tuple(notes.calls), notes.left_out, notes.backtrace
        self._watcher.finished(
            Seen(
                request_id=request,
                service=service,
                method=_text(method),
                host=_text(host),
                target=_text(target),
                status=status,
                outcome=outcome,
                cpu_ns=cpu_ns,
                wall_ns=wall_ns,
                memory=memory_peak,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                hostcalls=hostcalls,
                subrequests=subrequests,
                backtrace=backtrace,
                calls=calls,
                calls_left_out=left_out,
            )
        )


class SeenLines(GuestLog):
    """A guest log that hands lines on."""

    def __init__(self, sink: LogSink, watcher: Watcher) -> None:
        super().__init__("text", sink)
        self._watcher = watcher

    def line(
        self, wall: float, service: str, version: str, request: str, stream: str, data: bytes
    ) -> int:
        self._watcher.line(service, request, stream, data)
        return 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")

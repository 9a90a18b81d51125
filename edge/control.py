"""What supervisor and worker say to each other: length-prefixed JSON on a socket pair.

The two directions are not alike.  What the supervisor sends is believed, secrets included.  A
worker runs hostile guests, so what it sends is bounded, checked field by field, never unpickled.

A worker's life: `Init` ... `Started`, then for each snapshot `Prepare` ... `Prepared` or `Failed`,
and `Commit` ... `Committed` or `Abort`; at the end `Drain`.  The end of the stream ends the worker.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from edge.model.plain import from_plain, to_plain
from edge.runtime.artifacts import Artifact
from edge.settings import Settings

MAX_TO_WORKER: Final = 256 * 1024 * 1024  # a snapshot holds every config store in full
MAX_TO_SUPERVISOR: Final = 1024 * 1024
MAX_UNREAD: Final = 4 * 1024 * 1024  # bytes that the other end has not taken, and no more
MAX_REASON: Final = 2000  # characters of one version's refusal
MAX_REASONS: Final = 200
_PREFIX: Final = 4


class ControlError(Exception):
    """The other side broke the protocol.  Its connection is closed, which ends a worker."""


# To the worker ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening socket that the worker inherits."""

    fd: int
    address: str  # for log lines
    proxy_protocol: bool


@dataclass(frozen=True, slots=True)
class Sizing:
    """What one worker may hold."""

    slots: int  # sandboxes alive at once
    memory_budget: int  # bytes, guests and host together
    memory_ceiling: int  # bytes of the largest linear memory any service may have
    table_ceiling: int  # elements


@dataclass(frozen=True, slots=True)
class Init:
    """Everything a worker needs before its first snapshot; the first frame of all."""

    slot: int
    workers: int
    blocks: int  # service blocks in the shared cells
    cells_fd: int
    log_fd: int
    listeners: tuple[Inherited, ...]
    sizing: Sizing
    settings: Settings
    rates: Path  # the file of rate counters that all workers share
    own_addresses: tuple[str, ...]  # of the control listeners: `127.0.0.1:8090`
    watch_fd: int = -1  # of `edge.watch`; -1: nobody watches


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load and link a snapshot, and change nothing yet.

    A version that the worker serves already is there by its digest alone: see `edge.transfer`.
    """

    generation: int
    settings: Settings
    order: tuple[str, ...]  # the digests of all versions
    versions: Mapping[str, str] = field(repr=False)  # JSON of the others, by digest; has secrets
    artifacts: Mapping[str, Artifact]  # of those, by module hash


@dataclass(frozen=True, slots=True)
class Commit:
    """Serve what was prepared."""

    generation: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget what was prepared."""

    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop accepting, finish what is in flight within `seconds`, and exit."""

    seconds: float


ToWorker = Init | Prepare | Commit | Abort | Drain
_TO_WORKER: Final[Mapping[str, type[ToWorker]]] = {
    "init": Init,
    "prepare": Prepare,
    "commit": Commit,
    "abort": Abort,
    "drain": Drain,
}
_TO_WORKER_NAMES: Final = {cls: name for name, cls in _TO_WORKER.items()}


# To the supervisor --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The engine exists; snapshots may come."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything of this generation is linked."""

    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """This generation cannot be served here; `reasons` is by label, "" for the worker itself."""

    generation: int
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Committed:
    """This generation is what new requests get."""

    generation: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """No worker can start with these settings; the supervisor gives up if none ever did."""

    problems: tuple[str, ...]


ToSupervisor = Started | Prepared | Failed | Committed | Unusable


def encode(message: ToWorker | ToSupervisor) -> bytes:
    """One frame.  ControlError when it is larger than the other side would take."""
    match message:
        case Init() | Prepare() | Commit() | Abort() | Drain():
            name, limit = _TO_WORKER_NAMES[type(message)], MAX_TO_WORKER
        case _:
            name, limit = type(message).__name__.lower(), MAX_TO_SUPERVISOR
    body = json.dumps({"type": name, "body": to_plain(message)}, separators=(",", ":")).encode()
    if len(body) > limit:
        raise ControlError(f"a {name} message of {len(body)} bytes; at most {limit} can be sent")
    return len(body).to_bytes(_PREFIX, "big") + body


def decode_to_worker(body: bytes) -> ToWorker:
    """A message of the supervisor's, believed but for its shape."""
    try:
        data = json.loads(body)
        return from_plain(_TO_WORKER[data["type"]], data["body"])
    except (ValueError, KeyError, TypeError) as error:
        raise ControlError(
            f"a message from the supervisor that cannot be read: {error!r}"
        ) from error


def decode_to_supervisor(body: bytes) -> ToSupervisor:
    """A message of a worker's, which may be lying.  ControlError unless every field is in order."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ControlError("not JSON") from error
    match data:
        case {"type": "started"}:
            return Started()
        case {"type": "prepared", "body": {"generation": int(number)}}:
            return Prepared(number)
        case {"type": "committed", "body": {"generation": int(number)}}:
            return Committed(number)
        case {"type": "failed", "body": {"generation": int(number), "reasons": dict(reasons)}}:
            return Failed(number, _texts(reasons))
        case {"type": "unusable", "body": {"problems": list(problems)}}:
            texts = _texts({str(i): text for i, text in enumerate(problems)})
            return Unusable(tuple(texts.values()))
    raise ControlError("a message of no known type")


def _texts(reasons: Mapping[object, object]) -> dict[str, str]:
    if len(reasons) > MAX_REASONS:
        raise ControlError(f"{len(reasons)} reasons; at most {MAX_REASONS}")
    found: dict[str, str] = {}
    for name, text in reasons.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ControlError("a reason that is not text")
        found[name] = text[:MAX_REASON]
    return found


def bounded(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reasons as the supervisor takes them; the rest are left out (they fail again next time)."""
    kept = list(reasons.items())[:MAX_REASONS]
    return {name: text[:MAX_REASON] for name, text in kept}


class Frames:
    """Cuts a stream into frame bodies.  Holds at most one frame of `limit` bytes."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies completed by `data`.  ControlError for a frame above the limit."""
        self._buffer += data
        bodies: list[bytes] = []
        while len(self._buffer) >= _PREFIX:
            size = int.from_bytes(self._buffer[:_PREFIX], "big")
            if size > self._limit:
                raise ControlError(f"a message of {size} bytes; at most {self._limit} are taken")
            if len(self._buffer) < _PREFIX + size:
                break
            bodies.append(bytes(self._buffer[_PREFIX : _PREFIX + size]))
            del self._buffer[: _PREFIX + size]
        return bodies


class Channel(asyncio.Protocol):
    """One end of the socket pair on an event loop."""

    def __init__(
        self,
        *,
        limit: int,
        on_body: Callable[[bytes], None],
        on_close: Callable[[str], None],
    ) -> None:
        """`on_body` may raise ControlError; `on_close` is called once, with a reason or ""."""
        self._frames = Frames(limit)
        self._on_body = on_body
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # Not checked: the loop's transports need not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for body in self._frames.feed(data):
                self._on_body(body)
        except ControlError as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self._on_close(self._reason or (str(exc) if exc else ""))

    def send(self, message: ToWorker | ToSupervisor) -> None:
        """Queue a message; dropped when the other end is gone (its `on_close` says so).

        The queue is bounded by the protocol: at most one snapshot is under way at a time.
        """
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """The same for what `encode` made: one snapshot goes to every worker."""
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > max(MAX_UNREAD, 2 * len(frame)):
            self.close("it does not read what it is sent")
            return
        transport.write(frame)

    def close(self, reason: str = "") -> None:
        """Drop the connection now."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
